"""Simulates outages: a real device loop with the shipped tables loses its MEC in different ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache

import numpy as np

from controller.controllers.base import Controller
from controller.controllers.registry import make_controller
from controller.costs import CostTable
from controller.records import Outcome
from controller.scenario import ScenarioRange
from controller.utility import Utility
from runtime.bundles.bundle import open_bundle
from runtime.bundles.recorded import Recorded
from runtime.files.policy_file import load_policy, shipped_policy
from runtime.files.tuning_file import load_tunings, tuning_of
from runtime.profiling.profile import candidates, load_costs, shipped_path
from runtime.protocol import wire
from support.simulated import SimMec, Simulation

#: Least share of the device-only controller's figures.
TARGET = 0.99
#: Frames before the fault, and in all.
BEFORE, FRAMES = 60, 500
#: Duration of a temporary fault.
AWAY_S = 4.0
UPLINK_BPS = {"garments": 1e6, "campus": 1e7}


@dataclass(frozen=True)
class Workload:
    """Tables of a workload for a simulated device."""

    costs: CostTable
    recorded: Recorded
    range: ScenarioRange


@cache
def workload(name: str) -> Workload:
    bundle = open_bundle(name)
    costs = candidates(load_costs(bundle, shipped_path(name)), bundle.default_range)
    recorded = bundle.recorded("test")
    moves_on = recorded.lagged_forecast is not None  # as on a device, by default
    return Workload(costs, recorded.with_forecast() if moves_on else recorded, bundle.default_range)


def controller_of(workload_name: str, name: str) -> Controller:
    """A controller with its shipped tuning or policy."""
    costs = workload(workload_name).costs
    path = shipped_policy(workload_name) if name == "ppo" else None
    tuning = tuning_of(name, load_tunings(workload_name), costs)
    return make_controller(name, costs, Utility(), tuning, policy=load_policy(path)[0] if path else None)


def _for_a_while(begin: Callable[[SimMec], None], end: Callable[[SimMec], None]) -> Callable[[SimMec, float], None]:
    def plan(mec: SimMec, at_s: float) -> None:
        mec.plan(at_s, begin)
        mec.plan(at_s + AWAY_S, end)

    return plan


def _set(**values: object) -> Callable[[SimMec], None]:
    def change(mec: SimMec) -> None:
        for name, value in values.items():
            setattr(mec, name, value)

    return change


#: Faults by name: each takes the MEC and the time at which to begin.
FAULTS: dict[str, Callable[[SimMec, float], None]] = {
    "killed": lambda mec, at_s: mec.plan(at_s, SimMec.die),
    "stopped": lambda mec, at_s: mec.plan(at_s, _set(held=True)),
    "held": _for_a_while(_set(held=True), SimMec.release),
    "half-open": lambda mec, at_s: mec.plan(at_s, _set(forgotten=True)),  # a new connection works
    "restarted": _for_a_while(SimMec.die, SimMec.restart),
    "never": lambda mec, at_s: mec.plan(0.0, _set(reachable=False)),
    "refused": lambda mec, at_s: mec.plan(0.0, _set(bundle=wire.Held("other", "e" * 64, "e" * 64))),
}


#: Temporary faults. Only the frames during the fault count, not those after it.
FOR_A_WHILE = ("held", "half-open", "restarted")


@dataclass(frozen=True)
class Figures:
    """Figures of the frames that were captured during the fault."""

    on_time: float  # share in time of those that were run or dropped
    answered: float  # share in time of all; skipped ones count as in time
    utility: float

    def of(self, other: Figures) -> float:
        """The smallest ratio of the three figures to those of another run."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return min(own / theirs if theirs > 0 else 1.0 for own, theirs in pairs)


def run(workload_name: str, controller: str, fault: str, known: bool = False, **scenario: float) -> Figures:
    """Figures of a run with a fault. ``known``: count only frames after the device has certainly noticed it."""
    w = workload(workload_name)
    sim = Simulation(
        uplink_bps=[UPLINK_BPS[workload_name]],
        costs=w.costs,
        recorded=w.recorded,
        **({"frames": FRAMES, "mec_slowdown": 2.0, "seed": 1} | scenario),
    )
    sim.mec.slowdown = sim.scenario.mec_slowdown
    fps = sim.scenario.fps
    FAULTS[fault](sim.mec, sim.clock() + BEFORE / fps + 0.05)
    first = BEFORE + (math.ceil(1.5 * fps) if known else 0)
    last = BEFORE + math.ceil(AWAY_S * fps) if fault in FOR_A_WHILE else FRAMES
    return _figures([o for o in sim.drive(controller_of(workload_name, controller)) if first <= o.frame < last])


def _figures(outcomes: list[Outcome]) -> Figures:
    ran = [outcome for outcome in outcomes if not outcome.status.reused]
    return Figures(
        float(np.mean([outcome.status.on_time for outcome in ran])),
        float(np.mean([outcome.status.on_time for outcome in outcomes])),
        float(np.mean([outcome.utility for outcome in outcomes])),
    )
