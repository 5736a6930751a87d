"""The cache: the device's half and the twin's are one rule, on streams in which items come again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.same_episode import assert_same
from support.simulated import SimCompute, Simulation
from support.stream import stream_costs

from controller.cache.answers import AnswerCache
from controller.controllers.simple import FixedRow
from controller.errors import UsageError
from controller.records import Decision, Float32s, Status
from controller.reuse import PastAnswer
from controller.scenario import Scenario
from envs.setup import Setup, open_setup
from envs.techniques import CACHE, Techniques
from envs.twin.caching import KEEP_S, LOOK_S, SEARCH_S, CacheTable, ShownSamples, shown_by
from envs.twin.shortcut import Asked
from runtime.bundles.bundle import open_pair
from runtime.bundles.recorded import Recorded
from runtime.config.sections.shortcuts import CacheSection
from runtime.inference.segments import Segments
from runtime.shortcuts.base import Context
from runtime.shortcuts.cache.keys import key_of
from runtime.shortcuts.cache.shortcut import EdgeCache
from runtime.sources.frames import Frame
from runtime.testbed.markov_traces import builtin_traces
from runtime.workloads.garments.shelf import Shelf
from runtime.workloads.types import Image

ON = CacheSection(size="32MB")
FRAMES = 400


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    """Four fifths of its frames show an item that was shown before."""
    return Shelf(repetition=0.8)


class ShelfCompute(SimCompute):
    """Shows garments that come again, and answers as recorded."""

    shelf: Shelf

    def picture(self, source_index: int) -> Image:
        return self.shelf.sample(source_index, "validation")[0]

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float]:
        space, truth = self._costs.paths.space, self.truth(source_index)
        assert self._recorded is not None
        assert self._recorded.label is not None
        label = int(self._recorded.label[space.variant[space.index(decision)], source_index])
        return label, truth, self.score(label, truth)

    def score(self, prediction: Any, truth: Any) -> float:
        return float(prediction == truth)

    def confidence(self, outputs: Any, decision: Decision) -> float:
        return 1.0

    def truth(self, source_index: int) -> Any:
        return self.shelf.sample(source_index, "validation")[1]


class ShelfSimulation(Simulation):
    compute_type = ShelfCompute


class TimedCache(EdgeCache):
    """Takes its time on the simulated clock, as long as the twin counts."""

    sim: Simulation

    def answered(self, answer: PastAnswer) -> None:
        if self.cache.answered(answer):
            self.cache.kept(KEEP_S)


def halves(
    settings: CacheSection, shelf: Shelf, seed: int, **options: Any
) -> tuple[ShelfSimulation, TimedCache, CacheTable]:
    """One cache on a simulated device and in the twin. The exits make an eighth of the errors that the cost table
    says."""
    costs = stream_costs((1,))
    costs = dataclasses.replace(costs, payload_std_bytes=np.zeros(len(costs)))
    samples = [shelf.sample(index, "validation") for index in range(FRAMES)]
    shown, rng = shown_by(samples), np.random.default_rng(seed)
    right = rng.random((len(costs), FRAMES)) > (1.0 - costs.accuracy[:, None]) / 8
    label = np.where(right, shown.truth, (shown.truth + 1) % 10).astype(np.uint8)
    recorded = Recorded((label == shown.truth).astype(np.float32), np.ones(label.shape, np.float32), label)

    def timed_key(picture: Image) -> Float32s | None:
        half.sim.clock.advance(LOOK_S)
        return key_of(picture)

    half = TimedCache(settings, lambda one, other: float(one == other), timed_key)
    ShelfCompute.shelf = shelf
    half.sim = sim = ShelfSimulation(costs=costs, recorded=recorded, shortcuts=[half], **options)
    half.clock, search = sim.clock, half.cache.nearest

    def timed_search(key: Float32s, now_s: float) -> Any:
        sim.clock.advance(SEARCH_S * len(half.cache.store))
        return search(key, now_s)

    half.cache.nearest = timed_search  # type: ignore[method-assign]
    return sim, half, CacheTable(settings.rules(), shown, costs, label)


@pytest.mark.parametrize(
    "settings",
    [
        CacheSection(size="32MB", agreement=0.9),
        CacheSection(size="32MB", threshold=0.1),
        CacheSection(size="64kB", eviction="lru", ttl_s=5.0),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_frame_ends_in_the_twin_as_on_the_device(
    settings: CacheSection, seed: int, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random decisions over a random uplink, with replies that come late, and fallbacks."""
    monkeypatch.setattr("runtime.device.emulation.HEAD_NOISE_FRAC", 0.0)
    rng = np.random.default_rng(seed)
    sim, half, table = halves(
        settings,
        shelf,
        seed,
        device_slowdown=8.0,
        uplink_bps=list(np.exp(rng.normal(np.log(2e6), 0.6, 20))),
        fps=rng.uniform(8, 25),
        deadline_s=rng.uniform(0.1, 0.3),
        frames=FRAMES,
    )
    outcomes = assert_same(sim, rng.choice(len(sim.costs), FRAMES), [table])
    assert Status.CACHED in {outcome.status for outcome in outcomes}
    assert half.cache.counts.hits == sum(outcome.status is Status.CACHED for outcome in outcomes)


# The bundle ----------------------------------------------------------------------------------------------------


def setup_of(repetition: float | None = 0.8, cache: CacheSection = ON, **range_: Any) -> Setup:
    bank = builtin_traces("test")
    techniques = Techniques(cache=cache)
    return open_setup("garments", bank, "validation", range_, "shipped", techniques=techniques, repetition=repetition)


def played(setup: Setup, frames: int, model: str = "vgg") -> tuple[float, float]:
    """Share of cached frames, and mean score of all, of one device that runs the last exit of a model."""
    decisions = setup.costs.space.decisions
    rows = [row for row, d in enumerate(decisions) if (d.model, d.resolution_px, d.payload) == (model, 28, "none")]
    row = max(rows, key=lambda row: decisions[row].exit_branch)
    twin = setup.twin()
    state = twin.reset(scenarios=[Scenario(frames=frames, fps=10.0, deadline_s=0.3, device_slowdown=20.0)])
    controller, score, cached, done = FixedRow("pinned", row), 0.0, 0, False
    while not done:
        state, record = twin.step(controller.decide(state))
        score += float(record.score[0]) + float(record.reused.score.sum())
        cached, done = cached + len(record.reused.env), bool(record.done[0])
    return cached / frames, score / frames


def test_the_twin_finds_about_what_a_device_finds_with_fresh_answers_to_changed_pictures(shelf: Shelf) -> None:
    """Recorded are the answers to pictures as they are, and a device sees them changed."""
    frames = 1000
    bundle, _ = open_pair(None, shelf)
    segments = Segments(bundle, shelf)
    alone = [d for d in bundle.space.decisions if (d.model, d.resolution_px, d.payload) == ("vgg", 28, "none")]
    decision, cache = max(alone, key=lambda d: d.exit_branch), EdgeCache(ON, shelf.score, clock=lambda: 0.0)
    hits = score = 0.0
    for index in range(frames):
        picture, truth = shelf.sample(index, "validation")
        now_s = 0.1 * index
        reuse = cache.try_answer(Frame(index, index, now_s), Context(now_s, None, lambda p=picture: p))  # type: ignore[arg-type,misc]
        if reuse is not None and reuse.answer is not None:
            hits, answer = hits + 1, reuse.answer.prediction
        else:
            answer = segments.answer(segments.whole(picture, decision), decision)
            cache.answered(PastAnswer(index, now_s + 0.02, answer))
        score += shelf.score(answer, truth)
    found, mean = played(setup_of(), frames)
    assert found == pytest.approx(hits / frames, abs=0.08)
    assert mean == pytest.approx(score / frames, abs=0.03)


def test_a_stream_that_repeats_is_the_same_with_and_without_a_cache() -> None:
    setup = setup_of()
    without = setup.less([CACHE])
    assert CACHE in setup.technique_names
    assert CACHE not in without.technique_names
    assert without.pictures.shown is None
    assert not without.twin_shortcuts
    assert (without.recorded.score == setup.recorded.score).all()
    assert played(without, 50)[0] == 0.0


def test_a_fork_remembers_for_itself(shelf: Shelf) -> None:
    """Two forks of one device go on apart: what the one learns the other does not know."""
    setup = setup_of(cache=CacheSection(size="32MB", threshold=0.1, verify_frac=0.0))
    twin = setup.twin()
    twin.reset(scenarios=[Scenario(frames=60, device_slowdown=20.0, deadline_s=0.3)])
    fork, _ = twin.fork(np.array([0, 0]))
    caches = fork._shortcuts._memories[0]["cache"]
    assert isinstance(caches[0], AnswerCache)
    assert len({id(cache) for cache in (*caches, twin._shortcuts._memories[0]["cache"][0])}) == 3


def test_samples_without_a_key_are_run() -> None:
    dark = np.zeros((28, 28), np.uint8)
    shown = shown_by([(dark, 1), (np.arange(784, dtype=np.uint8).reshape(28, 28), 2)])
    assert shown.has_key.tolist() == [False, True]
    costs = stream_costs((1,))
    table = CacheTable(ON.rules(), shown, costs, np.ones((len(costs), 2), np.uint8))
    memory = np.zeros(1, CacheTable.memory)
    one = np.zeros(1)
    asked = Asked(
        np.array([0]), np.array([0]), np.array([0]), one, one, one + 1, one + 1, one > 1, one, one, np.zeros((1, 0))
    )
    verdict = table.verdict(asked, memory)
    assert not verdict.stands.any()
    assert memory["cache"][0].counts.keyless == 1


@pytest.mark.parametrize(
    ("workload", "given", "expected"),
    [
        ("campus", {"techniques": Techniques(cache=ON)}, "got --cache for campus, whose bundle has no answers, only"),
        ("campus", {"repetition": 0.5}, "got a repetition with the workload 'campus', whose samples come as they are"),
    ],
)
def test_what_a_bundle_cannot_replay_is_refused(workload: str, given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        open_setup(workload, builtin_traces("test"), "test", profile="shipped", **given)


def test_keys_are_those_of_the_changed_pictures(shelf: Shelf) -> None:
    setup = setup_of()
    assert isinstance(setup.pictures.shown, ShownSamples)
    items = shelf.items("validation")
    first, again = next((a, b) for b in range(len(items)) for a in range(b) if items[a] == items[b])
    one, other = setup.pictures.shown.keys[first], setup.pictures.shown.keys[again]
    assert (one != other).any()
    assert float(one @ other) > 0.95
