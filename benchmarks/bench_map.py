"""Maps which kind of decision is best by how much, over device speed and uplink bandwidth.

``python -m benchmarks.bench_map --workload campus [--plot docs/map_campus.png] [--json FILE]``. Kinds are device-only,
split (the device computes up to a cut inside the network) and offload (it sends the image). A cell is a constant device
slowdown and a constant uplink; the other conditions are in the middle of the workload's range and are printed. In each
cell the best decision of each kind is pinned in the twin, in hindsight, and the mean utility per frame is compared:
``agents.compare.kind_map`` tells how.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agents.compare.kind_map import EPISODES, KEPT, KindMap, constant_links, map_kinds
from agents.compare.map_plot import bandwidth_text, draw_kinds
from controller.errors import MecpilotError, UsageError
from controller.metrics import known
from controller.records import KINDS, Floats
from controller.scenario import Scenario
from envs.setup import Setup, open_setup
from runtime.files.provenance import Used
from runtime.observe.summary import percent
from runtime.observe.tables import table_console
from runtime.profiling.profile import used_profile

#: Lead in utility from which on a cell of the picture has its full colour.
FULL_LEAD = 0.2
#: Most slowdowns, and most bandwidths.
MOST_VALUES = 100
#: Conditions of a cell that are not its own, for the printed line and the JSON.
_CONDITIONS = ("fps", "deadline_s", "mec_slowdown", "device_load_frac", "mec_load_frac", "rtt_s", "frames")


def main() -> None:
    options = _options()
    try:
        measure(options, table_console(wide=True))
    except MecpilotError as error:
        sys.exit(f"bench_map: {error}")


def measure(options: argparse.Namespace, console: Console) -> None:
    """Play, print the tables, and write what was asked for."""
    begin_s = time.monotonic()
    slowdown = _grid("--slowdown", options.slowdown)
    uplink_bps = _grid("--uplink-kbit", options.uplink_kbit) * 1e3
    for name in ("kept", "episodes"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name}: got {getattr(options, name)}; expected at least 1")
    links = constant_links(uplink_bps)
    setup = open_setup(options.bundle or options.workload, links, "test", options.scenario, options.profile)
    found = map_kinds(setup, slowdown, uplink_bps, options.kept, options.episodes)
    conditions = conditions_text(found.scenario)
    console.print(f"{setup.workload}: {len(found.decisions)} decisions, {conditions}", soft_wrap=True)
    console.print(map_table(found))
    console.print(kinds_table(found))
    console.print(f"{time.monotonic() - begin_s:.0f} s")
    if options.json:
        report = as_json(setup, found, used_profile(setup.bundle, setup.profile))
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        title = f"{setup.workload}: best kind of decision in hindsight, and its lead in utility over the second"
        title += " (no number: no other kind works there)"
        best, lead = found.best, found.lead
        draw_kinds(slowdown, uplink_bps, best, lead, FULL_LEAD, f"{title}\n{conditions}", options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle; default: the one shipped for the workload")
    parser.add_argument("--profile", type=Path, help="times of the machine; default: as for mecpilot evaluate")
    parser.add_argument("--scenario", type=Path, help="JSON file of the fields that differ from the workload's range")
    grid: dict[str, Any] = {"type": float, "nargs": 3, "metavar": ("FROM", "TO", "COUNT")}
    parser.add_argument("--slowdown", default=(5, 300, 10), **grid, help="of the device, on a log scale")
    parser.add_argument("--uplink-kbit", default=(8, 50_000, 14), **grid, help="kbit/s, on a log scale")
    parser.add_argument("--kept", type=int, default=KEPT, help="decisions of each kind and cell that play on")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="whole episodes of each of these")
    parser.add_argument("--plot", type=Path, help="write the picture here (PNG)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def _grid(option: str, bounds: tuple[float, float, float]) -> Floats:
    """(COUNT,) values on a log scale; UsageError for bounds that give none."""
    low, high, count = bounds
    if not (0 < low <= high < math.inf and 1 <= count <= MOST_VALUES):
        expected = f"0 < FROM <= TO, and 1 to {MOST_VALUES} values"
        raise UsageError(f"{option}: got {low:g} to {high:g}, {count:g} values; expected {expected}")
    return np.geomspace(low, high, int(count))


def conditions_text(scenario: Scenario) -> str:
    """The conditions that all cells share, in one line."""
    s = scenario
    times = f"deadline {s.deadline_s * 1e3:.0f} ms, round trip {s.rtt_s * 1e3:.1f} ms"
    loads = f"load of the MEC {percent(s.mec_load_frac)} and of the device {percent(s.device_load_frac)}"
    return f"{s.fps:.3g} frames/s, {times}, MEC slowdown {s.mec_slowdown:.3g}, {loads}"


def map_table(found: KindMap) -> Table:
    """A row per slowdown, a column per bandwidth: initial of the best kind, and its lead."""
    table = Table(title="best kind (D device-only, S split, O offload) and its lead in utility over the second")
    table.add_column("slowdown", justify="right")
    for bps in found.uplink_bps:
        table.add_column(f"{bandwidth_text(bps)}bit/s", justify="right")
    best, lead = found.best, found.lead
    for y, slowdown in enumerate(found.device_slowdown):
        names = [KINDS[kind][0].upper() for kind in best[y]]
        cells = [f"{n} only" if np.isnan(by) else f"{n} {by:.3f}" for n, by in zip(names, lead[y], strict=True)]
        table.add_row(f"{slowdown:.3g}", *cells)
    return table


def kinds_table(found: KindMap) -> Table:
    """Of each kind: cells in which it is best, what it is worth over all cells, and where it leads most."""
    table = Table(title="kinds over all cells")
    for name in ("kind", "best in cells", "mean utility lost without it", "largest lead", "there", "with the decision"):
        table.add_column(name)
    for kind, figures in _by_kind(found).items():
        top = figures["largest_lead"]
        there = ("-", "-", "-")
        if top is not None:
            place = f"slowdown {top['device_slowdown']:.3g}, {bandwidth_text(top['uplink_bps'])}bit/s"
            there = (f"{top['lead']:.3f}", place, top["decision"])
        table.add_row(kind, percent(figures["best_frac"]), f"{figures['worth']:.4f}", *there)
    return table


def _by_kind(found: KindMap) -> dict[str, dict[str, Any]]:
    best, lead = found.best, found.lead
    figures = {}
    for number, kind in enumerate(KINDS):
        mine = np.where(best == number, lead, np.nan)
        top = None
        if np.isfinite(mine).any():
            y, x = np.unravel_index(int(np.nanargmax(mine)), mine.shape)
            top = {
                "lead": float(mine[y, x]),
                "device_slowdown": float(found.device_slowdown[y]),
                "uplink_bps": float(found.uplink_bps[x]),
                "decision": found.decisions[found.row[y, x, number]].label,
            }
        worth = float(np.nanmean(found.worth(kind)))  # cells without a second kind have no lead
        figures[kind] = {"best_frac": float((best == number).mean()), "worth": worth, "largest_lead": top}
    return figures


def as_json(setup: Setup, found: KindMap, profile: Used) -> dict[str, Any]:
    """All figures, and what they were made with."""
    best, lead = found.best, found.lead
    cells = [
        {
            "device_slowdown": float(slowdown),
            "uplink_bps": float(bps),
            "best": KINDS[best[y, x]],
            "lead": known(lead[y, x]),
            "kinds": {kind: _of_kind(found, y, x, number) for number, kind in enumerate(KINDS)},
        }
        for y, slowdown in enumerate(found.device_slowdown)
        for x, bps in enumerate(found.uplink_bps)
    ]
    return {
        "workload": setup.workload,
        "bundle_digest": setup.bundle.digest,
        "profile": profile.text,
        "conditions": {name: getattr(found.scenario, name) for name in _CONDITIONS},
        "decisions_played": len(found.decisions),
        "kinds": _by_kind(found),
        "cells": cells,
    }


def _of_kind(found: KindMap, y: int, x: int, number: int) -> dict[str, Any] | None:
    """Utility and decision of the best of a kind in a cell; None where none can be carried out."""
    row = int(found.row[y, x, number])
    if row < 0:
        return None
    return {"utility": float(found.utility[y, x, number]), "decision": found.decisions[row].label}


if __name__ == "__main__":
    main()
