"""Metrics against values computed by hand, and intervals against their promised coverage."""

from __future__ import annotations

import numpy as np
import pytest

from controller.errors import UsageError
from controller.metrics import Frames, bootstrap, gap_closed, latency_percentiles_ms, paired_difference, per_episode
from controller.metrics import summary as summarise
from controller.records import BreakdownMs, Outcome, Status


def _frames() -> Frames:
    """Episode 3: in time and right, in time and wrong. Episode 7: late, dropped, fallback and right, never answered."""
    return Frames(
        episode=np.array([3, 3, 7, 7, 7, 7]),
        utility=np.array([0.9, -0.1, -0.2, -0.1, 0.7, -0.4]),
        score=np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0]),
        on_time=np.array([True, True, False, False, True, False]),
        dropped=np.array([False, False, False, True, False, False]),
        fallback=np.array([False, False, False, False, True, False]),
        skipped=np.zeros(6, bool),
        latency_s=np.array([0.01, 0.03, 0.2, np.inf, 0.08, np.inf]),
        payload_bytes=np.array([1000.0, 0.0, 500.0, 0.0, 300.0, 200.0]),
        energy_j=np.array([0.1, 0.3, 0.1, 0.0, 0.2, 0.1]),
        frame_interval_s=np.full(6, 0.1),
        streaming=np.full(6, np.nan),
    )


def test_metrics_per_episode():
    metrics = per_episode(_frames())
    np.testing.assert_allclose(metrics["utility"], [0.4, 0.0], atol=1e-12)
    np.testing.assert_allclose(metrics["slo_attainment"], [1.0, 0.25])
    np.testing.assert_allclose(metrics["accuracy"], [0.5, 1.0])
    np.testing.assert_allclose(metrics["goodput_fps"], [10.0, 2.5])
    np.testing.assert_allclose(metrics["dropped_frac"], [0.0, 0.25])
    np.testing.assert_allclose(metrics["fallback_frac"], [0.0, 0.25])
    np.testing.assert_allclose(metrics["energy_j"], [0.2, 0.1])
    np.testing.assert_allclose(metrics["payload_kbytes"], [0.5, 0.25])


def test_latency_counts_late_answers_but_neither_drops_nor_frames_never_answered():
    assert latency_percentiles_ms(_frames())["p50"] == pytest.approx(55.0)
    assert latency_percentiles_ms(_frames())["p99"] == pytest.approx(196.4)


def test_the_summary_has_a_mean_and_an_interval_per_metric():
    report = summarise(_frames())
    assert report["utility"]["mean"] == pytest.approx(0.2)
    low, high = report["utility"]["ci95"]
    assert -1e-9 <= low < 0.2 < high <= 0.4 + 1e-9


def test_live_outcomes_become_frames():
    def outcome(status: Status, latency_ms: float, prediction: int | None, score: float) -> Outcome:
        return Outcome(0, 0, status, latency_ms, 100.0, 50, 0.1, 0.5, None, BreakdownMs(), prediction, 1, score)

    frames = Frames.from_outcomes(
        [
            outcome(Status.OK, 40.0, 1, 1.0),
            outcome(Status.FALLBACK, 95.0, 1, 1.0),
            outcome(Status.LATE, 200.0, None, 0.0),
            outcome(Status.DROPPED, 10.0, None, 0.0),
        ],
        frame_interval_s=0.1,
    )
    assert frames.on_time.tolist() == [True, True, False, False]
    assert frames.fallback.tolist() == [False, True, False, False]
    assert frames.dropped.tolist() == [False, False, False, True]
    assert np.isfinite(frames.latency_s).tolist() == [True, True, False, False]


def test_about_95_percent_of_the_intervals_hold_the_true_mean():
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(200):
        interval = bootstrap(rng.exponential(1.0, 30), seed, resamples=2000)
        held += interval.low <= 1.0 <= interval.high
    assert 0.88 <= held / 200 <= 0.99


def test_a_paired_difference_sees_what_unpaired_means_hide():
    rng = np.random.default_rng(6)
    hard = rng.normal(0.5, 0.3, 64)  # episodes differ far more than controllers do
    better = hard + 0.02 + rng.normal(0, 0.01, 64)
    assert paired_difference(better, hard).excludes_zero
    assert not paired_difference(hard, hard).excludes_zero
    assert bootstrap(hard).low < better.mean() < bootstrap(hard).high


def test_seeds_are_samples_too():
    """Five seeds that differ leave an interval as wide as their spread, however many episodes each ran."""
    seeds = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    values = np.repeat(seeds[:, None], 1000, axis=1)
    interval = bootstrap(values)
    assert interval.mean == pytest.approx(0.2)
    assert interval.high - interval.low > 0.2


def test_constant_values_have_an_interval_of_no_width():
    interval = bootstrap(np.full(10, 0.7))
    assert interval.low == pytest.approx(0.7)
    assert interval.high == pytest.approx(0.7)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(7).normal(size=20)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_the_gap_to_hindsight():
    reference = np.array([0.5, 0.6, 0.7, 0.4])
    hindsight = reference + 0.1
    closed = gap_closed(reference + 0.025, reference, hindsight)
    assert closed.mean == pytest.approx(0.25)
    assert closed.low == pytest.approx(0.25)
    assert gap_closed(reference, reference, hindsight).mean == 0.0
    assert gap_closed(hindsight, reference, hindsight).mean == pytest.approx(1.0)


def test_unequal_episodes_cannot_be_paired():
    with pytest.raises(UsageError, match="expected equal"):
        paired_difference(np.zeros(3), np.zeros(4))


def test_nothing_has_no_mean():
    with pytest.raises(UsageError, match="expected"):
        bootstrap(np.zeros(0))
