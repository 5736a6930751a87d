"""Outages in simulated time: a real device with the tables that ship loses its MEC in every way there is."""

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

#: Of the device-only controller's figure in the same run.
TARGET = 0.99
#: The fault comes after so many frames of so many.
BEFORE, FRAMES = 60, 500
#: Seconds until what is gone for a while is back.
AWAY_S = 4.0
UPLINK_BPS = {"garments": 1e6, "campus": 1e7}


@dataclass(frozen=True)
class Workload:
    """What a device of a workload runs with."""

    costs: CostTable
    recorded: Recorded
    range: ScenarioRange


@cache
def workload(name: str) -> Workload:
    bundle = open_bundle(name)
    costs = candidates(load_costs(bundle, shipped_path(name)), bundle.default_range)
    return Workload(costs, bundle.recorded("test"), bundle.default_range)


def controller_of(workload_name: str, name: str) -> Controller:
    """As it comes with mecpilot."""
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


#: What happens to the MEC from a moment on.
FAULTS: dict[str, Callable[[SimMec, float], None]] = {
    "killed": lambda mec, at_s: mec.plan(at_s, SimMec.die),
    "stopped": lambda mec, at_s: mec.plan(at_s, _set(held=True)),
    "held": _for_a_while(_set(held=True), SimMec.release),
    "half-open": lambda mec, at_s: mec.plan(at_s, _set(forgotten=True)),  # a new connection works
    "restarted": _for_a_while(SimMec.die, SimMec.restart),
    "never": lambda mec, at_s: mec.plan(0.0, _set(reachable=False)),
    "refused": lambda mec, at_s: mec.plan(0.0, _set(bundle=wire.Held("other", "e" * 64, "e" * 64))),
}


#: Faults that end by themselves. What a controller makes of a link that is back is not the question here.
FOR_A_WHILE = ("held", "half-open", "restarted")


@dataclass(frozen=True)
class Figures:
    """Of the frames that were captured during the fault."""

    on_time: float  # of those that were run or dropped
    answered: float  # in time, of all; skipped ones have their answer at once
    utility: float

    def of(self, other: Figures) -> float:
        """The least of the three as a share of another run's."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return min(own / theirs if theirs > 0 else 1.0 for own, theirs in pairs)


def run(workload_name: str, controller: str, fault: str, known: bool = False, **scenario: float) -> Figures:
    """Serve every frame of a run in which the fault comes; ``known``: count from when silence is noticed for sure."""
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
