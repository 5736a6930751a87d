"""What sits beside the controller of a device: the seat, the guard's lines, and a shadow within its budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.simulated import FAST, GOOD, OFFLOAD, Simulation, table

from controller.controllers.registry import CONTROLLER_NAMES, ORACLE
from controller.controllers.simple import FixedRow, Memoryless
from controller.errors import UsageError
from controller.records import Ints, SystemState
from controller.scenario import Scenario
from controller.shadow import Shadow
from controller.utility import Utility
from runtime.device.daemon import drive
from runtime.device.device import Device
from runtime.device.named import Named
from runtime.device.plain_state import plain_state
from runtime.device.seat import Offer, Seat
from runtime.device.shadowing import MOST_FRAC, BoundedShadow
from runtime.observe.oversight import oversight_texts

NOBODY = "tcp://127.0.0.1:9"


def said_by(**options: Any) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The log of a device that answers 20 frames alone, and its notes."""
    said: list[str] = []
    with Device("garments", mec=NOBODY, fps=0, deadline_s=5.0, log=said.append, **options) as made:
        run = made.prepare(frames=20)
        run.warm_up()
        assert len(list(run)) == 20
        run.close()
    return said, run.oversight


def test_a_new_controller_decides_from_the_next_frame_on() -> None:
    said: list[str] = []
    seat = Seat(FixedRow("first", FAST), said.append)
    state = plain_state(Scenario(fps=10.0, deadline_s=0.1, device_slowdown=1.0), table())
    assert seat.decide(state)[0] == FAST
    seat.offer(Offer(FixedRow("second", OFFLOAD), "second"))
    seat.offer(Offer(FixedRow("third", GOOD), "third"))
    assert (seat.decide(state)[0], seat.changes, said) == (GOOD, 1, ["third"])
    assert seat.guard_notes() is None


class Fails(Memoryless):
    name = "fails"

    def decide(self, state: SystemState) -> Ints:
        raise ValueError("no")


def shadow_of(candidate: Any) -> Shadow:
    return Shadow(candidate.name, candidate, table(), Utility())


def test_a_shadow_sees_every_frame_and_changes_none() -> None:
    alone, sim = Simulation().run(lambda _: OFFLOAD), Simulation()
    shadow = BoundedShadow(shadow_of(FixedRow("good", GOOD)), lambda _: None)
    outcomes = list(drive(sim.device, FixedRow("offload", OFFLOAD), lambda _: None, shadow))
    sim.device.close()
    outcomes += sim.device.take_outcomes()
    assert [outcome.status for outcome in outcomes] == [outcome.status for outcome in alone]
    notes = shadow.notes()
    assert notes["decisions"] + notes["left_out"] == len(alone)
    assert notes["decision_us"] > 0


def test_a_shadow_that_fails_is_asked_no_more() -> None:
    said: list[str] = []
    shadow = BoundedShadow(shadow_of(Fails()), said.append)
    for _ in range(3):
        shadow.look(plain_state(Scenario(fps=10.0, deadline_s=0.1, device_slowdown=1.0), table()), FAST)
    assert said == ["shadow fails failed: ValueError: no; it is asked no more"]
    assert (shadow.notes()["failure"], shadow.notes()["left_out"]) == ("ValueError: no", 2)


def test_a_slow_shadow_takes_its_share_of_the_time_and_no_more() -> None:
    now_s, took_s = 0.0, 0.02

    class Slow(FixedRow):
        def decide(self, state: SystemState) -> Ints:
            nonlocal now_s
            now_s += took_s
            return super().decide(state)

    shadow = BoundedShadow(shadow_of(Slow("slow", GOOD)), lambda _: None, lambda: now_s)
    state, frames = plain_state(Scenario(fps=10.0, deadline_s=0.1, device_slowdown=1.0), table()), 1000
    for _ in range(frames):
        now_s += 0.1
        shadow.look(state, FAST)
    notes = shadow.notes()
    assert notes["decisions"] * took_s <= MOST_FRAC * now_s + 0.1
    assert notes["decisions"] >= frames // 10
    assert notes["decisions"] + notes["left_out"] == frames


def test_a_line_per_minute_says_what_the_shadow_has_seen() -> None:
    now_s, said = 0.0, []
    shadow = BoundedShadow(shadow_of(FixedRow("good", GOOD)), said.append, lambda: now_s)
    state = plain_state(Scenario(fps=10.0, deadline_s=0.1, device_slowdown=1.0), table())
    for _ in range(130):
        now_s += 1.0
        shadow.look(state, FAST)
    assert len(said) == 2
    assert said[0].startswith("shadow good: 0% of 60 decisions equal, estimated +0.09")


def test_a_device_is_guarded_unless_it_is_told_not_to_be() -> None:
    _, notes = said_by()
    assert notes["guard"]["decisions"] == 20
    assert "guard" not in said_by(guard=False)[1]
    assert "guard" not in said_by(controller="greedy")[1]


def test_a_shadow_can_be_a_policy_file_or_a_name() -> None:
    shipped = Path("runtime/shipped/policies/garments.safetensors")
    _, notes = said_by(guard=False, shadow=shipped)
    assert (notes["shadow"]["controller"], notes["shadow"]["equal_frac"]) == (str(shipped), 1.0)
    assert said_by(shadow="greedy")[1]["shadow"]["controller"] == "greedy"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"shadow": "greedy-oracle"}, "knows the future"),
        ({"shadow": "nowhere.safetensors"}, "does not exist"),
        ({"guard_controller": "ppo"}, "--guard-controller ppo; expected one of: device-only"),
        ({"guard_controller": "jpeg-offload", "no_raw_upload": True}, "jpeg-offload"),
    ],
    ids=str,
)
def test_what_cannot_guard_or_shadow_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Device("garments", mec=NOBODY, **options)


def test_the_summary_tells_of_hand_overs_in_one_line() -> None:
    notes = {"decisions": 200, "classical_decisions": 50, "returns": 1}
    counts = {f"hand_overs_{reason}": count for reason, count in (("observations", 0), ("failures", 2), ("choices", 0))}
    assert oversight_texts({"guard": notes | counts}) == {
        "guard": "handed over 2x (failures 2), returned 1x; decided 25.0%"
    }
    assert oversight_texts({"guard": notes | dict.fromkeys(counts, 0)}) == {}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the features divide and subtract what is not finite
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_telemetry_that_is_not_finite_is_decided_by_the_guard(value: float) -> None:
    said: list[str] = []
    with Device("garments", mec=NOBODY, fps=0, deadline_s=0.1, log=said.append) as made:
        run = made.prepare(frames=1)
        state = replace(plain_state(run.scenario, made.costs), device_slowdown=np.array([50.0]))
        run.seat.decide(state)
        assert said == []
        run.seat.decide(replace(state, device_slowdown=np.array([value])))
        run.close()
    assert [line.split(":")[0] for line in said] == ["guard"]
    assert run.oversight["guard"]["hand_overs_observations"] == 1


def test_a_shadow_begins_anew_when_another_controller_takes_the_seat() -> None:
    said: list[str] = []
    with Device("garments", mec=NOBODY, fps=0, deadline_s=5.0, shadow="greedy", log=said.append) as made:
        run = made.prepare(frames=20)
        run.warm_up()
        answered = 0
        for _ in run:
            answered += 1
            if answered == 12:
                run.offer(FixedRow("other", 0), "another one")
        run.close()
    notes = run.oversight["shadow"]
    assert answered == 20
    assert 1 <= notes["decisions"] + notes["left_out"] <= 8
    assert said.index("another one") < next(i for i, line in enumerate(said) if line.startswith("shadow begins anew"))


def test_every_controller_can_decide_the_plain_state_that_a_reload_tries_it_on() -> None:
    with Device("campus", controller="greedy", mec=NOBODY) as made:
        state = plain_state(Scenario(fps=10.0, deadline_s=0.2, device_slowdown=1.0), made.costs)
        for name in CONTROLLER_NAMES:
            if name != ORACLE:
                row = Named(name).make(made.bundle, made.costs, Utility()).decide(state)
                assert 0 <= row[0] < len(made.costs), name
