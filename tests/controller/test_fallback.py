"""The rule for local answers: the device-only row that sustains the stream and has the most utility per frame."""

from __future__ import annotations

import numpy as np
import pytest
from support.stream import stream_costs
from support.synthetic import make_costs

from controller.fallback import FrameTiming, LocalFallback
from controller.utility import Utility

#: Of the hand-made stream: local fast takes 2 ms and good 10 ms, each with frame strides of 1, 2, 3 and 5.
STREAM = stream_costs()
PLAIN = make_costs(12)


def timing(slowdown: float, age_s: float = 0.0, deadline_s: float = 1.0, interval_s: float = 0.1) -> FrameTiming:
    return FrameTiming(age_s, deadline_s, interval_s, slowdown)


def chosen(slowdown: float, **conditions: float) -> tuple[int, int]:
    """Exit (0 the fast one) and frame interval."""
    row = LocalFallback(STREAM, Utility()).decide(timing(slowdown, **conditions))
    decision = STREAM.space.decisions[row]
    assert decision.payload == "none"
    return decision.exit_branch, decision.frame_stride


@pytest.mark.parametrize(
    ("slowdown", "expected"),
    [
        (5.0, (1, 1)),  # 50 ms: the good one for every frame of 100 ms
        (9.5, (1, 1)),
        (15.0, (1, 2)),  # 150 ms
        (25.0, (0, 1)),  # 250 ms for the good one: its answers would be too old; 50 ms for the fast one
        (90.0, (0, 2)),
        (900.0, (0, 5)),  # nothing keeps the pace of 500 ms
    ],
)
def test_a_slower_device_stretches_the_interval_or_takes_the_quicker_exit(slowdown: float, expected: object) -> None:
    assert chosen(slowdown) == expected


def test_a_short_deadline_needs_a_quick_row_with_a_reserve_for_noise() -> None:
    assert chosen(9.0, deadline_s=0.100) == (1, 1)  # 90 ms and 8 % and 2 ms
    assert chosen(9.3, deadline_s=0.100)[0] == 0


def test_a_frame_that_has_waited_gets_a_quicker_row() -> None:
    assert chosen(9.0, deadline_s=0.2) == (1, 1)
    assert chosen(9.0, deadline_s=0.2, age_s=0.15)[0] == 0


def test_a_frame_is_not_dropped_for_the_sake_of_accuracy() -> None:
    """The queue holds two frames: the good one, begun after nearly two intervals, would end after the third capture."""
    assert chosen(9.9, age_s=0.1) == (1, 1)
    assert chosen(9.9, age_s=0.196) == (1, 2)


def test_where_no_row_keeps_the_pace_the_quickest_loses_least() -> None:
    rule, local = LocalFallback(PLAIN, Utility()), np.flatnonzero(PLAIN.space.device_only)
    slow = 1.5 * 0.1 / PLAIN.head_s[local].min()
    row = rule.decide(timing(slow, deadline_s=10.0))
    assert row == local[PLAIN.head_s[local].argmin()]


def test_where_every_row_does_the_most_accurate_wins_unless_its_energy_costs_more() -> None:
    local = np.flatnonzero(PLAIN.space.device_only)
    best = local[PLAIN.accuracy[local].argmax()]
    assert LocalFallback(PLAIN, Utility()).decide(timing(1.0)) == best
    thrifty = Utility(energy_weight_per_j=1e3)
    assert LocalFallback(PLAIN, thrifty).decide(timing(1.0)) == local[PLAIN.head_s[local].argmin()]


def test_an_offload_is_replaced_and_a_local_decision_stands_while_it_is_as_good_as_any() -> None:
    rule, one = LocalFallback(STREAM, Utility()), timing(5.0)
    best = rule.decide(one)
    offload = int(np.flatnonzero(~STREAM.space.device_only)[0])
    assert rule.instead(one, offload) == best
    assert rule.instead(one, best) == best
    slow = timing(15.0)
    assert rule.instead(slow, best) == rule.decide(slow) != best


def test_a_fallback_takes_what_its_frame_has_left_of_the_device() -> None:
    rule = LocalFallback(STREAM, Utility())

    def exit_of(share_s: float, age_s: float = 0.0) -> int:
        row = rule.fallback(timing(5.0, age_s, deadline_s=0.2), 1, share_s)
        return STREAM.space.decisions[row].exit_branch

    assert exit_of(0.1) == 1  # 50 ms
    assert exit_of(0.03) == 0  # 10 ms
    assert exit_of(0.1, age_s=0.16) == 0


def test_a_fallback_that_is_longer_than_its_share_covers_the_frames_that_pass_meanwhile() -> None:
    rule = LocalFallback(STREAM, Utility())

    def frames(slowdown: float, share_s: float) -> int:
        return rule.stretched(timing(slowdown, age_s=0.05), 1, rule.fastest, share_s)

    assert frames(40.0, 0.1) == 1  # 80 ms
    assert frames(100.0, 0.1) == 3  # 200 ms from 50 ms on
    assert frames(1000.0, 0.1) == 5  # no longer than any decision


def test_a_fallback_that_cannot_be_in_time_is_hopeless() -> None:
    rule = LocalFallback(STREAM, Utility())
    assert [rule.hopeless(left_s, 100.0) for left_s in (0.1, 0.3)] == [True, False]


def test_a_table_without_local_rows_can_do_nothing_alone() -> None:
    offloads = STREAM.take(np.flatnonzero(~STREAM.space.device_only))
    assert not LocalFallback(offloads, Utility()).possible
    assert LocalFallback(STREAM, Utility()).possible
