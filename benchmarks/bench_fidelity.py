"""Compares the twin with real processes, term by term: the same scenarios and decisions on both.

``python -m benchmarks.bench_fidelity [--workload campus] [--frames 150] [--json FILE]``. First the machine is profiled,
because a twin is valid only for the machine that it was calibrated on. Then every controller, tuned as in ``mecpilot
evaluate``, plays every scenario live: a MEC process, other devices that load it, this process as the device, an
emulated uplink. The twin then takes the same decision for each frame, so only the emulation differs. For the ranking
each controller also plays the twin with its own decisions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from agents.compare.evaluation import entrants_of
from benchmarks.support.machine_profile import machine_profile
from controller.controllers.base import Controller
from controller.records import STATUSES, Decision, Status, SystemState
from controller.scenario import Scenario, ScenarioRange
from envs.live import LiveBackend
from envs.setup import open_setup
from envs.twin.twin import Twin
from runtime.testbed.markov_traces import builtin_traces

TERMS = ("wait", "head", "uplink", "queue", "tail", "downlink")
CONTROLLERS = "device-only,jpeg-offload,edgent,greedy,ppo"
TRACES = (0, 3, 7)  # of the built-in test traces: one per scenario
LEAST_MS = 1.0  # shorter terms are too close to the clock's resolution
SAME_UTILITY = 0.01  # controllers closer than this count as equal in the ranking


def scenarios_of(default_range: ScenarioRange, frames: int) -> list[Scenario]:
    """Three scenarios in a workload's range: a good uplink with an idle MEC, a narrow one, a busy MEC and device."""

    def at(name: str, share: float) -> float:
        low, high = getattr(default_range, name)
        return float(low * (high / low) ** share)

    def scenario(number: int, slowdown: float, uplink: float, deadline: float, **loads: float) -> Scenario:
        return Scenario(
            fps=at("fps", 0.45),
            deadline_s=at("deadline_s", deadline),
            device_slowdown=at("device_slowdown", slowdown),
            mec_slowdown=at("mec_slowdown", 0.5),
            uplink_share_frac=at("uplink_share_frac", uplink),
            trace_index=TRACES[number],
            trace_start_s=20.0,
            frames=frames,
            seed=number,
            **loads,
        )

    return [
        scenario(0, 0.3, 0.75, 0.65),
        scenario(1, 0.6, 0.15, 0.45),
        scenario(2, 0.5, 0.6, 0.55, device_load_frac=0.3, mec_load_frac=0.6),
    ]


@dataclass(frozen=True)
class Played:
    """Results of an episode; arrays (N,) over the decided frames."""

    frame: np.ndarray
    row: np.ndarray
    on_time: np.ndarray
    latency_ms: np.ndarray
    terms_ms: dict[str, np.ndarray]
    answered_as_decided: np.ndarray
    utility: float  # mean over all frames, dropped ones included


def play_live(backend: LiveBackend, scenario: Scenario, controller: Controller) -> Played:
    """Play one scenario with real processes."""
    state, done = backend.reset(scenario), False
    controller.reset(np.ones(1, bool))
    outcomes: list[dict[str, Any]] = []
    while not done:
        step = backend.step(int(controller.decide(state)[0]))
        state, done = step.state, step.done
        outcomes += step.info["outcomes"]
    decided = sorted((o for o in outcomes if o["decision"] is not None), key=lambda o: int(o["frame"]))
    space = backend.costs.space
    return Played(
        frame=np.array([o["frame"] for o in decided]),
        row=np.array([space.index(Decision(**o["decision"])) for o in decided]),
        on_time=np.array([o["status"].on_time for o in decided]),
        latency_ms=np.array([o["latency_ms"] for o in decided]),
        terms_ms={term: np.array([o["breakdown_ms"][term] for o in decided]) for term in TERMS},
        answered_as_decided=np.array([o["status"] is Status.OK for o in decided]),
        utility=float(np.mean([o["utility"] for o in outcomes])),
    )


def play_twin(twin: Twin, scenario: Scenario, decide: Callable[[SystemState, int], int]) -> Played:
    """Play one scenario in the twin; ``decide(state, frame)`` returns a row."""
    state, records = twin.reset(scenarios=[scenario]), []
    frame, done = 0, False
    while not done:
        state, record = twin.step(np.array([decide(state, frame)]))
        records.append(record)
        frame += int(record.frames[0])
        done = bool(record.done[0])
    terms = [record.breakdown_s() for record in records]
    return Played(
        frame=np.array([int(r.frame[0]) for r in records]),
        row=np.array([int(r.row[0]) for r in records]),
        on_time=np.array([bool(r.on_time[0]) for r in records]),
        latency_ms=np.array([1e3 * float(r.latency_s[0]) for r in records]),
        terms_ms={term: np.array([1e3 * float(t[term][0]) for t in terms]) for term in TERMS},
        answered_as_decided=np.array([STATUSES[r.status[0]].value == "ok" for r in records]),
        utility=float(np.sum([r.reward[0] for r in records]) / scenario.frames),
    )


def compare(live: Played, twin: Played) -> dict[str, Any]:
    """Typical times over the frames that both decided and answered as decided: medians, for the queue the mean.

    A request finds the MEC either busy or idle, and at a load near one half the median of the queue jumps between the
    two.
    """
    frames, at_live, at_twin = np.intersect1d(live.frame, twin.frame, return_indices=True)
    both = live.answered_as_decided[at_live] & twin.answered_as_decided[at_twin]
    at_live, at_twin = at_live[both], at_twin[both]
    offloaded = live.terms_ms["uplink"][at_live] > 0
    typical: dict[str, Any] = {}
    for term in ("total", *TERMS):
        one = live.latency_ms if term == "total" else live.terms_ms[term]
        other = twin.latency_ms if term == "total" else twin.terms_ms[term]
        some = np.ones(len(at_live), bool) if term in ("total", "wait", "head") else offloaded
        middle = np.mean if term == "queue" else np.median
        if some.any():
            typical[term] = [float(middle(one[at_live][some])), float(middle(other[at_twin][some]))]
    return {
        "frames": len(frames),
        "compared": int(both.sum()),
        "typical_ms": typical,
        "slo": [float(live.on_time.mean()), float(twin.on_time.mean())],
    }


def run(workload: str, profile: Path, frames: int, controllers: str) -> dict[str, dict[str, Any]]:
    """Results by scenario and controller."""
    setup = open_setup(workload, builtin_traces("test"), "test", profile=profile)
    entrants = entrants_of(workload, controllers, live=True)
    twin = setup.twin(1)
    backend = setup.live(learning=False)

    def controller(name: str) -> Controller:
        return entrants.make(name, setup, 1)[0]

    results: dict[str, dict[str, Any]] = {}
    try:
        for number, scenario in enumerate(scenarios_of(setup.range, frames)):
            for name in entrants.names:
                live = play_live(backend, scenario, controller(name))
                same = play_twin(twin, scenario, _decisions_of(live))
                alone = controller(name)
                alone.reset(np.ones(1, bool))
                own = play_twin(twin, scenario, lambda state, _, alone=alone: int(alone.decide(state)[0]))  # type: ignore[misc]
                result = compare(live, same) | {"utility": [live.utility, own.utility]}
                results[f"{number} {name}"] = result
                show(f"{number} {name}", result)
    finally:
        backend.close()
    return results


def _decisions_of(live: Played) -> Callable[[SystemState, int], int]:
    """A function that returns the live decision for a frame, or for the last frame before it that was decided."""

    def decide(_: SystemState, frame: int) -> int:
        return int(live.row[max(int(np.searchsorted(live.frame, frame, side="right")) - 1, 0)])

    return decide


def show(name: str, result: dict[str, Any]) -> None:
    pairs = [result["typical_ms"].get(term, (np.nan, np.nan)) for term in ("total", *TERMS)]
    cells = "".join(f"{live:6.1f}/{twin:<6.1f}" for live, twin in pairs)
    slo, utility = result["slo"], result["utility"]
    print(f"{name:<15}{cells} {slo[0]:5.3f}/{slo[1]:<6.3f}{utility[0]:6.3f}/{utility[1]:<6.3f}", flush=True)


def verdict(results: dict[str, dict[str, Any]]) -> list[str]:
    """The targets: total and terms within 10 %, SLO attainment within 3 points, controllers ranked alike."""
    off_by = {term: _off(results, term) for term in ("total", *TERMS)}
    slo = np.array([r["slo"] for r in results.values()])
    off = off_by["total"]
    gap = np.abs(slo[:, 1] - slo[:, 0])
    swapped = [pair for pair in combinations(results, 2) if _swapped(results, *pair)]
    return [
        f"total latency: error {np.median(off):.1%} (median), {off.max():.1%} (largest); target 10 %",
        "terms, median error: " + ", ".join(f"{term} {np.median(off_by[term]):.1%}" for term in TERMS[1:]),
        f"SLO attainment: largest error {100 * gap.max():.1f} points; target 3",
        f"ranking: {'equal' if not swapped else f'differs in {swapped}'}",
    ]


def _off(results: dict[str, dict[str, Any]], term: str) -> np.ndarray:
    """Relative difference of a term in each scenario and controller in which it lasts at least ``LEAST_MS``."""
    pairs = np.array([r["typical_ms"][term] for r in results.values() if term in r["typical_ms"]]).reshape(-1, 2)
    pairs = pairs[pairs.max(axis=1) >= LEAST_MS]
    return np.abs(pairs[:, 1] / pairs[:, 0] - 1) if len(pairs) else np.zeros(1)


def _swapped(results: dict[str, dict[str, Any]], one: str, other: str) -> bool:
    """Whether two controllers rank differently on one scenario, by more than SAME_UTILITY on both sides."""
    if one.split()[0] != other.split()[0]:
        return False
    live, twin = np.subtract(results[one]["utility"], results[other]["utility"])
    return bool(live * twin < 0 and min(abs(live), abs(twin)) > SAME_UTILITY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--frames", type=int, default=150, help="per controller and scenario")
    parser.add_argument("--controllers", default=CONTROLLERS, help="names, separated by commas")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--profile", type=Path, help="of this machine; default: measured now")
    options = parser.parse_args()
    with machine_profile(options.workload, options.profile) as profile:
        terms = "".join(f"{term:^13}" for term in ("total", *TERMS))
        print(f"{'live/twin':<15}{terms}     SLO       utility   (ms: medians, for the queue means)")
        results = run(options.workload, profile, options.frames, options.controllers)
    print("\n".join(verdict(results)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
