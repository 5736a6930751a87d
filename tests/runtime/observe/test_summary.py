"""A daemon's summary has the figures of a comparison, in memory that does not grow."""

from __future__ import annotations

import io
import os
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from controller.histogram import LogHistogram
from controller.metrics import Frames, answered_on, episode_sums, latency_percentiles_ms, overall, run_as
from controller.packets import wire_bytes
from controller.records import BreakdownMs, Decision, Outcome, Status
from controller.streaming import Stream, streaming_scores
from runtime.cli.console import progress
from runtime.link.link_watch import Counts
from runtime.observe.pinned import PinnedCount
from runtime.observe.summary import RunSummary, bytes_text, link_text, source_text

DECISIONS = (Decision("net", 28, 1, 4, "none"), Decision("net", 28, 1, 2, "u8"), Decision("net", 28, 1, 0, "raw"))
INTERVAL_S = 0.05


def outcomes(count: int, seed: int = 0, truth: int | None = 1) -> Iterator[Outcome]:
    """Frames that end in every way, with latencies over three decades."""
    rng = np.random.default_rng(seed)
    statuses = list(Status)
    kinds, latency_ms = rng.integers(len(statuses), size=count), np.exp(rng.normal(3.5, 1.2, count))
    for frame, (kind, ms) in enumerate(zip(kinds.tolist(), latency_ms.tolist(), strict=True)):
        status = statuses[kind]
        answered = status is not Status.DROPPED and not (status is Status.LATE and frame % 3 == 0)
        yield Outcome(
            frame=frame,
            source_index=frame,
            status=status,
            latency_ms=0.0 if status.reused else ms,
            deadline_ms=100.0,
            payload_bytes=frame % 700,
            energy_j=0.01 * (frame % 5),
            utility=None if truth is None else 0.001 * (frame % 900),
            decision=DECISIONS[frame % 3] if status.ran else None,
            breakdown_ms=BreakdownMs(tail=1.0 if status is not Status.FALLBACK else 0.0),
            prediction=frame if answered else None,
            truth=truth,
            score=None if truth is None else (frame % 11) / 10 if answered else 0.0,
        )


def summary_of(ended: list[Outcome], **options: Any) -> RunSummary:
    summary = RunSummary(interval_s=INTERVAL_S, **options)
    for outcome in ended:
        summary.add(outcome)
    return summary


@pytest.mark.parametrize("count", [1, 63, 64, 1000])
def test_the_figures_are_those_of_a_comparison(count: int) -> None:
    ended = list(outcomes(count))
    figures, frames = summary_of(ended).figures(), Frames.from_outcomes(ended, INTERVAL_S)
    for name, expected in overall(frames).items():
        if name != "streaming_accuracy":
            found = figures[name]
            assert (found is None) == np.isnan(expected), name
            assert found is None or found == pytest.approx(expected), name
    assert figures["run_as"] == run_as(episode_sums(frames))
    assert figures["answered_on"] == answered_on(episode_sums(frames))
    for name, exact in latency_percentiles_ms(frames).items():
        assert figures["latency_ms"][name] == (None if exact is None else pytest.approx(exact, rel=0.006)), name
    assert figures["frames"] == sum(figures["status"].values()) == count


def test_a_stream_is_scored_as_in_a_comparison() -> None:
    def score(prediction: int, truth: int) -> float:
        return 1.0 / (1 + prediction % 7)

    ended = sorted(outcomes(300), key=lambda o: (o.frame * INTERVAL_S * 1e3 + o.latency_ms, o.frame))
    found = summary_of(ended, stream=Stream(INTERVAL_S, score)).figures()["streaming_accuracy"]
    assert found == pytest.approx(float(streaming_scores(ended, INTERVAL_S, score).mean()))


def test_nothing_is_absent_and_not_zero() -> None:
    figures = RunSummary().figures()
    assert figures["frames"] == 0
    for name in ("utility", "slo_attainment", "accuracy", "goodput_fps", "payload_kbytes", "run_as", "answered_on"):
        assert figures[name] is None
    assert set(figures["latency_ms"].values()) == {None}


def test_without_a_truth_there_is_no_score_but_everything_else() -> None:
    figures = summary_of(list(outcomes(200, truth=None))).figures()
    assert figures["utility"] is figures["accuracy"] is figures["reused_accuracy"] is None
    assert figures["slo_attainment"] > 0
    assert figures["latency_ms"]["p50"] > 0


def test_without_a_truth_the_table_has_no_row_of_scores() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    stream = Stream(INTERVAL_S, lambda prediction, truth: 1.0)
    console.print(summary_of(list(outcomes(200, truth=None)), stream=stream).table("campus: ppo"))
    shown = console.export_text()
    assert "goodput" in shown
    assert not any(word in shown for word in ("accuracy", "utility", "n/a"))


def test_frames_that_nobody_times_count_by_the_clock() -> None:
    now_s = 0.0
    summary = RunSummary(clock=lambda: now_s)
    for frame in range(21):  # a camera that gives four pictures a second
        now_s = 100.0 + frame / 4 + 0.03
        summary.add(Outcome(frame, frame, Status.OK, 30.0, 100.0, 0, 0.0, 1.0, DECISIONS[0], BreakdownMs(), 1, 1, 1.0))
    assert summary.figures()["goodput_fps"] == pytest.approx(4.0)


def test_memory_does_not_grow_with_the_frames() -> None:
    """Twelve thousand outcomes leave no more behind than two thousand: a list of one number each would take 80 kB."""
    summary = RunSummary(Stream(INTERVAL_S, lambda prediction, truth: 1.0), INTERVAL_S)
    run = outcomes(12_000)
    tracemalloc.start()
    try:
        for _ in range(2_000):
            summary.add(next(run))
        summary.figures()
        before, _ = tracemalloc.get_traced_memory()
        for outcome in run:
            summary.add(outcome)
        summary.figures()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert summary.frames == 12_000
    assert after - before < 20_000


def test_percentiles_of_a_million_values_are_within_half_a_percent() -> None:
    values = np.exp(np.random.default_rng(1).normal(-3.0, 2.0, 1_000_000))
    histogram = LogHistogram()
    for part in np.array_split(values, 100):
        histogram.add(part)
    for percent in (0, 1, 50, 95, 99, 99.99, 100):
        assert histogram.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=0.005)


def test_percentiles_of_a_few_values_are_interpolated() -> None:
    histogram = LogHistogram()
    assert histogram.percentile(50) is None
    histogram.add(np.array([0.01, 0.03]))
    assert histogram.percentile(50) == pytest.approx(0.02, rel=0.005)
    histogram.add(np.array([0.0, np.inf]))  # out of range counts as its end
    assert histogram.percentile(100) == pytest.approx(1e5, rel=0.02)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"up_frac": 0.98, "welcomed": True, "link_downs": 2}, "up 98.0 % of the time, lost 2 times"),
        ({"up_frac": 1.0, "welcomed": True, "link_downs": 0}, "up 100.0 % of the time, never lost"),
        ({"welcomed": False, "up_frac": None}, "no MEC was met at tcp://m:1: every frame was answered on the device"),
        (
            {"welcomed": False, "trouble": "speaks plain"},
            "no MEC was met at tcp://m:1 (speaks plain): every frame was answered on the device",
        ),
        (
            {"welcomed": True, "up_frac": 0.4, "link_downs": 1, "trouble": "connection refused"},
            "up 40.0 % of the time, lost once, not there at the end: connection refused",
        ),
        ({"refused": "another bundle", "welcomed": False}, "refused by tcp://m:1: another bundle"),
        ({"link_downs": 0, "peer_faults": 0}, ""),  # nothing is known
        ({"link_downs": 1, "peer_faults": 3}, "lost once, 3 protocol errors"),
        (
            {"link_downs": 1, "mecs": [{"mec": "tcp://m:1", "answered": 7}, {"mec": "tcp://n:1", "answered": 0}]},
            "lost once, tcp://m:1 answered 7, tcp://n:1 answered 0",
        ),
        (
            {
                "up_frac": 1.0,
                "welcomed": True,
                "switches": 2,
                "mecs": [
                    {"mec": "tcp://m:1", "answered": 7, "welcomed": True, "up_frac": 0.59, "link_downs": 1},
                    {"mec": "tcp://n:1", "answered": 5, "welcomed": True, "up_frac": 1.0, "link_downs": 0},
                ],
            },
            "up 100.0 % of the time, never lost, changed between MECs 2 times, tcp://m:1 answered 7 (up 59.0 % of the "
            "time, lost once), tcp://n:1 answered 5 (up 100.0 % of the time, never lost)",
        ),
    ],
)
def test_the_link_is_told_in_one_line(counts: dict[str, Any], text: str) -> None:
    assert link_text(counts, "tcp://m:1") == text


def test_what_a_link_did_not_do_is_null() -> None:
    found = Counts(link_downs=2).as_json()
    assert found["link_downs"] == 2
    assert found["refused"] is found["trouble"] is found["up_frac"] is None


@pytest.mark.parametrize(
    ("notes", "text"),
    [
        ({}, ""),  # a workload's own samples
        ({"unreadable": 0, "missing": 0, "losses": 0, "away_s": 0.0}, ""),
        ({"unreadable": 1, "missing": 3, "losses": 0, "away_s": 0.0}, "unreadable pictures: 1, missing frames: 3"),
        ({"unreadable": 0, "missing": 0, "losses": 1, "away_s": 2.12}, "lost once, for 2.1 s in all"),
    ],
)
def test_what_went_wrong_with_the_source_is_one_line(notes: dict[str, float], text: str) -> None:
    assert source_text(notes) == text


def test_a_bar_on_the_terminal_does_not_take_what_goes_to_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `mecpilot device --json - > file`."""
    ours, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("TERM", "xterm")
        with progress(3, lambda _: None):
            print("{}")
    os.close(ours)
    assert capsys.readouterr().out == "{}\n"


def test_the_table_tells_frames_apart_and_says_where_they_were_answered() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary_of(list(outcomes(500))).table("campus: ppo", link="up 98.0 % of the time"))
    shown = console.export_text()
    for word in ("in time", "skipped", "late", "dropped", "run or dropped", "device", "fallback", "98.0 %"):
        assert word in shown


def test_bytes_below_a_kilobyte_are_whole_ones() -> None:
    assert [bytes_text(n) for n in (0, 57.4, 999.4, 999.6, 2048)] == ["0 B", "57 B", "999 B", "1.00 kB", "2.05 kB"]


def test_the_table_shows_payload_and_whole_messages_per_frame() -> None:
    sent = [
        replace(o, payload_bytes=60, uplink_bytes=int(wire_bytes(60))) if o.frame % 2 else replace(o, payload_bytes=0)
        for o in outcomes(200)
    ]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_of(sent).table("campus: ppo"))
    shown = console.export_text()
    assert f"30 B, {wire_bytes(60) / 2:.0f} B with the rest of the message" in shown


def test_a_pinned_decision_that_is_replaced_is_counted() -> None:
    pinned, other = Decision("nano", 384, 0, 1, "u8"), Decision("nano", 384, 0, 5, "none")
    base = next(iter(outcomes(1)))
    count = PinnedCount(pinned)
    for status in (Status.OK, Status.LATE, Status.SKIPPED, Status.DROPPED):
        count.add(replace(base, status=status, decision=pinned))
    assert count.text == ""
    count.add(replace(base, status=Status.FALLBACK, decision=pinned))
    count.add(replace(base, status=Status.OK, decision=other))
    assert "replaced by a local answer for 50.0 % of the frames" in count.text
