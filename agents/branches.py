"""What would a decision have led to, if the policy went on from there? The twin plays it out.

From one decision point several candidates are tried, each on a copy of the device with the same luck ahead of it, and
the policy decides what follows. The difference between two candidates is then what one of them really brings: the
frames it makes late or drops, and what it lets the device know of the uplink, are all paid for. To fit a policy to such
values is policy iteration by rollouts (Lagoudakis and Parr, 2003).
"""

from __future__ import annotations

import numpy as np

from agents.semi_markov import discounted
from controller.costs import CostTable
from controller.features import Features
from controller.outlook import streaming_at
from controller.policy import FrozenPolicy
from controller.records import Floats, Ints, SystemState
from envs.transition import StepRecord
from envs.twin import Twin


def branch_values(
    twin: Twin, policy: FrozenPolicy, candidates: Ints, frames: int, gamma: float, streaming_weight: float
) -> Floats:
    """(B, K) utility over the next ``frames`` frames, discounted per frame, of taking each of ``candidates`` (B, K).

    Streaming accuracy counts with its weight where samples are a stream. Episodes that end sooner have less to
    gain: compare only rows of which ``twin.frames_left`` is at least ``frames``.
    """
    batch, tried = candidates.shape
    branch, state = twin.fork(np.repeat(np.arange(batch), tried))
    features = Features(twin.costs, twin.range.utility)
    value, place = np.zeros(batch * tried), np.arange(batch * tried)
    passed, rows = np.zeros(batch * tried, np.int64), candidates.reshape(-1)
    while len(place):
        following, record = branch.step(rows)
        took, earned = record.frames, record.reward
        if twin.costs.lagged_accuracy is not None:
            earned = earned + streaming_weight * took * _streaming(twin.costs, state, record)
        counted = np.minimum(took, frames - passed)
        value[place] += gamma**passed * discounted(earned * counted / took, counted, gamma)
        passed = passed + took
        goes_on = np.flatnonzero((passed < frames) & ~record.done)
        if len(goes_on) < len(place):
            place, passed = place[goes_on], passed[goes_on]
            branch, following = branch.fork(goes_on)
        state = following
        if len(place):
            rows = policy.decide(*features.of(state))
    return value.reshape(batch, tried)


def _streaming(costs: CostTable, state: SystemState, record: StepRecord) -> Floats:
    """(B,) streaming accuracy per frame of what was answered."""
    return streaming_at(costs, record.answer_row, record.latency_s / state.frame_interval_s)
