"""Every controller that ships goes on as well as a device without a link, whatever happens to its MEC."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from support.outages import MISBEHAVIOUR, OUTAGES, TARGET, controller_of, run, workload
from support.simulated import FAST, GOOD, OFFLOAD, SimMec, Simulation

from controller.controllers.base import Controller
from controller.controllers.registry import CONTROLLER_NAMES
from controller.records import Outcome, Status, SystemState
from runtime.device.daemon import drive
from runtime.device.fallback import FallbackReserve

CONDITIONS = {
    "garments": {"device_slowdown": 100.0, "fps": 20.0, "deadline_s": 0.2},
    "campus": {"device_slowdown": 12.0, "fps": 10.0, "deadline_s": 0.2},
}
OTHERS = [name for name in CONTROLLER_NAMES if name not in ("device-only", "greedy-oracle", "random")]


@pytest.mark.parametrize("fault", OUTAGES)
@pytest.mark.parametrize("name", CONDITIONS)
def test_every_controller_does_as_well_as_device_only(name: str, fault: str) -> None:
    conditions = CONDITIONS[name]
    alone = run(name, "device-only", fault, **conditions)
    every = OTHERS if fault in ("killed", "stopped") else ["ppo", "mec-only"]
    shares = {controller: run(name, controller, fault, **conditions).of(alone) for controller in every}
    assert min(shares.values()) >= TARGET, shares


@pytest.mark.parametrize("fault", MISBEHAVIOUR)
def test_a_mec_that_misbehaves_costs_no_answer_in_time(fault: str) -> None:
    for controller in ("ppo", "mec-only"):
        figures = run("garments", controller, fault, **CONDITIONS["garments"])
        assert min(figures.on_time, figures.answered) >= TARGET, controller


@pytest.mark.parametrize("controller", ["mec-only", "static-best", "jpeg-offload"])
@pytest.mark.parametrize("fault", ["slow", "wrong-id"])
def test_a_breaker_helps_controllers_that_do_not_learn(controller: str, fault: str) -> None:
    """Without one they wait for each reply, and each frame gets the fastest exit at its last moment."""
    conditions = CONDITIONS["garments"]
    alone = run("garments", "device-only", fault, **conditions)
    shares = [run("garments", controller, fault, breaker=on, **conditions).of(alone) for on in (False, True)]
    assert shares[0] < TARGET <= shares[1]


@pytest.mark.parametrize("name", CONDITIONS)
def test_even_random_decisions_do_while_the_link_is_down(name: str) -> None:
    alone, random = (run(name, who, "stopped", known=True, **CONDITIONS[name]) for who in ("device-only", "random"))
    assert random.of(alone) >= TARGET


@pytest.mark.parametrize(
    ("name", "slowdown", "fps", "deadline_s"),
    [
        ("garments", 10.0, 30.0, 0.06),
        ("garments", 300.0, 30.0, 0.4),
        ("garments", 300.0, 5.0, 0.2),
        ("garments", 600.0, 20.0, 0.2),  # nothing keeps the pace
        ("campus", 10.0, 30.0, 0.06),
        ("campus", 42.0, 10.0, 0.4),
    ],
)
def test_so_they_do_on_other_devices_and_cameras(name: str, slowdown: float, fps: float, deadline_s: float) -> None:
    conditions = {"device_slowdown": slowdown, "fps": fps, "deadline_s": deadline_s}
    for fault in ("killed", "stopped"):
        alone, ppo = (run(name, who, fault, **conditions) for who in ("device-only", "ppo"))
        assert ppo.utility >= TARGET * alone.utility
        assert ppo.answered >= TARGET * alone.answered


class Fails:
    """A controller that raises at every decision."""

    name = "fails"

    def reset(self, rows: np.ndarray) -> None: ...

    def decide(self, state: SystemState) -> np.ndarray:
        raise RuntimeError("no idea")


def test_a_controller_that_fails_is_answered_for_by_the_same_rule() -> None:
    costs = dataclasses.replace(Simulation().costs)
    sim = Simulation(costs=costs, fps=20.0, device_slowdown=2.0, frames=40)  # the good answer takes 80 ms of 50
    said: list[str] = []
    outcomes: list[Outcome] = list(drive(sim.device, Fails(), said.append))
    assert {outcome.status for outcome in outcomes} == {Status.OK}
    assert {outcome.decision for outcome in outcomes} == {costs.space.decisions[FAST]}
    assert len(said) == 40


def test_what_is_recorded_is_the_row_that_was_carried_out() -> None:
    sim = Simulation(frames=10)
    sim.mec.reachable = False
    outcomes = sim.run(lambda _: OFFLOAD)
    assert {outcome.status for outcome in outcomes} == {Status.FALLBACK}
    assert {outcome.decision for outcome in outcomes} == {sim.costs.space.decisions[GOOD]}


def test_an_interval_is_that_of_the_row_that_was_carried_out() -> None:
    """On the stream a slow device answers one frame of some, and the others are skipped instead of dropped."""
    costs = workload("campus").costs
    sim = Simulation(
        costs=costs, recorded=workload("campus").recorded, device_slowdown=100.0, fps=10.0, deadline_s=0.4, frames=100
    )
    sim.mec.reachable = False
    outcomes = sim.drive(controller_of("campus", "mec-only"))
    assert {o.status for o in outcomes} == {Status.FALLBACK, Status.SKIPPED}
    ran = [o for o in outcomes if o.status is Status.FALLBACK]
    for earlier, later in itertools.pairwise(ran):
        assert earlier.decision is not None
        assert later.frame - earlier.frame == earlier.decision.frame_stride


def test_a_silent_mec_is_not_asked_again_until_it_is_heard() -> None:
    """The first overdue frame is sign enough; a heartbeat that is answered, or a late reply, ends the doubt."""
    sim = Simulation(frames=20, fps=20.0)
    sim.mec.plan(sim.clock() + 0.07, lambda mec: setattr(mec, "held", True))
    sim.mec.plan(sim.clock() + 0.62, lambda mec: mec.release())
    outcomes = sim.run(lambda _: OFFLOAD)
    sent = [outcome.frame for outcome in outcomes if outcome.payload_bytes]
    assert sent[:3] == [0, 1, 2]
    assert sent[-6:] == [*range(14, 20)]
    assert not set(sent) & {*range(5, 12)}
    assert sim.device.counts.link_downs == 0


def _busy(mec: SimMec) -> None:
    mec._free_s = mec.clock() + 0.5


def _slow(mec: SimMec) -> None:
    mec.slowdown = 300.0
    mec.plan(mec.clock() + 0.5, lambda mec: setattr(mec, "slowdown", 1.0))


@pytest.mark.parametrize("hiccup", [_busy, _slow])
@pytest.mark.parametrize("name", ["ppo", "greedy", "edgent", "static-best", "neurosurgeon", "jpeg-offload"])
def test_a_mec_that_was_busy_for_a_moment_is_asked_again(name: str, hiccup: Callable[[SimMec], None]) -> None:
    """Nobody tells a device that answers locally that the MEC is well again."""
    w = workload("garments")
    sim = Simulation(
        costs=w.costs,
        recorded=w.recorded,
        uplink_bps=[1e7],
        device_slowdown=100.0,
        fps=20.0,
        deadline_s=0.2,
        frames=300,
    )
    sim.mec.plan(sim.clock() + 3.0, hiccup)
    outcomes = sim.drive(controller_of("garments", name))
    asked = [bool(outcome.payload_bytes) for outcome in outcomes]
    assert all(asked[30:60])
    assert all(asked[-40:])


class TestFallbackReserve:
    def test_a_reserve_is_the_margin_and_what_fallbacks_took_beyond_it(self) -> None:
        reserve = FallbackReserve(0.010)
        planned = reserve.reserve_s(10.0)
        for _ in range(20):
            reserve.learn(took_s=0.110, slowdown=10.0, deadline_s=0.4)  # within the margin
        assert reserve.reserve_s(10.0) == planned
        for _ in range(20):
            reserve.learn(took_s=0.150, slowdown=10.0, deadline_s=0.4)
        assert reserve.reserve_s(10.0) == pytest.approx(0.152, abs=1e-3)

    def test_one_that_could_not_even_begin_in_time_counts_as_well(self) -> None:
        reserve = FallbackReserve(0.010)
        reserve.missed(late_s=0.030, slowdown=1.0, deadline_s=0.4)
        assert reserve.reserve_s(1.0) == pytest.approx(FallbackReserve(0.010).reserve_s(1.0) + 0.5 * 0.0285)

    def test_a_hiccup_is_forgotten_and_never_takes_most_of_the_deadline(self) -> None:
        reserve = FallbackReserve(0.010)
        planned = reserve.reserve_s(1.0)
        reserve.learn(took_s=60.0, slowdown=1.0, deadline_s=0.2)
        assert reserve.reserve_s(1.0) == pytest.approx(planned + 0.05)
        for _ in range(200):
            reserve.learn(took_s=0.010, slowdown=1.0, deadline_s=0.2)
        assert reserve.reserve_s(1.0) == pytest.approx(planned, abs=1e-3)


@pytest.mark.parametrize("slowdown", [30.0, 100.0])
def test_replies_just_before_the_deadline_leave_no_frame_late(slowdown: float) -> None:
    """Each comes 10 to 50 ms before it; a frame whose reply comes after the last moment is answered by a fallback."""
    w, rng = workload("garments"), np.random.default_rng(0)
    sim = Simulation(
        costs=w.costs, recorded=w.recorded, uplink_bps=[1e7], fps=20.0, device_slowdown=slowdown, frames=300
    )
    infer = sim.mec._infer

    def lingering(request, now_s):  # type: ignore[no-untyped-def]
        answer, at_s = infer(request, now_s)
        captured_s = math.floor((now_s - sim.device.start_s) * 20.0) / 20.0 + sim.device.start_s
        return answer, max(at_s, captured_s + sim.scenario.deadline_s - rng.uniform(0.010, 0.050) - 0.005)

    sim.mec._infer = lingering  # type: ignore[method-assign]
    controller: Controller = controller_of("garments", "mec-only")
    assert {outcome.status for outcome in sim.drive(controller)} <= {Status.OK, Status.FALLBACK}
