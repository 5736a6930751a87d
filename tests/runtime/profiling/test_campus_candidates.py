"""What controllers lose by choosing from the shortlist of campus, not from every legal decision, by prediction."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from controller.controllers.shortlist import LIMIT_OF_STRIDES, row_utility
from controller.predict.expectation import idle_state
from controller.records import Decision, Floats
from runtime.bundles.bundle import open_bundle
from runtime.profiling.profile import candidates, choice_of, cost_table, read_profile, shipped_path

SLOWDOWNS = (5, 10, 20, 35, 50, 75, 100, 125, 150)
NARROW_BPS = (8e3, 12e3, 16e3, 24e3, 32e3, 48e3, 64e3, 96e3, 125e3, 180e3, 250e3)
WIDE_BPS = (5e5, 1e6, 3e6, 1e7, 3e7)
FAST_BPS = (5e7, 1e8, 1.5e8)
DEADLINES_S = (0.07, 0.1, 0.15, 0.2, 0.3, 0.4)


def losses(uplink_bps: tuple[float, ...]) -> Floats:
    """(conditions,) utility that the best of all rows has more than the best candidate, at the camera's own rate."""
    bundle = open_bundle("campus")
    costs = cost_table(bundle, read_profile(shipped_path("campus"), bundle))
    kept = [costs.space.index(d) for d in candidates(costs, bundle.default_range).space.decisions]
    slowdown, bps, deadline_s = np.array(list(product(SLOWDOWNS, uplink_bps, DEADLINES_S))).T
    same = np.ones_like(bps)
    state = idle_state(
        deadline_s=deadline_s,
        capture_period_s=0.1 * same,
        device_slowdown=slowdown,
        mec_slowdown=2.0 * same,
        mec_wait_s=0.02 * same,
        uplink_bps=bps,
    )
    utility = row_utility(costs, state, bundle.default_range.utility)
    return np.asarray(utility.max(axis=1) - utility[:, kept].max(axis=1))


@pytest.mark.parametrize("uplink_bps", [NARROW_BPS, WIDE_BPS, FAST_BPS], ids=["narrow", "wide", "fast"])
def test_no_corner_needs_a_row_that_is_not_on_the_shortlist(uplink_bps: tuple[float, ...]) -> None:
    loss = losses(uplink_bps)
    assert loss.mean() < 0.002
    assert loss.max() < 0.05


def test_the_best_row_over_16_kbit_is_a_candidate_and_candidates_are_few() -> None:
    bundle = open_bundle("campus")
    costs = cost_table(bundle, read_profile(shipped_path("campus"), bundle))
    decisions = candidates(costs, bundle.default_range).space.decisions
    assert Decision("split8", 256, 0, 1, "signs", 1) in decisions
    assert len(decisions) <= LIMIT_OF_STRIDES


@pytest.mark.parametrize("name", ["campus", "garments"])
def test_the_choice_of_candidates_costs_little_under_conditions_that_it_was_not_made_on(name: str) -> None:
    bundle = open_bundle(name)
    choice = choice_of(bundle, read_profile(shipped_path(name), bundle))
    assert [loss.links for loss in choice.losses] == ["usual links", "narrow links", "fast links"]
    for loss in choice.losses:
        assert 0.0 <= loss.mean < 0.002
        assert loss.mean <= loss.p99 < 0.02 or loss.p99 == 0.0
