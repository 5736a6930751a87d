"""Scenarios and the objective: ranges hold, loads repeat, utility is the published formula."""

from __future__ import annotations

import numpy as np
import pytest

from controller.errors import UsageError
from controller.loads import load_series
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import Scenario, ScenarioRange
from controller.utility import Utility

BANK = TraceBank([Trace(f"of-{seconds}-s", np.zeros(1), np.full(1, 1e6), seconds) for seconds in (30.0, 600.0)])


def test_sampled_episodes_stay_within_the_range() -> None:
    family, rng = ScenarioRange(), np.random.default_rng(0)
    for _ in range(200):
        scenario = family.sample(rng, BANK, samples=100)
        assert family.deadline_s[0] <= scenario.deadline_s <= family.deadline_s[1]
        assert family.mec_load_frac[0] <= scenario.mec_load_frac <= family.mec_load_frac[1]
        assert scenario.trace_start_s < [30.0, 600.0][scenario.trace_index]
        assert scenario.first_sample < 100


def test_a_link_of_its_own_is_not_shared_and_adds_its_round_trip() -> None:
    family, rng = ScenarioRange(rtt_s=(0.01, 0.01)), np.random.default_rng(0)
    own = Trace("own", np.zeros(1), np.full(1, 16e3), 1.0, rtt_s=0.3, is_shared=False)
    for index, (rtt_s, shared) in enumerate([(0.01, True), (0.31, False)]):
        scenario = family.sample(rng, TraceBank([BANK.traces[0], own]), 100, trace_index=index)
        assert scenario.rtt_s == pytest.approx(rtt_s)
        assert (scenario.uplink_share_frac < 1.0) is shared
        assert scenario.trace_index == index


def test_a_reversed_range_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="deadline_s"):
        ScenarioRange(deadline_s=(0.2, 0.1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fps", -1.0),
        ("deadline_s", 0.0),
        ("device_slowdown", float("nan")),
        ("device_slowdown", float("inf")),
        ("mec_slowdown", 0.0),
        ("mec_load_frac", 2.0),
        ("device_load_frac", -0.1),
        ("rtt_s", -0.01),
        ("trace_start_s", float("inf")),
        ("uplink_share_frac", 0.0),
        ("frames", 0),
        ("seed", -1),
    ],
)
def test_an_episode_that_cannot_be_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"scenario {field}: got .*; expected a number"):
        Scenario(**{field: value})


def test_a_load_series_repeats_for_its_seed_and_wanders_around_its_mean() -> None:
    series = load_series(0.5, 20_000, seed=3)
    np.testing.assert_array_equal(series, load_series(0.5, 20_000, seed=3))
    assert abs(series.mean() - 0.5) < 0.03
    assert 0.12 < series.std() < 0.2
    assert series.min() >= 0.0
    assert series.max() <= 0.95
    assert not load_series(0.0, 10, seed=3).any()


def test_utility_is_score_in_time_minus_energy_and_drops() -> None:
    utility = Utility(energy_weight_per_j=0.1, drop_penalty=0.5, compute_power_w=2.0, radio_power_w=1.0)
    energy = utility.energy_j(np.array([0.5, 0.5, 0.0]), np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(energy, [1.0, 2.0, 0.0])
    worth = utility.of(
        np.array([0.9, 0.9, 0.0]), np.array([True, False, False]), energy, np.array([False, False, True])
    )
    np.testing.assert_allclose(worth, [0.8, -0.2, -0.5])
