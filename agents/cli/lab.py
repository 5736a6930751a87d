"""``mecpilot lab``: its options, and what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.options import Conditions, Frames, takes
from controller.errors import unknown_name
from runtime.cli.console import write_json
from runtime.cli.shared_options import JsonOut
from runtime.files.atomic import check_writable
from runtime.observe.tables import new_table, table_console
from runtime.testbed.lab.names import MOST_DEVICES

if TYPE_CHECKING:
    from rich.table import Table

    from runtime.testbed.lab.network import ShaperKind
    from runtime.testbed.lab.run import Played


@dataclass(frozen=True, kw_only=True)
class LabOptions(Conditions):
    """``mecpilot lab``."""

    controller: Annotated[str | None, typer.Option(help="Controller of every device (default: as a device).")] = None
    devices: Annotated[int, typer.Option(min=1, max=MOST_DEVICES, help="Devices that share the uplink.")] = 1
    shaper: Annotated[
        str, typer.Option(help="Who shapes the uplink: packets, packet by packet; or kernel, a token bucket (tbf).")
    ] = "packets"
    mtu: Annotated[int, typer.Option(min=296, max=9000, help="Largest packet, in bytes.")] = 1500
    congestion: Annotated[str, typer.Option(help="Congestion control of TCP: cubic, reno, bbr.")] = "cubic"
    seed: Annotated[int, typer.Option(min=0, help="Which scenario of the range is drawn, on the first trace.")] = 0
    frames: Frames = None
    outcomes: Annotated[
        Path | None, typer.Option(help="Folder for a log of outcomes of each device, deviceN.jsonl.")
    ] = None
    json: JsonOut = None

    @property
    def shaper_kind(self) -> ShaperKind:
        """UsageError for an unknown shaper."""
        from runtime.testbed.lab.network import SHAPERS

        for kind in SHAPERS:
            if kind == self.shaper:
                return kind
        raise unknown_name("shaper", self.shaper, SHAPERS)


@takes(LabOptions)
def lab(options: LabOptions) -> int:
    """Run devices and a MEC in network namespaces, over an uplink that replays a trace (root; docs/lab.md)."""
    from runtime.testbed.lab.namespaces import check_possible
    from runtime.testbed.lab.network import open_lab
    from runtime.testbed.lab.run import play

    shaper = options.shaper_kind
    check_possible()
    check_writable(options.json, "--json", make_folder=True)
    if options.outcomes is not None:
        options.outcomes.mkdir(parents=True, exist_ok=True)
    played = _played(options)
    with open_lab(options.devices, shaper, options.mtu, options.congestion) as network:
        summaries = play(network, played)
    if options.json != "-":
        table_console().print(_table(summaries, played))
    write_json({"scenario": played.scenario, "devices": summaries}, options.json, make_folder=True)
    return 0


def _played(options: LabOptions) -> Played:
    """The scenario that the twin plays with this seed on the first trace."""
    from agents.compare.rollout import paired_scenarios
    from envs.setup import open_setup, traces_of
    from runtime.testbed.lab.run import Played

    bundle, bank = options.open(), traces_of(options.traces or [], "test")
    range_ = options.range_of(bundle, options.frames)
    setup = open_setup(bundle, bank, "test", range_, options.profile, options.privacy)
    switches = {"--no-raw-upload": options.no_raw_upload, "--hardware-encoder": options.hardware_encoder}
    return Played(
        paired_scenarios(setup, [options.seed])[0],
        setup.range,
        bank,
        bundle.reference,
        bundle.directory,
        options.profile,
        options.controller,
        tuple(flag for flag, is_on in switches.items() if is_on),
        options.outcomes,
    )


def _table(summaries: Sequence[Mapping[str, Any]], played: Played) -> Table:
    """A row for each device."""
    from runtime.observe.summary import percent
    from runtime.testbed.lab.run import jain_index

    scenario, trace = played.scenario, played.bank.traces[played.scenario.trace_index]
    about = f"{trace.name} x {scenario.uplink_share_frac:.3g}, round trip {scenario.rtt_s * 1e3:.0f} ms"
    about += f", {scenario.fps:.3g} frames/s, deadline {scenario.deadline_s * 1e3:.0f} ms"
    fairness = jain_index([one["in_time_frac"] or 0.0 for one in summaries])
    headings = ("device", "controller", "utility", "in time", "late", "dropped", "MEC", "p50 ms", "p95 ms")
    table = new_table(f"{about}; fairness of frames in time {fairness:.3f}", headings, ("device", "controller"))
    for number, one in enumerate(summaries):
        answered = one["answered_on"] or {}
        with_mec = answered.get("split", 0.0) + answered.get("MEC", 0.0)
        shares = (one["in_time_frac"], one["late_frac"], one["dropped_frac"], with_mec)
        latency = one["latency_ms"]
        table.add_row(
            str(number),
            one["controller"],
            "-" if one["utility"] is None else f"{one['utility']:.3f}",
            *(percent(share) for share in shares),
            *("-" if latency[at] is None else f"{latency[at]:.0f}" for at in ("p50", "p95")),
        )
    return table
