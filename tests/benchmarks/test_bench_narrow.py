"""The benchmarks of pinned decisions count frames as they say, and choose the best of each kind."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_energy import Energies, table_of
from benchmarks.bench_energy import verdict as energy_verdict
from benchmarks.bench_narrow import best_of, draw, group_of, live_table, sweep_table, twin_table, verdict
from benchmarks.support import machine_profile as machine_profiles
from benchmarks.support.kinds import DEVICE, JPEG, LOSSLESS_IMAGE, PLAIN_SPLIT, SPLIT
from benchmarks.support.on_link import run_on_profile
from benchmarks.support.pinned import TERMS, Compared, Figures, episode_of, figures_of, in_twin, whole_setup
from controller.errors import UsageError
from controller.metrics import NO_KIND, NOBODY, Frames
from controller.packets import wire_bytes
from controller.records import STATUSES, Decision, Status
from controller.scenario import Scenario
from envs.setup import Setup
from runtime.traces.load import read_trace

FIGURES = Figures(0.9, 1.0, 0.0, 100.0, 50.0, 60.0, 0.1)


@pytest.fixture(scope="module")
def setup() -> Setup:
    return whole_setup("campus", read_trace("2mbit"), None)


@pytest.fixture(scope="module")
def scenario(setup: Setup) -> Scenario:
    played = episode_of(setup, fps=10.0, deadline_s=0.3, device_slowdown=20.0, mec_slowdown=2.0, rtt_s=0.02)
    assert (played.frames, played.first_sample) == (265, 0)
    return replace(played, frames=30)


@pytest.fixture(scope="module")
def figures(setup: Setup, scenario: Scenario) -> list[Figures]:
    return in_twin(setup, scenario, np.arange(len(setup.costs)))


def test_a_late_frame_is_missed_and_a_skipped_one_counts_with_the_answer_that_stands_for_it() -> None:
    ends = (Status.OK, Status.SKIPPED, Status.LATE, Status.DROPPED)
    frames = Frames(
        episode=np.zeros(4, int),
        status=np.array([STATUSES.index(status) for status in ends]),
        kind=np.array([1, NO_KIND, 1, NO_KIND]),
        answered_by=np.array([1, NOBODY, 1, NOBODY]),
        utility=np.zeros(4),
        score=np.array([0.9, 0.7, 0.8, 0.0]),
        latency_s=np.array([0.1, np.inf, 0.4, np.inf]),
        payload_bytes=np.array([70.0, 0.0, 300.0, 0.0]),
        energy_j=np.array([0.2, 0.0, 0.2, 0.0]),
        capture_period_s=np.full(4, 0.1),
        streaming=np.full(4, np.nan),
    )
    found = figures_of(frames)
    assert found.score == pytest.approx((0.9 + 0.7) / 4)
    assert found.in_time_frac == pytest.approx(1 / 3)
    assert found.uplink_bytes_per_s == pytest.approx((wire_bytes(70) + wire_bytes(300)) / 0.4)
    assert found.p50_ms == pytest.approx(250)
    assert found.energy_j == pytest.approx(0.1)


def test_every_legal_decision_is_played_and_the_best_of_each_kind_is_chosen(
    setup: Setup, figures: list[Figures]
) -> None:
    assert len(figures) == len(setup.bundle.space)
    best = best_of(setup.costs, figures, group_of)
    assert LOSSLESS_IMAGE not in best
    decisions = setup.costs.space.decisions
    alone = [f.score for f, d in zip(figures, decisions, strict=True) if group_of(d) == DEVICE]
    assert figures[best[DEVICE]].score == pytest.approx(max(alone), abs=0.001)
    assert twin_table(setup.costs, figures, "some").row_count >= 4 * len(best) / 2


def test_energy_is_compared_with_device_only_decisions_at_no_less_score(setup: Setup, figures: list[Figures]) -> None:
    found = Energies(setup.costs, figures)
    alone = found.alone()
    assert (np.diff(found.energy_j[alone]) > 0).all()
    assert (np.diff(found.score[alone]) > 0).all()
    cheapest = found.least(JPEG, found.score[alone[0]])
    assert cheapest is not None
    assert found.score[cheapest] >= found.score[alone[0]]
    assert found.ratio(alone[0], JPEG) == pytest.approx(found.energy_j[cheapest] / found.energy_j[alone[0]])
    assert found.least(JPEG, 2.0) is None
    assert table_of(found, "some").row_count == len(alone)


def test_without_a_split_the_target_of_energy_is_missed(setup: Setup, figures: list[Figures]) -> None:
    found = Energies(setup.costs, figures)
    found.kind[found.kind == SPLIT] = PLAIN_SPLIT
    assert energy_verdict(found).endswith("MISSED")


def test_the_verdict_and_the_picture_are_of_the_best_split(tmp_path: Path) -> None:
    terms = dict.fromkeys(TERMS, 10.0)
    split = Compared(Decision("split8", 384, 0, 1, "signs"), FIGURES, replace(FIGURES, score=0.91), terms, terms)
    alone = Compared(Decision("nano", 384, 0, 2, "none", 3), replace(FIGURES, score=0.5), FIGURES, terms, terms)
    lines = verdict([split, alone])
    assert lines[0].endswith("target 0.90: reached")
    assert "off by 0.400" in lines[1]
    assert live_table([split, alone], "some").row_count == 2
    sweep = {150.0: {"split8": 0.9, DEVICE: 0.5}, 250.0: {"split8": 0.8, DEVICE: 0.2}}
    assert sweep_table(sweep, "some").row_count == 2
    draw(sweep, [split, alone], 150.0, 300.0, "some", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_the_profile_that_is_measured_is_that_of_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[str, Path | None]] = []
    monkeypatch.setattr(machine_profiles, "profile", lambda workload, bundle, out: measured.append((workload, bundle)))
    options = argparse.Namespace(workload="campus", profile=None, bundle="own/bundle")
    assert run_on_profile("bench", options, lambda _, path: None) == 0
    options.bundle = None
    assert run_on_profile("bench", options, lambda _, path: None) == 0
    assert measured == [("campus", Path("own/bundle")), ("campus", None)]


def test_a_bundle_that_cannot_be_measured_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UsageError("no such bundle")

    monkeypatch.setattr(machine_profiles, "profile", refuse)
    options = argparse.Namespace(workload="campus", profile=None, bundle="nowhere")
    assert run_on_profile("bench", options, lambda _, path: None) == 2
    assert capsys.readouterr().err == "bench: no such bundle\n"
