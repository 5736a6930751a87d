"""What a candidate is worth when the twin plays it out: what the same decisions earn when they are really taken."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from support.stream import stream_costs, stream_recorded
from support.twins import traces

from agents.learn.branches import branch_values
from controller.controllers.learned import FrozenPolicy
from controller.features.formula import Features
from controller.records import Floats, Ints
from controller.reuse import Answers, PastAnswer
from controller.scenario import ScenarioRange
from envs.twin.twin import Twin

FRAMES, GAMMA, WEIGHT = 30, 0.9, 0.7
RANGE = ScenarioRange(
    fps=(5.0, 20.0), deadline_s=(0.05, 0.3), device_slowdown=(5.0, 100.0), uplink_share_frac=(0.01, 0.1), frames=80
)


class Fixed:
    """Decides by what it sees, whatever that is."""

    def decide(self, context: Floats, candidates: Floats) -> Ints:
        rows = np.abs(1e4 * context.sum(axis=1)).astype(np.int64) % candidates.shape[1]
        return np.asarray(rows)


def test_a_branch_earns_what_its_decisions_earn_in_the_twin_itself() -> None:
    costs, batch = stream_costs(), 16
    twin = Twin(costs, traces(), cast(Any, stream_recorded()), RANGE, batch, 3, reward="expected")
    policy, features = cast(FrozenPolicy, Fixed()), Features(costs, RANGE.utility)
    state, answers, interval = twin.reset(), [Answers() for _ in range(batch)], twin.frame + 0.0
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
                answers[b].add(PastAnswer(first, out_s, record.answer_row[b]))
            inside = np.arange(first, first + count) - begins[b]
            if step >= 8:
                own = GAMMA ** inside[inside < FRAMES]
                expected[b] += (record.reward[b] / count * own).sum()
    for b in range(batch):
        for frame in range(RANGE.frames):
            newest = answers[b].newest_at((frame + 1e-9) * interval[b])
            if newest is not None:
                seen[b, frame] = costs.accuracy_at(frame - newest.frame)[newest.prediction]
        ahead = seen[b, begins[b] + 1 : begins[b] + FRAMES + 1]
        expected[b] += WEIGHT * (ahead * GAMMA ** np.arange(len(ahead))).sum()
    lasts = begins + FRAMES < RANGE.frames
    assert lasts.sum() > batch / 2
    np.testing.assert_allclose(value[lasts], expected[lasts], rtol=1e-6)
