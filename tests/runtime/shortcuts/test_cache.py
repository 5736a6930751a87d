"""The cache as a shortcut: real pictures, a device's loop, and what goes wrong around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.simulated import Simulation
from support.stream import stream_costs, stream_recorded

from controller.cache.answers import AnswerCache
from controller.cache.rules import CacheRules
from controller.cache.store import ENTRY_BYTES
from controller.errors import UsageError
from controller.records import Decision, Float32s, Outcome, Status
from controller.reuse import Answers, PastAnswer
from runtime.config.flags import effective
from runtime.config.sections.shortcuts import CacheSection
from runtime.config.settings import settings
from runtime.device.device import Device
from runtime.observe.summary import note_text
from runtime.shortcuts.base import Context
from runtime.shortcuts.cache.shortcut import EdgeCache, caches
from runtime.sources.frames import Frame
from runtime.workloads.garments.shelf import Shelf
from runtime.workloads.types import Image

ON = CacheSection(size="32MB")


def equal(one: Any, other: Any) -> float:
    return float(one == other)


def cache_of(settings: CacheSection = ON, score: Callable[[Any, Any], float] = equal, **options: Any) -> EdgeCache:
    """A cache whose looks cost nothing."""
    return EdgeCache(settings, score, clock=lambda: 0.0, **options)


def play(cache: EdgeCache, pictures: Sequence[Image], answers: Sequence[Any], first: int = 0) -> list[Any]:
    """Show pictures to the cache, ten a second; those that it does not answer are run. Returns its answers, or None."""
    given: list[Any] = []
    for index, (picture, answer) in enumerate(zip(pictures, answers, strict=True), start=first):
        now_s = 0.1 * index
        reuse = cache.try_answer(Frame(index, index, now_s), Context(now_s, Answers(), lambda p=picture: p))  # type: ignore[misc]
        given.append(None if reuse is None or reuse.answer is None else reuse.answer.prediction)
        if reuse is None:
            cache.answered(PastAnswer(index, now_s + 0.02, answer))
    return given


def test_items_that_come_again_are_answered_by_the_cache_and_mostly_as_a_run_would(shelf: Shelf) -> None:
    """Runs know the truth here, so that only the cache can be wrong."""
    pictures, answers = zip(*(shelf.sample(i, "validation") for i in range(1200)), strict=True)
    cache, items, run = cache_of(), shelf.items("validation"), set[int]()
    given = play(cache, pictures, answers)
    chances = found = 0
    for item, answer in zip(items, given, strict=False):
        chances += item in run
        found += item in run and answer is not None
        run |= {item} if answer is None else set()
    hits = [(answer, truth) for answer, truth in zip(given, answers, strict=True) if answer is not None]
    notes = cache.notes()
    assert (found + notes["verified"]) / chances > 0.85
    assert np.mean([answer == truth for answer, truth in hits]) > 0.95
    assert notes["hits"] == len(hits)
    assert notes["verified"] > 0
    assert 0.0 < notes["threshold"] < 0.5


def test_answers_that_prove_wrong_are_not_given_any_more(shelf: Shelf) -> None:
    """From the middle on, what is shown has nothing to do with the answers."""
    pictures, answers = zip(*(shelf.sample(i, "validation") for i in range(1500)), strict=True)
    cache = cache_of(CacheSection(size="32MB", verify_frac=0.2))
    play(cache, pictures[:700], answers[:700])
    before = cache.cache.threshold.distance
    wrong = np.random.default_rng(0).integers(0, 10, 800).tolist()
    given = play(cache, pictures[700:], wrong, first=700)
    assert cache.cache.threshold.distance < 0.5 * before
    assert sum(answer is not None for answer in given[-200:]) < 0.2 * 200


class TestCampus:
    def taught(self, frames: np.ndarray) -> EdgeCache:
        """A cache that has learnt to trust the answers to pictures that are next to each other."""
        cache = cache_of(score=lambda one, other: float(abs(one - other) <= 2))
        play(cache, frames, range(len(frames)))
        assert cache.cache.threshold.distance > 0.0
        return cache

    def test_nothing_is_reused_at_a_cut_between_two_scenes(self, frames: np.ndarray) -> None:
        cache = self.taught(frames)
        others = [frame[:, ::-1] for frame in frames[:20]]
        assert play(cache, others, range(1000, 1020), first=1000) == [None] * 20
        assert cache.cache.counts.scenes >= 1
        assert cache.cache.threshold.distance == 0.0

    @pytest.mark.parametrize("gain", [0.6, 1.5])
    def test_after_a_change_of_gain_answers_are_those_to_much_the_same_picture_or_none(
        self, frames: np.ndarray, gain: float
    ) -> None:
        cache = self.taught(frames)
        brighter = [np.clip(frame * gain, 0, 255).astype(np.uint8) for frame in frames[:40]]
        given = play(cache, brighter, range(40), first=1000)
        assert all(answer is None or abs(answer - index) <= 4 for index, answer in enumerate(given))

    def test_night_falls_and_nothing_is_answered(self, frames: np.ndarray) -> None:
        cache = self.taught(frames)
        rng = np.random.default_rng(0)
        night = [rng.normal(4.0, 2.0, frames[0].shape).clip(0, 255).astype(np.uint8) for _ in range(10)]
        night += [np.zeros_like(frames[0])] * 10
        assert play(cache, night, range(20), first=1000) == [None] * 20
        assert cache.cache.counts.keyless == 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_key_with_a_number_that_is_none_is_a_miss(bad: float) -> None:
    keys = np.random.default_rng(0).random((40, 64)).astype(np.float32)
    keys[::2, 7] = bad
    known = iter([*keys, *keys])

    def key_of(_: Image) -> Float32s:
        return next(known)

    cache = cache_of(CacheSection(size="1MB", threshold=0.01, verify_frac=0.0), key_of=key_of)
    given = play(cache, [np.zeros((2, 2), np.uint8)] * 80, [*range(40), *range(40)])
    assert given[40:] == [None if index % 2 == 0 else index for index in range(40)]
    assert cache.cache.counts.keyless == 40


def test_frames_that_are_never_answered_take_no_memory() -> None:
    rng, cache = np.random.default_rng(0), cache_of()
    for index in range(300):
        picture = rng.integers(0, 255, (28, 28), dtype=np.uint8)
        cache.try_answer(Frame(index, index, 0.0), Context(0.0, Answers(), lambda p=picture: p))  # type: ignore[misc]
    assert len(cache.cache._pending) <= 64


def test_a_stream_that_never_repeats_stays_within_the_memory() -> None:
    rng, cache = np.random.default_rng(0), cache_of(CacheSection(size="64kB"))
    cache.cache.worth.looks_up = lambda slack_s: True  # type: ignore[method-assign]
    pictures = rng.integers(0, 255, (300, 28, 28), dtype=np.uint8)
    play(cache, list(pictures), [[[1.0] * 5] * int(n) for n in rng.integers(0, 9, 300)])
    assert cache.cache.store.kept_bytes <= 64_000
    assert 0 < len(cache.cache.store) <= 64_000 // ENTRY_BYTES


# In a device ---------------------------------------------------------------------------------------------------


def simulated(**options: Any) -> tuple[Simulation, list[Outcome]]:
    """Every picture of the simulated camera is all one grey value, so the key is a direction that the value gives."""

    def key_of(picture: Image) -> Float32s:
        key = np.zeros(64, np.float32)
        key[int(picture[0, 0, 0]) % 8] = 1.0
        return key

    settings = CacheSection(size="1MB", threshold=0.01, verify_frac=0.0)
    cache = EdgeCache(settings, lambda *_: 1.0, key_of=key_of, clock=lambda: 0.0)
    sim = Simulation(
        costs=stream_costs(), recorded=stream_recorded(), shortcuts=[cache], frames=24, fps=10.0, **options
    )
    local = stream_costs().space.index(Decision("net", 384, 1, 4, "none", 1))
    return sim, sim.run(lambda _: local)


def test_a_device_answers_from_its_cache_and_says_whose_answer_it_is() -> None:
    sim, outcomes = simulated(deadline_s=0.5)
    assert [o.status for o in outcomes] == [Status.OK] * 8 + [Status.CACHED] * 16
    assert [o.reused_frame for o in outcomes[8:]] == [*range(8), *range(8)]
    assert len(sim.compute.ran) == 8
    assert sim.device.shortcut_notes["cache"]["hits"] == 16


def test_no_cache_means_no_cache(shelf: Shelf) -> None:
    assert caches(CacheSection(), equal) == ()
    with Device(workload=shelf, controller="device-only", mec="tcp://127.0.0.1:9", fps=0, deadline_s=5.0) as device:
        assert all(outcome.status is Status.OK for outcome in device.run(frames=5))


def test_a_real_device_reuses_real_answers_and_each_outcome_comes_at_once(shelf: Shelf) -> None:
    """Only the answer to a frame makes the source give the next one: an outcome that is held back would be noticed."""
    shown: list[int] = []

    class Same(Shelf):
        """The same picture again and again."""

        def sample(self, index: int, split: Any = "test") -> tuple[Image, int]:
            shown.append(index)
            return shelf.sample(0, split)

    settings = CacheSection(size="1MB", threshold=0.05, verify_frac=0.0)
    with Device(
        workload=Same(), controller="device-only", mec="tcp://127.0.0.1:9", fps=0, deadline_s=5.0, cache=settings
    ) as device:
        for outcome in device.run(frames=12):
            if not outcome.frame:
                shown.clear()  # what was loaded ahead
            assert max(shown, default=0) <= outcome.frame + 1
            assert (outcome.status is Status.CACHED) == (outcome.frame > 0)


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--cache", "32XB", "--cache '32XB'; expected a size from 64kB to 64GB, such as 32MB, or 0 for none"),
        ("--cache", "9kB", "--cache '9kB'; expected a size from 64kB to 64GB, such as 32MB, or 0 for none"),
        ("--cache-threshold", "2.5", "--cache-threshold 2.5; expected a number from 0 to 2"),
        ("--cache-threshold", "nan", "--cache-threshold nan; expected a number from 0 to 2"),
        ("--cache-agreement", "0.2", "--cache-agreement 0.2; expected a number from 0.5 to 1"),
        ("--cache-eviction", "fifo", "--cache-eviction 'fifo'; expected 'gdsf' or 'lru' or 'w-tinylfu'"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(flag: str, value: str, expected: str) -> None:
    known = settings("cache")
    with pytest.raises(UsageError) as refused:
        effective(None, known, {flag.removeprefix("--").replace("-", "_"): value})
    assert str(refused.value) == expected
    with pytest.raises(UsageError, match="cache: got '1'; expected a size"):
        Device("garments", cache=CacheSection(size="1"))


# Worse answers -------------------------------------------------------------------------------------------------


def key_number(number: int) -> Float32s:
    key = np.zeros(64, np.float32)
    key[number] = 1.0
    return key


def asked(cache: AnswerCache, frame: int, number: int, prediction: str, expected: float) -> str:
    """The answer to a frame: the cache's, or the one that a run gives."""
    now_s, key = 0.1 * frame, key_number(number)
    found = cache.answer_to(frame, key, cache.nearest(key, now_s), now_s, 0.0)
    if found is not None:
        return str(found.prediction)
    cache.answered(PastAnswer(frame, now_s + 0.02, prediction, None, expected))
    return prediction


def test_the_answer_of_a_fallback_does_not_stand_where_runs_bring_better_ones_and_goes_for_one() -> None:
    cache = AnswerCache(CacheRules(1 << 20, threshold=0.1, verify_frac=0.0), equal)
    for frame in range(20):
        asked(cache, frame, frame, "good", 0.93)
    assert asked(cache, 20, 40, "worse", 0.84) == "worse"
    assert len(cache.store) == 21
    assert asked(cache, 21, 40, "better", 0.93) == "better"  # run, though there is an answer to this picture
    assert len(cache.store) == 21  # in its place
    assert asked(cache, 22, 40, "a third", 0.93) == "better"


def test_where_runs_bring_nothing_better_the_answers_of_fallbacks_stand() -> None:
    cache = AnswerCache(CacheRules(1 << 20, threshold=0.1, verify_frac=0.0), equal)
    for frame in range(20):
        asked(cache, frame, frame, "worse", 0.84)
    assert asked(cache, 20, 3, "run", 0.84) == "worse"


def test_a_frame_that_leaves_no_time_for_a_look_is_not_looked_up() -> None:
    cache = AnswerCache(CacheRules(1 << 20), equal)
    cache.looked(0.001, False, slowdown=20.0)
    assert not cache.looks_up(slack_s=0.1)
    assert cache.looks_up(slack_s=0.3)
    looks = [cache.looks_up(slack_s=0.1) for _ in range(64)]
    assert sum(looks) == 1  # now and then it measures again


# Settings that are in no use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "flag", "value", "expected"),
    [
        (
            "cache",
            "cache_threshold",
            "0.1",
            "got --cache-threshold 0.1 without --cache 32MB; expected both, or neither",
        ),
        ("cache", "cache_eviction", "lru", "got --cache-eviction lru without --cache 32MB; expected both, or neither"),
        ("filter", "filter_target", "0.9", "got --filter-target 0.9 without --filter auto; expected both, or neither"),
    ],
)
def test_settings_of_what_is_off_are_refused(section: str, flag: str, value: str, expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        effective(None, settings(section), {flag: value})
    assert str(refused.value) == expected


def test_a_cache_of_the_file_can_be_switched_off_by_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "mecpilot.toml"
    file.write_text('[cache]\nsize = "32MB"\nthreshold = 0.1\n')
    known = settings("cache")
    assert effective(str(file), known, {}).cache.threshold == 0.1
    assert effective(str(file), known, {"cache": "0"}).cache == CacheSection()


def test_notes_say_null_while_nothing_is_verified_and_have_units() -> None:
    notes = cache_of().notes()
    assert (notes["agreement"], notes["verified"]) == (None, 0)
    assert [note_text(*note) for note in notes.items()] == [
        "hits 0 frames",
        "verified 0 frames",
        "agreement -",
        "threshold 0",
        "entries 0",
        "0 kB",
        "not looked up 0 frames",
        "new scenes 0",
    ]
