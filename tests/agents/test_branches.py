"""What a candidate is worth when the twin plays it out: what the same decisions earn when they are really taken."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from support import aged_streams
from support.stream import stream_costs, stream_recorded
from support.table_shortcuts import EveryThird
from support.twins import traces

from agents.learn import branches
from agents.learn.branches import branch_values
from agents.learn.forks import forked_values
from controller.controllers.learned import FrozenPolicy
from controller.controllers.scalar import fill_scores, make_lanes, policy_table
from controller.features.fast import Features
from controller.features.schema import FEATURE_SCHEMA
from controller.records import Floats
from controller.reuse import PastAnswer
from controller.scenario import ScenarioRange
from envs.twin.twin import Twin

FRAMES, GAMMA, WEIGHT = 30, 0.9, 0.7
RANGE = ScenarioRange(
    fps=(5.0, 20.0), deadline_s=(0.05, 0.3), device_slowdown=(5.0, 100.0), uplink_share_frac=(0.01, 0.1), frames=80
)


def some_policy(hidden: int = 5, deeper: int = 3, seed: int = 0) -> FrozenPolicy:
    """Random weights: it decides by what it sees, whatever that is."""
    context, candidate = len(FEATURE_SCHEMA.context), len(FEATURE_SCHEMA.candidate)
    shapes = ((context, hidden), (candidate, hidden), (hidden,), (hidden, deeper), (deeper,), (deeper,), (candidate,))
    rng = np.random.default_rng(seed)
    return FrozenPolicy(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


PARTS = {
    "stream": (stream_costs(), stream_recorded()),
    "aged": (aged_streams.costs(), aged_streams.recorded()),
}
kinds = pytest.mark.parametrize("kind", PARTS)


def some_twin(kind: str, batch: int, seed: int = 3) -> Twin:
    costs, recorded = PARTS[kind]
    return Twin(costs, traces(), cast(Any, recorded), RANGE, batch, seed, reward="expected")


@pytest.mark.parametrize(("hidden", "deeper"), [(24, 16), (5, 3)])
def test_the_plain_scores_are_those_of_the_frozen_policy(hidden: int, deeper: int) -> None:
    policy, rng, batch, count = some_policy(hidden, deeper), np.random.default_rng(1), 3, 7
    context = rng.standard_normal((batch, len(FEATURE_SCHEMA.context))).astype(np.float32)
    candidates = rng.standard_normal((batch, count, len(FEATURE_SCHEMA.candidate))).astype(np.float32)
    table = policy_table(policy)
    lanes = make_lanes(table, batch, count)
    lanes.context[: context.shape[1]] = context.T
    lanes.candidates[: candidates.shape[2]] = candidates.reshape(batch * count, -1).T
    fill_scores(table, lanes, batch, count)
    expected = policy.scores(context, candidates)
    np.testing.assert_allclose(lanes.scores.reshape(batch, count), expected, rtol=1e-4, atol=1e-4)


@kinds
def test_compiled_branches_are_those_of_their_source_on_any_number_of_threads(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, policy, batch, few = some_twin(kind, 24), some_policy(), 24, 2
    state, features = twin.reset(), Features(twin.costs, RANGE.utility)
    for _ in range(6):
        state, _ = twin.step(policy.decide(*features.of(state)))
    candidates = np.random.default_rng(0).permuted(np.tile(np.arange(len(twin.costs)), (batch, 1)), axis=1)[:, :few]

    def values(threads: int) -> Floats:
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        return branch_values(twin, policy, candidates, 8, GAMMA, WEIGHT)

    one = values(1)
    np.testing.assert_array_equal(values(3), one)
    monkeypatch.setattr(branches, "play_states", branches.play_states.plain)
    np.testing.assert_allclose(values(1), one, rtol=1e-9)


@kinds
def test_forks_that_are_stepped_earn_what_compiled_branches_do(kind: str) -> None:
    twin, policy = some_twin(kind, 12), some_policy()
    state, features = twin.reset(), Features(twin.costs, RANGE.utility)
    for _ in range(12):
        state, _ = twin.step(policy.decide(*features.of(state)))
    candidates = np.random.default_rng(0).integers(0, len(twin.costs), (12, 3))
    expected = branch_values(twin, policy, candidates, FRAMES, GAMMA, WEIGHT)
    found = forked_values(twin, policy, candidates, FRAMES, GAMMA, WEIGHT)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_in_a_twin_with_shortcuts_branches_know_of_them() -> None:
    costs, recorded = PARTS["stream"]
    policy, found = some_policy(), []
    for shortcuts in ([], [EveryThird()]):
        twin = Twin(costs, traces(), cast(Any, recorded), RANGE, 8, 3, reward="expected", shortcuts=shortcuts)
        twin.reset()
        for _ in range(4):
            twin.step(np.zeros(8, np.int64))
        found.append(branch_values(twin, policy, np.zeros((8, 2), np.int64), FRAMES, GAMMA, WEIGHT))
        np.testing.assert_array_equal(found[-1][:, 0], found[-1][:, 1])
    assert np.isfinite(found[1]).all()
    assert (found[0] != found[1]).any()


@kinds
def test_a_branch_earns_what_its_decisions_earn_in_the_twin_itself(kind: str) -> None:
    costs, batch, twin, policy = PARTS[kind][0], 16, some_twin(kind, 16), some_policy()
    features = Features(costs, RANGE.utility)
    state, answers, interval = twin.reset(), [list[PastAnswer]() for _ in range(batch)], twin.frame + 0.0
    seen = np.zeros((batch, RANGE.frames))
    value, expected, begins = np.zeros(batch), np.zeros(batch), np.zeros(batch, np.int64)
    for step in range(80):
        rows = policy.decide(*features.of(state))
        if step == 8:  # by now answers are under way
            begins = twin.frame.copy()
            value = branch_values(twin, policy, rows[:, None], FRAMES, GAMMA, WEIGHT)[:, 0]
        interval = state.capture_period_s
        state, record = twin.step(rows)
        for b in range(batch):
            first, count = int(record.frame[b]), int(record.frames[b])
            if first >= RANGE.frames:
                continue
            if record.answered[b]:
                out_s = record.capture_s[b] + record.latency_s[b]
                answers[b].append(PastAnswer(first, out_s, record.answer_row[b]))
            inside = np.arange(first, first + count) - begins[b]
            if step >= 8:
                own = GAMMA ** inside[inside < FRAMES]
                expected[b] += (record.reward[b] / count * own).sum()
    for b in range(batch):
        for frame in range(RANGE.frames):
            out = [answer for answer in answers[b] if answer.out_s <= (frame + 1e-9) * interval[b]]
            if newest := max(out, key=lambda answer: answer.frame, default=None):
                seen[b, frame] = costs.accuracy_at(frame - newest.frame)[newest.prediction]
        ahead = seen[b, begins[b] + 1 : begins[b] + FRAMES + 1]
        expected[b] += WEIGHT * (ahead * GAMMA ** np.arange(len(ahead))).sum()
    lasts = begins + FRAMES < RANGE.frames
    assert lasts.sum() > batch / 2
    np.testing.assert_allclose(value[lasts], expected[lasts], rtol=1e-6)
