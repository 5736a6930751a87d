"""A link that is known to be down: the guard keeps every decision on the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from synthetic import make_costs, make_state

from controller.classical import FixedRow
from controller.guard import Guard, best_local_row
from controller.records import Bools
from controller.registry import make_controller
from controller.utility import Utility

COSTS = make_costs(12)
SENT, LOCAL = 1, 0  # every third row is device-only


def _state(batch: int, link_up: list[bool]):
    return replace(make_state(batch, deadline_s=10.0, frame_age_s=0.0), link_up=np.array(link_up))


def test_a_decision_that_needs_the_mec_stays_on_the_device_while_the_link_is_down():
    decided = Guard(FixedRow("mec-only", SENT), COSTS).decide(_state(3, [True, False, True]))
    assert decided[0] == decided[2] == SENT
    assert COSTS.space.device_only[decided[1]]


def test_a_local_decision_is_left_alone():
    assert Guard(FixedRow("fixed", LOCAL), COSTS).decide(_state(2, [False, False])).tolist() == [LOCAL, LOCAL]


def test_the_replacement_is_the_most_accurate_local_row_in_time():
    local = np.flatnonzero(COSTS.space.device_only)
    best = local[COSTS.accuracy[local].argmax()]
    fastest = local[COSTS.head_s[local].argmin()]
    assert best_local_row(COSTS, _state(1, [False])).tolist() == [best]
    hurried = make_state(1, deadline_s=1e-6, frame_age_s=0.0)
    assert best_local_row(COSTS, hurried).tolist() == [fastest]


def test_no_controller_sends_over_a_dead_link():
    state = replace(make_state(200, seed=3), link_up=np.zeros(200, dtype=bool))
    for name in ("random", "mec-only", "greedy", "edgent-dynamic"):
        guarded = Guard(make_controller(name, COSTS, Utility(), batch=200), COSTS)
        assert guarded.name == name
        assert COSTS.space.device_only[guarded.decide(state)].all()


def test_the_guard_passes_a_reset_on():
    class Remembers(FixedRow):
        forgotten: Bools | None = None

        def reset(self, rows: Bools) -> None:
            self.forgotten = rows

    inner = Remembers("inner", LOCAL)
    Guard(inner, COSTS).reset(np.array([True, False]))
    assert inner.forgotten is not None
    assert inner.forgotten.tolist() == [True, False]
