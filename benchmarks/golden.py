"""Records golden episodes, and compares them frame by frame after a change of the twin or of a controller.

``python -m benchmarks.golden record FILE`` plays fixed episodes with every controller of both workloads, as shipped,
and stores the end of each frame. ``python -m benchmarks.golden compare BEFORE AFTER`` counts the frames that differ
between two such files; with one file, it plays the episodes again. An early difference changes everything after it, so
the output lists the first difference of each episode, by its status before and after.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agents.compare.evaluation import Entrants, chosen_names, entrants_of
from agents.compare.rollout import Episodes, play, spread_scenarios
from controller.controllers.registry import ORACLE
from controller.records import Status
from envs.setup import open_setup
from runtime.testbed.markov_traces import builtin_traces

WORKLOADS = ("garments", "campus")
SCENARIOS = 48
#: Stored columns, one value per frame.
COLUMNS = ("status", "row", "latency_s", "utility")
STATUSES = tuple(Status)
Golden = Mapping[str, np.ndarray]  # "workload/controller/column" -> (episodes * frames,)


def record(scenarios: int = SCENARIOS) -> dict[str, np.ndarray]:
    """Play the golden episodes."""
    found: dict[str, np.ndarray] = {}
    for workload in WORKLOADS:
        setup = open_setup(workload, builtin_traces("test"), "test")
        played = spread_scenarios(setup, scenarios)
        entrants: Entrants = entrants_of(workload, ",".join(chosen_names(None, True, False)))
        for name in entrants.names:
            controller = entrants.make(name, setup, len(played))[0]
            columns = _columns(play(setup, controller, played, oracle=name == ORACLE))
            found |= {f"{workload}/{name}/{column}": values for column, values in columns.items()}
            print(f"{workload:<9} {name:<15} utility {columns['utility'].mean():.4f}", flush=True)
        found[f"{workload}/frames"] = np.array(played[0].frames)
    return found


def _columns(episodes: Episodes) -> dict[str, np.ndarray]:
    """The stored columns, ordered by episode and frame."""
    f = episodes.frames
    flags = (f.reused, f.dropped, f.fallback, f.in_time)
    names = (Status.SKIPPED, Status.DROPPED, Status.FALLBACK, Status.OK)
    status = np.select(flags, [STATUSES.index(name) for name in names], STATUSES.index(Status.LATE))
    order = np.lexsort((episodes.frame, f.episode))
    columns = {"status": status.astype(np.int8), "row": episodes.row, "latency_s": f.latency_s, "utility": f.utility}
    return {name: values[order] for name, values in columns.items()}


def compare(before: Golden, after: Golden) -> None:
    """Print what differs."""
    names = ("differ", "episodes", "before", "after")
    print(f"{'workload':<9} {'controller':<15} {' '.join(f'{name:>8}' for name in names)}  first differences")
    for key in before:
        if key.endswith("/status"):
            _compare(key.removesuffix("/status"), before, after)


def _compare(key: str, before: Golden, after: Golden) -> None:
    workload, name = key.split("/")
    differs = np.zeros(len(before[f"{key}/status"]), bool)
    for column in COLUMNS:
        differs |= ~np.isclose(before[f"{key}/{column}"], after[f"{key}/{column}"], rtol=1e-9, atol=1e-9)
    frames = int(before[f"{workload}/frames"])
    episodes = differs.reshape(-1, frames)
    first = np.flatnonzero(episodes.any(axis=1)) * frames + episodes.argmax(axis=1)[episodes.any(axis=1)]
    kinds = Counter(
        f"{STATUSES[before[f'{key}/status'][place]].value}>{STATUSES[after[f'{key}/status'][place]].value}"
        for place in first
    )
    means = [golden[f"{key}/utility"].mean() for golden in (before, after)]
    changes = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    row = f"{workload:<9} {name:<15} {differs.mean():>8.2%} {len(first):>8} {means[0]:>8.4f} {means[1]:>8.4f}"
    print(f"{row}  {changes}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("files", type=Path, nargs="+", help="FILE, or BEFORE and AFTER")
    options = parser.parse_args()
    if options.what == "record":
        np.savez_compressed(options.files[0], **record())
        return 0
    loaded = [dict(np.load(file)) for file in options.files[:2]]
    compare(loaded[0], loaded[1] if len(loaded) > 1 else record())
    return 0


if __name__ == "__main__":
    sys.exit(main())
