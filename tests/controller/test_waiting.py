"""The rule at the last moment: wait for the reply if that earns more than a local answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.stream import stream_costs

from controller.fallback import FrameTiming, LocalFallback
from controller.records import UPLINK_HISTORY
from controller.utility import Utility
from controller.waiting import Awaited, is_worth_waiting, reply_chance

COSTS = stream_costs()
#: The fastest local row scores 0.70 after 2 ms, the offload 0.90.
OFFLOAD = int(np.flatnonzero(COSTS.space.full_offload & (COSTS.space.frame_stride == 1))[0])
#: 1,000 bits that began to cross at 0; 10 ms of round trip and tail.
REPLY = Awaited(begin_s=0.0, bits=1000.0, served_s=0.01, queue_weight=1.0)


def chance(crossing_s: list[float], now_s: float, queue_s: list[float] | None = None, by_s: float = 0.3) -> float:
    """Chance when the reports say that the payload takes so long."""
    return reply_chance(REPLY, [1000.0 / s for s in crossing_s], queue_s or [0.0] * len(crossing_s), 0, now_s, by_s)


class TestChance:
    def test_a_reply_that_all_reports_promise_in_time_is_as_good_as_there(self) -> None:
        assert chance([0.2] * 8, now_s=0.1) == pytest.approx(8 / 9)

    def test_one_that_is_later_than_any_report_explains_has_none(self) -> None:
        assert chance([0.2] * 8, now_s=0.22) == 0.0

    def test_one_that_no_report_promises_in_time_has_none(self) -> None:
        assert chance([0.3] * 8, now_s=0.1) == 0.0

    def test_refuted_reports_do_not_count(self) -> None:
        """Four say 60 ms, which are over; three say 210 ms, and one 510."""
        assert chance([0.05] * 4 + [0.2] * 3 + [0.5], now_s=0.1) == pytest.approx(3 / 5)

    def test_each_report_counts_with_its_own_wait_at_the_mec(self) -> None:
        assert chance([0.2] * 8, 0.1, queue_s=[0.05] * 4 + [0.15] * 4) == pytest.approx(4 / 9)

    def test_the_newest_reports_of_a_ring_count(self) -> None:
        ring = [1000.0 / 0.5] * 16
        for place in (14, 15, *range(6)):
            ring[place] = 1000.0 / 0.2
        assert reply_chance(REPLY, ring, [0.0] * 16, 5, 0.1, 0.3) == pytest.approx(8 / 9)
        assert reply_chance(REPLY, ring, [0.0] * 16, 13, 0.1, 0.3) == 0.0
        assert UPLINK_HISTORY == 8


class TestWorth:
    @staticmethod
    def waits(chance: float, slowdown: float = 10.0, accuracy: float = 0.9) -> bool:
        """10 frames/s; the head took 10 ms, a local answer takes 2 ms times the slowdown."""
        costs = dataclasses.replace(COSTS, accuracy=np.where(COSTS.space.device_only, COSTS.accuracy, accuracy))
        table = LocalFallback(costs, Utility()).table
        return is_worth_waiting(table, FrameTiming(0.1, 0.3, 0.1, slowdown), OFFLOAD, 1, 0.01, chance)

    def test_without_a_chance_the_device_answers(self) -> None:
        assert not self.waits(0.0)
        assert not self.waits(0.0, slowdown=140.0)

    def test_a_better_answer_that_is_likely_is_waited_for(self) -> None:
        assert self.waits(8 / 9)
        assert not self.waits(0.7)

    def test_an_answer_that_is_hardly_better_is_not(self) -> None:
        assert not self.waits(8 / 9, accuracy=0.72)

    def test_a_local_answer_that_delays_later_frames_needs_a_better_reason(self) -> None:
        """It takes 200 ms where frames come every 100 ms, so it costs more than one other frame."""
        assert self.waits(8 / 9, slowdown=100.0, accuracy=0.72)
        assert self.waits(0.5, slowdown=100.0)
        assert not self.waits(0.3, slowdown=100.0)
