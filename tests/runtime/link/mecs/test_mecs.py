"""A device with several MECs in simulated time: who answers its frames, whatever happens to some of them."""

from __future__ import annotations

from collections import Counter

import pytest
from support.outages import UPLINK_BPS, controller_of, workload
from support.simulated import OFFLOAD, SimMec, Simulation
from support.streams import FREE, StreamSimulation

from controller.packets import ping_bytes
from controller.records import Outcome, Status
from controller.timeline import SILENCE_S
from runtime.link.connection import STANDBY_HEARTBEAT_S
from runtime.link.mecs.chooser import PATIENCE_S
from runtime.protocol import wire

FIRST, SECOND = "tcp://sim:1", "tcp://sim:2"
FPS = 20.0


def simulation(frames: int = 400, mecs: int = 2, **options: object) -> Simulation:
    return Simulation(**({"frames": frames, "fps": FPS, "deadline_s": 0.2, "mecs": mecs} | options))  # type: ignore[arg-type]


def answered(outcomes: list[Outcome]) -> Counter[str | None]:
    return Counter(outcome.mec for outcome in outcomes)


def nan_outputs(reply: wire.InferReply) -> tuple[wire.AnyMessage, bytes]:
    return reply, b"\x00\x00\xc0\x7f"


def test_while_both_are_well_the_first_answers_everything() -> None:
    sim = simulation()
    assert answered(sim.run(lambda _: OFFLOAD)) == {FIRST: 400}
    assert sim.device.counts.as_json()["switches"] == 0


def test_the_second_takes_over_from_a_killed_one_which_is_asked_again_when_it_has_been_back_for_a_while() -> None:
    sim = simulation()
    begin_s = sim.clock()
    sim.mec.plan(begin_s + 5.0, SimMec.die)
    sim.mec.plan(begin_s + 7.0, SimMec.restart)
    outcomes = sim.run(lambda _: OFFLOAD)
    assert {o.status for o in outcomes} <= {Status.OK, Status.FALLBACK}
    by_hand = [o.frame for o in outcomes if o.mec is None]
    assert len(by_hand) <= 2  # on their way when it died
    second = [o.frame for o in outcomes if o.mec == SECOND]
    assert second == list(range(second[0], second[-1] + 1))
    assert 2.0 + PATIENCE_S <= len(second) / FPS <= 3.5 + PATIENCE_S
    assert outcomes[-1].mec == FIRST
    first, _ = sim.device.counts.as_json()["mecs"]
    assert (first["mec"], first["link_downs"]) == (FIRST, 1)
    assert sim.device.counts.as_json()["switches"] == 2
    assert sim.device.counts.link_downs == 0  # a MEC was there all the time


def test_frames_go_to_the_second_as_soon_as_the_first_is_in_doubt() -> None:
    """Long before its link counts as down."""
    sim = simulation(frames=200)
    sim.mec.plan(sim.clock() + 5.0, lambda mec: setattr(mec, "hung", True))
    outcomes = sim.run(lambda _: OFFLOAD)
    lost = [o.frame for o in outcomes if o.mec is None]
    assert lost[-1] - lost[0] <= 4
    assert len(lost) / FPS < SILENCE_S
    assert {o.status for o in outcomes} <= {Status.OK, Status.FALLBACK}


def test_with_both_dead_the_device_answers_alone_and_says_so() -> None:
    sim = simulation(frames=200)
    for mec in sim.mecs:
        mec.plan(sim.clock() + 5.0, SimMec.die)
    outcomes = sim.run(lambda _: OFFLOAD)
    assert {o.status for o in outcomes} <= {Status.OK, Status.FALLBACK}
    assert all(o.mec is None for o in outcomes[104:])
    assert [line for line in sim.log_lines if "no MEC can be asked; answering locally" in line]
    assert sim.device.counts.link_downs == 1
    assert sim.device.counts.up_frac == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("liar", [nan_outputs, lambda reply: (reply, b"12345678"), lambda _: b"garbage"])
def test_one_that_lies_is_asked_ever_more_rarely(liar) -> None:  # type: ignore[no-untyped-def]
    sim = simulation(frames=1200)
    sim.mec.spoil = liar
    outcomes = sim.run(lambda _: OFFLOAD)
    assert {o.status for o in outcomes} <= {Status.OK, Status.FALLBACK}
    assert answered(outcomes)[FIRST] == 0
    failed = [o.frame / FPS for o in outcomes if o.mec is None]
    assert len(failed) <= 12
    assert failed[-1] - failed[-2] > 4.0
    assert sim.device.counts.as_json()["mecs"][0]["breaker_openings"] >= 3
    assert [line for line in sim.log_lines if f"{FIRST} is open for 0.5 s: it failed 3 times in a row" in line]


def test_one_whose_answers_come_too_late_is_not_asked_any_more_and_is_when_they_come_in_time() -> None:
    sim = simulation(frames=1200)
    sim.mec.plan(sim.clock() + 5.0, lambda mec: setattr(mec, "slowdown", 100.0))
    sim.mec.plan(sim.clock() + 15.0, lambda mec: setattr(mec, "slowdown", 1.0))
    outcomes = sim.run(lambda _: OFFLOAD)
    assert answered(outcomes)[None] <= 12
    assert outcomes[300].mec == SECOND
    assert outcomes[-1].mec == FIRST


def test_a_busy_pair_leaves_the_device_to_itself() -> None:
    sim = simulation(frames=400)
    for mec in sim.mecs:
        mec.reject = wire.RejectReason.BUSY
    outcomes = sim.run(lambda _: OFFLOAD)
    assert {o.status for o in outcomes} == {Status.FALLBACK}
    sent = [o for o in outcomes if o.payload_bytes]
    assert len(sent) < 60


def test_a_sole_one_that_is_well_again_is_found_by_its_trial() -> None:
    sim = simulation(frames=400)
    sim.mecs[1].reachable = False
    sim.mec.reject = wire.RejectReason.BUSY
    sim.mec.plan(sim.clock() + 5.0, lambda mec: setattr(mec, "reject", None))
    outcomes = sim.run(lambda _: OFFLOAD)
    assert {o.mec for o in outcomes[-150:]} == {FIRST}


def test_one_that_stands_by_costs_a_ping_now_and_then() -> None:
    sim = simulation(frames=600)
    heard: list[wire.Sendable] = []
    deliver = sim.mecs[1].send
    sim.mecs[1].send = lambda message, buffer: (heard.append(message), deliver(message, buffer))  # type: ignore
    sim.run(lambda _: OFFLOAD)
    pings = [message for message in heard if isinstance(message, wire.Ping)]
    assert not [message for message in heard if isinstance(message, wire.InferRequest)]
    assert len(pings) <= 30.0 / STANDBY_HEARTBEAT_S + 4
    assert ping_bytes(0) == 114


def test_a_stream_begins_anew_with_another_mec() -> None:
    sim = StreamSimulation(mecs=2, frames=120, fps=FPS)
    sim.mecs[0].plan(sim.clock() + 3.0, SimMec.die)
    outcomes = sim.run(lambda _: FREE)
    assert {o.status for o in outcomes} <= {Status.OK, Status.FALLBACK}
    assert sum(o.mec is None for o in outcomes) <= 2
    assert [mec.alone for mec in sim.mecs] == [1, 1]
    assert sum(mec.count(wire.RejectReason.REFERENCE) for mec in sim.mecs) == 0


@pytest.mark.parametrize("name", ["ppo", "fugu-mpc", "mec-only", "greedy"])
@pytest.mark.parametrize("fault", ["killed", "stopped", "lying"])
def test_controllers_do_as_well_as_without_the_fault(name: str, fault: str) -> None:
    def play(fault: str) -> float:
        w = workload("garments")
        sim = simulation(
            frames=300, costs=w.costs, recorded=w.recorded, uplink_bps=[UPLINK_BPS["garments"]], device_slowdown=100.0
        )
        faults = {"killed": SimMec.die, "stopped": lambda mec: setattr(mec, "held", True)}
        faults["lying"] = lambda mec: setattr(mec, "spoil", nan_outputs)
        if fault:
            sim.mec.plan(sim.clock() + 3.0, faults[fault])
        outcomes = sim.drive(controller_of("garments", name))
        assert all(o.status.on_time for o in outcomes)
        return sum(o.utility or 0.0 for o in outcomes) / len(outcomes)

    assert play(fault) >= 0.99 * play("")
