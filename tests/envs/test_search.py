"""The best that could have been done: what the search promises is paid, and nothing else earns more."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from support import aged_streams
from support.stream import stream_costs, stream_recorded
from support.table_shortcuts import EveryThird
from support.twins import WIDE, recorded, table, traces

from agents.compare.bound import Plan
from agents.compare.rollout import play, scenarios_on
from controller.controllers.registry import ORACLE, make_controller
from controller.costs import CostTable
from controller.errors import UsageError
from controller.metrics import per_episode
from controller.records import Floats, Ints
from envs.search import best
from envs.search.beam import search_all
from envs.search.best import best_rows, best_values
from envs.setup import Setup
from envs.twin.twin import Twin

FRAMES = WIDE.frames
STREAM, PLAIN = (stream_costs(), stream_recorded()), (table(), recorded(table()))
AGED = (aged_streams.costs(), aged_streams.recorded())
BOTH = pytest.mark.parametrize("parts", [PLAIN, STREAM], ids=["plain", "stream"])


def make(parts: tuple[CostTable, Any], batch: int, frames: int = FRAMES, seed: int = 1, **options: Any) -> Twin:
    twin = Twin(*(parts[0], traces(), parts[1]), dataclasses.replace(WIDE, frames=frames), batch, seed, **options)
    twin.reset()
    return twin


def paid(twin: Twin, rows: Ints) -> Floats:
    """(B,) what a twin pays for the rows (B, F) at each frame from the present one on; the twin is not changed."""
    first, alive, total = twin.frame, twin.frames_left > 0, np.zeros(twin.batch)
    played, _ = twin.fork(np.arange(twin.batch))
    while alive.any():
        chosen = rows[np.arange(twin.batch), np.minimum(played.frame - first, rows.shape[1] - 1)]
        assert (chosen[alive] >= 0).all()
        _, record = played.step(np.maximum(chosen, 0))
        total += np.where(alive, record.reward, 0.0)
        alive &= ~record.done
    return total


def every_sequence(twin: Twin, length: int) -> Floats:
    """(B, C ** length) what is paid for each sequence of so many rows, in the order of ``itertools.product``; the last
    row goes on."""
    sequences = np.array(list(itertools.product(range(len(twin.costs)), repeat=length)))
    played, _ = twin.fork(np.repeat(np.arange(twin.batch), len(sequences)))
    rows, alive = np.tile(sequences, (twin.batch, 1)), np.ones(played.batch, bool)
    total = np.zeros(played.batch)
    for step in range(twin.range.frames):
        _, record = played.step(rows[:, min(step, length - 1)])
        total += np.where(alive, record.reward, 0.0)
        alive &= ~record.done
    return total.reshape(twin.batch, -1)


def assert_nearly(found: Floats, best_of_all: Floats) -> None:
    """Never more, and seldom less: a start that is later may be better, which the search does not look for."""
    assert (found <= best_of_all + 1e-9).all()
    assert np.isclose(found, best_of_all, rtol=1e-9).mean() >= 0.95
    assert (best_of_all - found).mean() < 0.006


def a_setup(parts: tuple[CostTable, Any]) -> Setup:
    return Setup(None, parts[0], parts[1], traces(), WIDE)  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [PLAIN, STREAM, AGED], ids=["plain", "stream", "aged"])
@pytest.mark.parametrize("reward", ["replayed", "expected"])
def test_the_twin_pays_what_was_found(parts: tuple[CostTable, Any], reward: Any) -> None:
    twin = make(parts, 12, reward=reward)
    for _ in range(3):  # from the start, from the middle of the episodes, and where some are over
        earned, rows = best_rows(twin, width=8)
        np.testing.assert_allclose(paid(twin, rows), earned, rtol=1e-12)
        for _ in range(15):
            twin.step(np.zeros(12, np.int64))


@BOTH
def test_no_sequence_of_rows_earns_more(parts: tuple[CostTable, Any]) -> None:
    twin = make(parts, 40, frames=3)
    assert_nearly(best_rows(twin)[0], every_sequence(twin, 3).max(axis=1))


@pytest.mark.parametrize("parts", [PLAIN, STREAM, AGED], ids=["plain", "stream", "aged"])
def test_no_controller_earns_more(parts: tuple[CostTable, Any]) -> None:
    setup = a_setup(parts)
    scenarios = scenarios_on(setup, 24, 0)
    twin = setup.twin(24)
    twin.reset(scenarios=scenarios)
    bound = best_rows(twin)[0] / FRAMES
    for name in ("greedy", "edgent", "device-only", "mec-only", "random", ORACLE):
        controller = make_controller(name, setup.costs, setup.range.utility, batch=24)
        utility = per_episode(play(setup, controller, scenarios, oracle=name == ORACLE).frames)["utility"]
        assert (bound >= utility - 1e-9).all(), name


def test_streaming_accuracy_is_counted_as_in_a_comparison() -> None:
    setup = a_setup(STREAM)
    scenarios = scenarios_on(setup, 12, 0)
    twin = setup.twin(12)
    twin.reset(scenarios=scenarios)
    for weight in (0.5, 2.0):
        earned, rows = best_rows(twin, weight, width=16)
        figures = per_episode(play(setup, Plan("bound", rows), scenarios).frames)
        np.testing.assert_allclose(earned / FRAMES, figures["utility"] + weight * figures["streaming_accuracy"])


@BOTH
def test_a_wider_beam_finds_hardly_more(parts: tuple[CostTable, Any]) -> None:
    twin = make(parts, 16)
    narrow, wide = (best_rows(twin, width=width)[0].mean() / FRAMES for width in (64, 128))
    assert -1e-9 <= wide - narrow < 0.0005


@BOTH
def test_the_value_of_a_first_row_is_the_best_of_what_can_follow(parts: tuple[CostTable, Any]) -> None:
    twin, count = make(parts, 20, frames=3), len(parts[0])
    before = twin.parts[1].state.tobytes()
    values = best_values(twin, np.tile(np.arange(count), (20, 1)), 3, 1.0, 0.0, width=64)
    expected = every_sequence(twin, 3).reshape(20, count, -1).max(axis=2)
    assert_nearly(values, expected)
    assert twin.parts[1].state.tobytes() == before


def test_later_frames_count_less_and_those_beyond_the_horizon_by_their_share() -> None:
    costs, scores = STREAM
    quick = dataclasses.replace(costs, head_s=np.full(len(costs), 1e-9))
    perfect = dataclasses.replace(scores, score=np.ones_like(scores.score), lagged=np.ones_like(scores.lagged))
    twin = make((quick, perfect), 4)
    values = best_values(twin, np.zeros((4, 1), np.int64), 10, 0.9, 0.0, ranking=best.Ranking(seen_weight=0.0))
    np.testing.assert_allclose(values, (1 - 0.9**10) / 0.1, rtol=1e-3)  # but for a little energy


@BOTH
def test_compiled_code_does_what_its_source_says(parts: tuple[CostTable, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    twin = make(parts, 2, frames=8)
    compiled = best_rows(twin, 0.5, width=4)
    monkeypatch.setattr(best, "search_all", search_all.plain)
    for one, other in zip(compiled, best_rows(twin, 0.5, width=4), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_the_number_of_threads_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(threads: int) -> tuple[Floats, Ints]:
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        return best_rows(make(STREAM, 7), width=8)

    for one, other in zip(found(1), found(3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(UsageError, match="got a twin with shortcuts"):
        best_rows(make(STREAM, 2, shortcuts=[EveryThird()]))
    with pytest.raises(UsageError, match="expected rows of the"):
        best_values(make(PLAIN, 1), np.full((1, 1), 999), 5, 1.0, 0.0)
