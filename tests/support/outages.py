"""Simulates outages: a real device loop with the shipped tables loses its MEC in different ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache

import msgspec
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
from support.simulated import Answer, SimMec, Simulation

#: Least share of the device-only controller's figures.
TARGET = 0.99
#: Frames before the fault, and in all.
BEFORE, FRAMES = 60, 500
#: Duration of a temporary fault.
AWAY_S = 4.0
#: Beyond the deadline of the tests.
DELAY_S = 0.3
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
#: Of these, the ones that make or keep the link down.
OUTAGES = tuple(FAULTS)


def _renamed(reply: wire.InferReply) -> tuple[wire.AnyMessage, bytes]:
    """The reply to the request before, or to one that was never sent, in turn."""
    step = 1000 if reply.request_id % 2 else -1
    return msgspec.structs.replace(reply, request_id=max(reply.request_id + step, 1)), bytes(4)


def _delay(mec: SimMec) -> None:
    answer = mec._answer

    def delayed(message: wire.Sendable) -> Answer:
        found, at_s = answer(message)
        return found, at_s + DELAY_S

    mec._answer = delayed  # type: ignore[method-assign]


def _repeat(mec: SimMec) -> None:
    deliver = mec._deliver

    def twice(message: wire.Sendable) -> None:
        deliver(message)
        if isinstance(message, wire.InferRequest):
            at_s, _, event = mec._events[-1]
            mec._later(at_s, event)

    mec._deliver = twice  # type: ignore[method-assign]


#: Faults of a MEC whose link stays up.
MISBEHAVIOUR: dict[str, Callable[[SimMec], None]] = {
    "slow": lambda mec: setattr(mec, "slowdown", 100.0 * mec.slowdown),
    "nan": _set(spoil=lambda reply: (reply, b"\0\0\xc0\x7f")),
    "wrong-shape": _set(spoil=lambda reply: (reply, b"")),
    "wrong-id": _set(spoil=_renamed),
    "twice": _repeat,
    "delayed": _delay,
}
FAULTS |= {name: lambda mec, at_s, begin=begin: mec.plan(at_s, begin) for name, begin in MISBEHAVIOUR.items()}


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


def run(
    workload_name: str, controller: str, fault: str, known: bool = False, breaker: bool = False, **scenario: float
) -> Figures:
    """Figures of a run with a fault. ``known``: count only frames after the device has certainly noticed it.
    ``breaker``: the device has one for its only MEC."""
    w = workload(workload_name)
    sim = Simulation(
        uplink_bps=[UPLINK_BPS[workload_name]],
        costs=w.costs,
        recorded=w.recorded,
        breaker=breaker,
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
