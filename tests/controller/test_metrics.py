"""Metrics against values computed by hand, and intervals against their promised coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controller.errors import UsageError
from controller.metrics import (
    ANSWERERS,
    NO_KIND,
    NOBODY,
    Frames,
    answered_on,
    bootstrap,
    episode_sums,
    gap_closed,
    latency_percentiles_ms,
    overall,
    per_episode,
    run_as,
)
from controller.records import ENDINGS, STATUSES, BreakdownMs, Decision, Outcome, Status

DEVICE, SPLIT, MEC, FALLBACK, EARLY = range(len(ANSWERERS))
LOCAL = Decision("net", 28, 1, 4, "none")
HALF = Decision("net", 28, 1, 2, "u8")
AWAY = Decision("net", 28, 1, 0, "jpeg5")


def frames_of(*rows: tuple[int, Status, int, float, float]) -> Frames:
    """Rows of (episode, status, who answered, score, latency in seconds); the utility is the score."""
    episode, status, by, score, latency_s = zip(*rows, strict=True)
    count = len(rows)
    return Frames(
        episode=np.array(episode),
        status=np.array([STATUSES.index(s) for s in status], np.int8),
        kind=np.array([_kind_of(s, b) for s, b in zip(status, by, strict=True)], np.int8),
        answered_by=np.array(by, np.int8),
        utility=np.array(score),
        score=np.array(score),
        latency_s=np.array(latency_s),
        payload_bytes=np.full(count, 500.0),
        energy_j=np.full(count, 0.1),
        capture_period_s=np.full(count, 0.1),
        streaming=np.full(count, np.nan),
    )


def _kind_of(status: Status, by: int) -> int:
    """An offload where the fallback or nobody answered a frame that was run."""
    if not ENDINGS[status].ran:
        return NO_KIND
    return by if by in (DEVICE, SPLIT, MEC) else MEC


def two_episodes() -> Frames:
    """Episode 3: in time and right, in time and wrong. Episode 7: one of each other ending, late ones both ways."""
    never = np.inf
    return frames_of(
        (3, Status.OK, DEVICE, 1.0, 0.01),
        (3, Status.OK, MEC, 0.0, 0.03),
        (7, Status.LATE, SPLIT, 1.0, 0.2),
        (7, Status.DROPPED, NOBODY, 0.0, never),
        (7, Status.FALLBACK, FALLBACK, 1.0, 0.08),
        (7, Status.LATE, NOBODY, 0.0, never),
        (7, Status.SKIPPED, NOBODY, 0.6, never),
    )


def test_metrics_per_episode() -> None:
    metrics = per_episode(two_episodes())
    expected = {
        "in_time_frac": [1.0, 0.2],
        "reused_frac": [0.0, 0.2],
        "skipped_frac": [0.0, 0.2],
        "late_frac": [0.0, 0.4],
        "dropped_frac": [0.0, 0.2],
        "fallback_frac": [0.0, 0.2],
        "unanswered_frac": [0.0, 0.2],
        "slo_attainment": [1.0, 0.25],  # of the frames run or dropped
        "accuracy": [0.5, 1.0],  # of the frames in time, late ones left out
        "reused_accuracy": [np.nan, 0.6],
        "goodput_fps": [10.0, 2.0],
        "payload_kbytes": [0.5, 0.5],
        "utility": [0.5, 0.52],
        "energy_j": [0.1, 0.1],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(metrics[name], values, err_msg=name)


@pytest.mark.parametrize("status", list(Status))
def test_every_frame_is_one_of_in_time_reused_late_and_dropped(status: Status) -> None:
    ending = ENDINGS[status]
    found = per_episode(frames_of((0, status, DEVICE if ending.ran else NOBODY, 1.0, 0.01)))
    shares = [found[name][0] for name in ("in_time_frac", "reused_frac", "late_frac", "dropped_frac")]
    assert sorted(shares) == [0.0, 0.0, 0.0, 1.0]
    assert found["reused_frac"][0] == ending.reused
    assert found["dropped_frac"][0] == status.dropped
    assert not (ending.ran and ending.reused)
    assert ending.has_decision == ending.ran  # a decision is what runs
    assert not ending.reused or found[f"{status.value}_frac"][0] == 1.0


def test_what_there_is_no_frame_for_is_absent_and_not_zero() -> None:
    reused = frames_of((0, Status.SKIPPED, NOBODY, 0.7, np.inf), (0, Status.CACHED, NOBODY, 0.9, np.inf))
    found = overall(reused)
    assert np.isnan([found["slo_attainment"], found["accuracy"]]).all()
    assert found["reused_accuracy"] == pytest.approx(0.8)
    assert found["goodput_fps"] == 0.0
    assert answered_on(episode_sums(reused)) is None
    assert set(latency_percentiles_ms(reused).values()) == {None}


def test_who_answered_is_told_of_the_frames_that_were_answered() -> None:
    expected = {"device": 0.25, "split": 0.25, "MEC": 0.25, "fallback": 0.25}
    assert answered_on(episode_sums(two_episodes())) == expected


def test_early_exits_are_told_apart_where_a_gate_let_one_answer() -> None:
    early = frames_of((0, Status.OK, EARLY, 0.9, 0.02), (0, Status.OK, MEC, 0.9, 0.05))
    assert answered_on(episode_sums(early)) == {"device": 0, "split": 0, "MEC": 0.5, "fallback": 0, "early exit": 0.5}


def test_kinds_are_told_of_all_frames_that_were_run_also_where_no_answer_came() -> None:
    """Five of seven frames were run: one on the device, one split, three sent to the MEC of which it answered one."""
    assert run_as(episode_sums(two_episodes())) == {"device-only": 0.2, "split": 0.2, "offload": 0.6}
    assert run_as(episode_sums(frames_of((0, Status.DROPPED, NOBODY, 0.0, np.inf)))) is None


def test_latency_counts_late_answers_but_neither_skips_drops_nor_frames_never_answered() -> None:
    found = latency_percentiles_ms(two_episodes())
    assert found["p50"] == pytest.approx(55.0)
    assert found["p99"] == pytest.approx(196.4)


def test_a_mean_is_over_the_frames_that_a_metric_is_about() -> None:
    """Three frames were run or dropped in one episode, none in another, one in the last: three of four in time."""
    ok, drop, skip = (Status.OK, DEVICE, 1.0, 0.01), (Status.DROPPED, NOBODY, 0.0, np.inf), Status.SKIPPED
    frames = frames_of((0, *ok), (0, *ok), (0, *drop), (1, skip, NOBODY, 1.0, np.inf), (2, *ok))
    met, sums = per_episode(frames)["slo_attainment"], episode_sums(frames)
    np.testing.assert_allclose(met, [2 / 3, np.nan, 1.0])
    interval = bootstrap(met, weights=sums["run_or_dropped"])
    assert interval.mean == pytest.approx(overall(frames)["slo_attainment"]) == pytest.approx(0.75)
    assert 2 / 3 - 1e-9 <= interval.low <= 0.75 <= interval.high <= 1.0 + 1e-9


@pytest.mark.parametrize("shape", [(4,), (2, 4)])
def test_an_interval_of_nothing_is_null(shape: tuple[int, ...]) -> None:
    assert bootstrap(np.full(shape, np.nan)).as_json() == {"mean": None, "ci95": None}


def test_a_ratio_of_two_sums_is_bracketed_as_a_mean_is() -> None:
    values = np.random.default_rng(3).random(40)
    plain, weighted = bootstrap(values), bootstrap(values, weights=np.linspace(1.0, 1.0 + 1e-9, 40))
    assert weighted.mean == pytest.approx(plain.mean)
    assert (weighted.low, weighted.high) == pytest.approx((plain.low, plain.high), abs=1e-4)
    copies = np.stack([values, np.where(values < 0.2, np.nan, values)])
    assert bootstrap(copies).mean == pytest.approx(float(np.nanmean(copies)))


def outcome(status: Status, prediction: int | None, decision: Decision | None, **rest: Any) -> Outcome:
    about = {"latency_ms": 40.0, "score": 1.0, "breakdown_ms": BreakdownMs()} | rest
    return Outcome(0, 0, status, about["latency_ms"], 100.0, 50, 0.1, 0.5, decision, about["breakdown_ms"],
                   prediction, 1, about["score"])  # fmt: skip


def test_live_outcomes_become_frames() -> None:
    at_the_mec = BreakdownMs(uplink=9.0, tail=3.0)
    frames = Frames.from_outcomes(
        [
            outcome(Status.OK, 1, LOCAL),
            outcome(Status.OK, 1, HALF, breakdown_ms=at_the_mec),
            outcome(Status.LATE, 1, AWAY, breakdown_ms=at_the_mec),
            outcome(Status.FALLBACK, 1, AWAY),
            outcome(Status.LATE, 1, AWAY),  # the device answered in the MEC's place, too late
            outcome(Status.LATE, None, AWAY),
            outcome(Status.DROPPED, None, None),
            outcome(Status.SKIPPED, 1, None, latency_ms=0.0),
        ],
        capture_period_s=0.1,
    )
    assert frames.in_time.tolist() == [True, True, False, True, False, False, False, False]
    assert frames.answered_by.tolist() == [DEVICE, SPLIT, MEC, FALLBACK, FALLBACK, NOBODY, NOBODY, NOBODY]
    assert frames.kind.tolist() == [DEVICE, SPLIT, MEC, MEC, MEC, MEC, NO_KIND, NO_KIND]
    assert np.isfinite(frames.latency_s).tolist() == [True] * 5 + [False] * 3
    assert frames.late.sum() == 3
    assert frames.dropped.sum() == frames.reused.sum() == frames.fallback.sum() == 1


@pytest.mark.parametrize(
    ("decision", "side", "label"),
    [
        (LOCAL, "device", "net, 28 px, exit 1, device only"),
        (HALF, "split", "net, 28 px, exit 1, split after stage 2, u8"),
        (AWAY, "MEC", "net, 28 px, exit 1, whole image as JPEG 5"),
        (Decision("net", 28, 1, 4, "none", 3), "device", "net, 28 px, exit 1, device only, 1 of 3 frames"),
    ],
)
def test_a_decision_says_where_it_computes(decision: Decision, side: str, label: str) -> None:
    assert (decision.side, decision.label) == (side, label)


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
    assert bootstrap(better - hard).excludes_zero
    assert not bootstrap(hard - hard).excludes_zero
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


def test_the_gap_to_oracle():
    reference = np.array([0.5, 0.6, 0.7, 0.4])
    oracle = reference + 0.1
    closed = gap_closed(reference + 0.025, reference, oracle)
    assert closed.mean == pytest.approx(0.25)
    assert closed.low == pytest.approx(0.25)
    assert gap_closed(reference, reference, oracle).mean == 0.0
    assert gap_closed(oracle, reference, oracle).mean == pytest.approx(1.0)


def test_nothing_has_no_mean():
    with pytest.raises(UsageError, match="expected"):
        bootstrap(np.zeros(0))


def test_reused_answers_are_counted_in_all_and_for_each_reason_that_occurs() -> None:
    ok, skipped = (Status.OK, DEVICE, 1.0, 0.01), (Status.SKIPPED, NOBODY, 0.5, np.inf)
    filtered = (Status.FILTERED, NOBODY, 0.9, np.inf)
    found = per_episode(frames_of((0, *ok), (0, *skipped), (1, *filtered), (1, *filtered)))
    assert found["reused_frac"].tolist() == [0.5, 1.0]
    assert found["skipped_frac"].tolist() == [0.5, 0.0]
    assert found["filtered_frac"].tolist() == [0.0, 1.0]
    assert "cached_frac" not in found  # nothing was
    assert overall(frames_of((0, *ok)))["skipped_frac"] == 0.0  # this one always stands
