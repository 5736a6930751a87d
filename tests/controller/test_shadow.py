"""A shadow compares two controllers on the same states, by the latency model and the recorded accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from support.simulated import FAST, GOOD, OFFLOAD, table

from controller.controllers.simple import FixedRow
from controller.predict.expectation import idle_state
from controller.records import SystemState
from controller.shadow import BLOCK, Shadow
from controller.utility import Utility


def states(count: int, uplink_bps: float = 1e7) -> SystemState:
    return idle_state(
        deadline_s=np.full(count, 0.1),
        capture_period_s=np.full(count, 0.1),
        device_slowdown=np.ones(count),
        mec_slowdown=np.ones(count),
        mec_wait_s=np.full(count, 0.01),
        uplink_bps=np.full(count, uplink_bps),
    )


def shadow_of(row: int) -> Shadow:
    return Shadow("candidate", FixedRow("candidate", row), table(), Utility())


def test_the_difference_is_that_of_accuracy_and_energy_where_both_are_in_time() -> None:
    shadow, costs, utility = shadow_of(GOOD), table(), Utility()
    shadow.look(states(2 * BLOCK), np.full(2 * BLOCK, FAST))
    notes = shadow.notes()
    energy = 0.05 * utility.energy_j(costs.head_s[GOOD] - costs.head_s[FAST], 0.0)
    assert notes["modelled_difference"] == pytest.approx(0.1 - energy)
    assert notes["modelled_difference_error"] == pytest.approx(0.0, abs=1e-9)
    assert (notes["decisions"], notes["equal_frac"]) == (2 * BLOCK, 0.0)


def test_a_candidate_that_would_be_late_is_worth_less() -> None:
    shadow = shadow_of(OFFLOAD)
    shadow.look(states(1, uplink_bps=1e4), np.array([GOOD]))
    assert shadow.notes()["modelled_difference"] < -0.05


def test_equal_decisions_differ_by_nothing() -> None:
    shadow = shadow_of(GOOD)
    shadow.look(states(3), np.array([GOOD, GOOD, GOOD]))
    notes = shadow.notes()
    assert (notes["equal_frac"], notes["modelled_difference"]) == (1.0, 0.0)


def test_only_counted_states_count() -> None:
    shadow = shadow_of(GOOD)
    shadow.look(states(3), np.array([GOOD, FAST, FAST]), np.array([True, False, False]))
    assert (shadow.decisions, shadow.equal) == (1, 1)


def test_the_real_utility_is_that_of_frames_with_a_truth() -> None:
    shadow = shadow_of(GOOD)
    shadow.look(states(1), np.array([FAST]))
    assert shadow.notes()["real_utility_of_active"] is None
    for utility in (0.5, None, 1.0):
        shadow.ended(utility)
    assert shadow.notes()["real_utility_of_active"] == pytest.approx(0.75)


def test_a_shadow_without_a_decision_says_so() -> None:
    assert shadow_of(GOOD).notes() == {"controller": "candidate", "decisions": 0}
