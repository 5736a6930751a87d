"""The guard hands over for each of its reasons, comes back, and raises few false alarms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.simulated import FAST, GOOD, table

from controller.controllers.base import Controller
from controller.controllers.simple import FixedRow
from controller.errors import UsageError
from controller.features.fast import Features
from controller.features.schema import CONTEXT_FEATURES
from controller.guard import evidence
from controller.guard.guard import FIRST_HOLD, REASONS, STUCK_STATES, Guard
from controller.guard.judge import Judge, Verdict
from controller.guard.ranges import NO_RANGES, bounds_of, ranges_of
from controller.predict.expectation import idle_state
from controller.records import Bools, Floats, Ints, SystemState
from controller.utility import Utility

SOUND = np.zeros(len(CONTEXT_FEATURES), bool)


def plain(number: int = 0, **columns: float) -> SystemState:
    """A state in which nothing is wrong; its number keeps it from looking stuck."""
    state = idle_state(
        deadline_s=np.array([0.1]),
        capture_period_s=np.array([0.1]),
        device_slowdown=np.array([1.0 + 1e-6 * number]),
        mec_slowdown=np.ones(1),
        mec_wait_s=np.array([0.01]),
        uplink_bps=np.array([1e7]),
    )
    return replace(state, **{name: np.array([value]) for name, value in {"on_time_frac": 1.0, **columns}.items()})


class Says:
    """A judge whose verdict the test sets."""

    def __init__(self) -> None:
        self.verdict = Verdict(
            np.array([FAST]), np.array([GOOD]), SOUND[None], np.array([0.9]), np.array([0.9]), np.zeros(1), np.zeros(1)
        )

    def reset(self, rows: Bools) -> None:
        pass

    def of(self, state: SystemState) -> Verdict:
        return self.verdict

    def set(self, **fields: Any) -> None:
        self.verdict = self.verdict._replace(**fields)


@pytest.fixture
def judge() -> Says:
    return Says()


@pytest.fixture
def guard(judge: Says) -> Guard:
    return Guard(judge, "ppo", "expected-utility")  # type: ignore[arg-type]


def decisions(guard: Guard, count: int, first: int = 0, **columns: float) -> list[int]:
    return [int(guard.decide(plain(first + number, **columns))[0]) for number in range(count)]


def hand_overs(guard: Guard) -> dict[str, float]:
    """Those that there were, by reason."""
    notes = {reason: guard.notes()[f"hand_overs_{reason}"] for reason in REASONS}
    return {reason: count for reason, count in notes.items() if count}


# The tests ---------------------------------------------------------------------------------------------------


def first_alarm(chance: float, real: float, frames: int, seed: int) -> int:
    """Frames until the test of failures raises an alarm, at most ``frames``."""
    failed, found = np.random.default_rng(seed).random(frames) < real, np.zeros(1)
    for number, failure in enumerate(failed.astype(float)):
        found = evidence.more_failures(found, np.array([failure]), np.array([chance]))
        if evidence.fails_too_often(found)[0]:
            return number
    return frames


@pytest.mark.parametrize("chance", [0.0, 0.05, 0.3, 0.8, 0.98, 1.0])
def test_failures_as_predicted_raise_no_alarm(chance: float) -> None:
    assert first_alarm(chance, chance, 20_000, seed=1) == 20_000


@pytest.mark.parametrize(("chance", "real", "within"), [(0.02, 1.0, 12), (0.02, 0.3, 60), (0.3, 0.9, 40)])
def test_failures_beyond_the_prediction_are_noticed_soon(chance: float, real: float, within: int) -> None:
    assert first_alarm(chance, real, 1000, seed=2) <= within


def test_single_outcomes_are_read_from_their_smoothed_share() -> None:
    share, found = 0.0, []
    outcomes = [0.0, 1.0, 1.0, 0.0, 1.0]
    for outcome in outcomes:
        smoothed = share + 0.1 * (outcome - share)
        found.append(float(evidence.newest_failures(np.array([share]), np.array([smoothed]))[0]))
        share = smoothed
    assert found == pytest.approx(outcomes)


def test_a_choice_that_attains_what_the_other_would_loses_nothing() -> None:
    none = np.zeros(1)
    assert evidence.more_losses(none, np.array([0.3]), np.array([0.0])) == 0.0
    assert evidence.more_losses(none, np.array([0.0]), np.array([0.3])) == 0.0
    assert evidence.more_losses(none, np.array([50.0]), np.array([0.9])) == pytest.approx(0.28)


# Ranges ------------------------------------------------------------------------------------------------------


def test_a_feature_may_leave_its_range_by_its_width() -> None:
    bounds = bounds_of({"rtt": (1.0, 2.0)})
    context = np.zeros((4, len(CONTEXT_FEATURES)), np.float32)
    context[:, CONTEXT_FEATURES.index("rtt")] = (0.0, 3.0, 3.1, np.nan)
    assert bounds.outside(context).any(axis=1).tolist() == [False, False, True, True]


def test_a_feature_that_never_changed_in_training_has_no_bounds() -> None:
    context = np.full((1, len(CONTEXT_FEATURES)), 3.0, np.float32)
    still = np.zeros(len(CONTEXT_FEATURES), np.float32)
    assert not bounds_of(ranges_of(still, still)).outside(context).any()
    assert not bounds_of(NO_RANGES).outside(context).any()


def test_ranges_of_an_unknown_feature_are_refused() -> None:
    with pytest.raises(UsageError, match="got 'speed'"):
        bounds_of({"speed": (0.0, 1.0)})


# Hand-overs --------------------------------------------------------------------------------------------------


def test_a_sound_policy_decides(guard: Guard) -> None:
    assert decisions(guard, 50) == [FAST] * 50
    assert not guard.take_lines()


def test_an_observation_out_of_range_is_decided_by_the_other_at_once(guard: Guard, judge: Says) -> None:
    outside = SOUND.copy()
    outside[CONTEXT_FEATURES.index("rtt")] = True
    judge.set(outside=outside[None])
    assert decisions(guard, 1) == [GOOD]
    assert guard.take_lines() == [
        "guard: expected-utility decides from now on: rtt outside what the policy was trained on; ppo returns after "
        f"{FIRST_HOLD} good decisions"
    ]
    judge.set(outside=SOUND[None])
    assert decisions(guard, FIRST_HOLD, 1)[:-1] == [GOOD] * (FIRST_HOLD - 1)
    assert decisions(guard, 1, 1 + FIRST_HOLD) == [FAST]
    assert guard.take_lines() == ["guard: ppo decides again"]
    assert guard.notes() == {
        "decisions": FIRST_HOLD + 2,
        "classical_decisions": FIRST_HOLD,
        "hand_overs_observations": 1,
        "hand_overs_failures": 0,
        "hand_overs_choices": 0,
        "hand_overs_errors": 0,
        "returns": 1,
    }


def test_observations_that_do_not_move_are_none(guard: Guard) -> None:
    same = [int(guard.decide(plain())[0]) for _ in range(STUCK_STATES + 1)]
    assert same == [FAST] * STUCK_STATES + [GOOD]
    assert "do not move" in guard.take_lines()[0]


def test_failures_hand_over(guard: Guard) -> None:
    share = 0.0
    for number in range(20):
        share += 0.1 * (1.0 - share)
        if int(guard.decide(plain(number, on_time_frac=1.0 - share))[0]) == GOOD:
            break
    assert hand_overs(guard) == {"failures": 1}
    assert number < 10


def test_poor_choices_hand_over(guard: Guard, judge: Says) -> None:
    judge.set(worth=np.array([0.6]), behind=np.array([0.3]))
    assert GOOD in decisions(guard, 10)
    assert hand_overs(guard) == {"choices": 1}


def test_a_policy_that_stays_poor_does_not_return(guard: Guard, judge: Says) -> None:
    judge.set(worth=np.array([0.6]), behind=np.array([0.3]))
    assert decisions(guard, 1000)[10:] == [GOOD] * 990


def test_each_hand_over_soon_after_a_return_doubles_the_hold(guard: Guard, judge: Says) -> None:
    outside = ~SOUND
    holds, number = [], 0
    for _ in range(3):
        judge.set(outside=outside[None])
        decisions(guard, 1, number)
        judge.set(outside=SOUND[None])
        number += 1
        began = number
        while decisions(guard, 1, number) == [GOOD]:
            number += 1
        number += 1
        holds.append(number - began)
    assert holds == [FIRST_HOLD, 2 * FIRST_HOLD, 4 * FIRST_HOLD]


def test_a_new_episode_is_judged_anew(guard: Guard, judge: Says) -> None:
    judge.set(outside=~SOUND[None])
    decisions(guard, 3)
    judge.set(outside=SOUND[None])
    guard.reset(np.ones(1, bool))
    assert decisions(guard, 3, 3) == [FAST] * 3


# The judge ---------------------------------------------------------------------------------------------------


def test_the_judge_knows_what_each_choice_is_worth() -> None:
    costs, utility = table(), Utility()
    features = Features(costs, utility)
    judge = Judge(FixedRow("ppo", FAST), FixedRow("greedy", GOOD), features, bounds_of(NO_RANGES), "mean8")
    verdict = judge.of(plain())

    def worth(row: int) -> Floats:
        return costs.accuracy[row] - 0.05 * utility.energy_j(costs.head_s[row], 0.0)

    assert verdict.worth == pytest.approx(worth(FAST), abs=1e-5)
    assert verdict.expected == pytest.approx(worth(GOOD), abs=1e-3)
    assert verdict.behind == pytest.approx(worth(GOOD) - worth(FAST), abs=1e-3)
    assert verdict.fails == pytest.approx(0.0, abs=1e-3)


# What is broken ----------------------------------------------------------------------------------------------


def real_guard(policy: Controller) -> Guard:
    """A guard with the judge that a device has; the other controller is the poorer one."""
    costs, utility = table(), Utility()
    judge = Judge(policy, FixedRow("greedy", FAST), Features(costs, utility), bounds_of(NO_RANGES), "mean8")
    return Guard(judge, "ppo", "greedy")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the features divide and subtract what is not finite
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name",
    [
        "frame_age_s",
        "uplink_age_s",
        "uplink_backlog_bytes",
        "device_slowdown",
        "mec_slowdown",
        "mec_queue_mean_s",
        "on_time_frac",
        "rtt_s",
    ],
)
def test_one_value_that_is_not_finite_leaves_no_trace(name: str, value: float) -> None:
    guard, share = real_guard(FixedRow("ppo", GOOD)), 0.0
    decisions(guard, 10)
    decisions(guard, 1, 10, **{name: value})
    assert decisions(guard, 2 * FIRST_HOLD, 11)[-1] == GOOD
    for number in range(40):
        share += 0.1 * (1.0 - share)
        guard.decide(plain(1000 + number, on_time_frac=1.0 - share))
    assert hand_overs(guard).get("failures") == 1


@pytest.mark.parametrize("field", ["worth", "expected", "behind", "fails"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_verdict_that_is_not_finite_is_decided_by_the_other(
    guard: Guard, judge: Says, field: str, value: float
) -> None:
    judge.set(**{field: np.array([value])})
    assert decisions(guard, 1) == [GOOD]
    assert hand_overs(guard) == {"observations": 1}
    assert "not finite" in guard.take_lines()[0]


class Raises(FixedRow):
    """A policy that fails as long as it is broken."""

    broken = True

    def decide(self, state: SystemState) -> Ints:
        if self.broken:
            raise ValueError("no weights")
        return super().decide(state)


def test_a_policy_that_raises_hands_over_and_returns_when_it_no_longer_does() -> None:
    policy = Raises("ppo", GOOD)
    guard = real_guard(policy)
    assert decisions(guard, 3) == [FAST] * 3
    assert hand_overs(guard) == {"errors": 1}
    assert "it failed: ValueError: no weights" in guard.take_lines()[0]
    policy.broken = False
    assert decisions(guard, FIRST_HOLD + 1, 3)[-2:] == [GOOD, GOOD]
    assert guard.notes()["returns"] == 1
