"""Estimates the values of candidate decisions by rollouts in the twin.

At one decision point several candidates are tried, each on a copy of the device that meets the same random noise; the
policy decides everything after. The difference between two candidates therefore includes the frames that a candidate
makes late or drops, and what the device learns about the uplink from it. Fitting a policy to such values is policy
iteration by rollouts (Lagoudakis and Parr, 2003).

All of it is compiled: a state's branches are played side by side, frame by frame, so that the policy scores the
candidates of all of them at once.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from agents.learn.forks import forked_values
from controller.controllers.learned import FrozenPolicy
from controller.controllers.scalar import (
    Lanes,
    PolicyTable,
    best_of,
    fill_scores,
    make_lanes,
    policy_table,
)
from controller.features.scalar import FeatureTable, feature_table, fill_features
from controller.records import Floats, Ints
from controller.streaming import TICK
from envs.twin.compiled import compiled, rule
from envs.twin.drive import environment
from envs.twin.frame import play_frame
from envs.twin.observe import SEEN, observe_state
from envs.twin.record import RECORD
from envs.twin.references import observe_references
from envs.twin.state import Environment, part_of, replace
from envs.twin.tables import TwinTables
from envs.twin.threads import over_threads
from envs.twin.twin import Twin

#: States that are worth a thread of their own.
_LEAST = 8


def branch_values(
    twin: Twin, policy: FrozenPolicy, candidates: Ints, frames: int, gamma: float, streaming_weight: float
) -> Floats:
    """Discounted utility over the next ``frames`` frames of each candidate at each decision point.

    ``candidates``: (B, K) rows of the cost table. Returns (B, K); gamma discounts per frame. On a stream, streaming
    accuracy is added with its weight. Episodes that end sooner can earn less: compare only decision points whose
    ``twin.frames_left`` is at least ``frames``. Shortcuts of the twin cannot be compiled: with them, forks are stepped.
    """
    if twin.has_shortcuts:
        return forked_values(twin, policy, candidates, frames, gamma, streaming_weight)
    is_stream = twin.costs.lagged_accuracy is not None
    rules = Rules(
        policy_table(policy),
        feature_table(twin.costs, twin.range.utility),
        np.array(twin.costs.every_path.aged_accuracy, order="C"),
        gamma ** np.arange(float(frames)),
        float(streaming_weight if is_stream else 0.0),
    )
    values, work = np.zeros(candidates.shape), partial(_play_states, rules, twin.costs.longest_stride)
    candidates = np.ascontiguousarray(candidates, np.int64)
    over_threads(work, *twin.parts, candidates, values, least=_LEAST)
    return values


class Rules(NamedTuple):
    """What is the same for every branch."""

    policy: PolicyTable
    features: FeatureTable
    aged_accuracy: Floats  # (lags, C + P) of an answer for each age in frames, by row or path
    discount: Floats  # (frames,) of each frame's utility; its length is that of a branch
    streaming_weight: float


class Branches(NamedTuple):
    """K branches of one state."""

    device: Environment  # (K,)
    row: Ints  # (K,) to be carried out next
    elapsed: Ints  # (K,) frames since the branching
    running: Ints  # (K,) numbers of the branches that go on, in front
    #: The newest answer that is out since each capture, the one of the branching first, or -1: its frame and its row.
    newest_frame: Ints  # (K, frames + 1)
    newest_row: Ints
    # Memory for one step:
    record: Any  # (2,) RECORD; the second stays blank
    skipped: Floats  # (longest stride less one,)
    seen: Any  # (1,) SEEN
    age: Ints  # (streams,) of references
    lanes: Lanes  # K states with C candidates, and the paths behind them


def _play_states(rules: Rules, longest_stride: int, t: TwinTables, batch: Environment, *arrays: Any) -> None:
    """``play_states`` with memory of its own."""
    count, frames = arrays[0].shape[1], len(rules.discount)
    memory = Branches(
        device=part_of(batch, np.zeros(count, np.int64)),
        row=np.zeros(count, np.int64),
        elapsed=np.zeros(count, np.int64),
        running=np.zeros(count, np.int64),
        newest_frame=np.zeros((count, frames + 1), np.int64),
        newest_row=np.zeros((count, frames + 1), np.int64),
        record=np.zeros(2, RECORD),
        skipped=np.zeros(longest_stride - 1),
        seen=np.zeros(1, SEEN),
        age=np.zeros(len(t.chained), np.int64),
        lanes=make_lanes(rules.policy, count, len(rules.features.sent)),
    )
    play_states(t, batch, rules, memory, *arrays)


@compiled
def play_states(t: TwinTables, batch: Environment, r: Rules, m: Branches, candidates: Ints, values: Floats) -> None:
    """Values (B, K) of the candidates (B, K) out."""
    for b in range(len(candidates)):
        begin = batch.state[b].frame
        branch_off(batch, b, m, candidates[b])
        running = len(candidates[b])
        while running > 0:
            for i in range(running):
                k = m.running[i]
                values[b, k] += step_branch(t, r, m, k, begin)
            running = those_running(m, running, len(r.discount))
            decide(t, r, m, running)
        for k in range(len(candidates[b])):
            values[b, k] += r.streaming_weight * streaming_value(r, m, k, begin)


@rule
def branch_off(batch: Environment, b: int, m: Branches, rows: Ints) -> None:
    """Make every branch a copy of environment ``b``, about to carry out its own row."""
    for k in range(len(rows)):
        replace(m.device, k, environment(batch, b))
        m.row[k], m.elapsed[k], m.running[k] = rows[k], 0, k
        m.newest_frame[k, :], m.newest_row[k, :] = -1, 0
        for i in range(batch.answers.shape[1]):
            answer = batch.answers[b, i]
            if answer.out_s < math.inf:
                show(m, k, batch.state[b].frame, answer.frame, answer.row, answer.out_s)


@rule
def step_branch(t: TwinTables, r: Rules, m: Branches, k: int, begin: int) -> float:
    """Play the row of branch ``k``. Returns the discounted utility of its frames, spread evenly over them."""
    env, record = environment(m.device, k), m.record[0]
    m.record[0] = m.record[1]
    play_frame(t, env, m.row[k], record, m.skipped)
    if not record.silent:
        show(m, k, begin, record.frame, record.answer_row, record.settled_s)
    took = 1 + record.reused_frames + record.dropped
    weight = 0.0
    for frame in range(m.elapsed[k], min(m.elapsed[k] + took, len(r.discount))):
        weight += r.discount[frame]
    m.elapsed[k] += took
    if record.done:
        m.elapsed[k] = max(m.elapsed[k], len(r.discount))
    return float(record.reward / took * weight)


@rule
def show(m: Branches, k: int, begin: int, frame: int, row: int, out_s: float) -> None:
    """Note from which capture on a viewer sees the answer, unless a newer one is out by then; ``begin`` is the frame
    of the branching."""
    captures = max(out_s / m.device.conditions[k].capture_period_s - begin, 0.0)
    if captures > len(m.newest_frame[k]):
        return
    place = math.ceil(captures - TICK)
    if place < m.newest_frame.shape[1] and frame > m.newest_frame[k, place]:
        m.newest_frame[k, place], m.newest_row[k, place] = frame, row


@rule
def streaming_value(r: Rules, m: Branches, k: int, begin: int) -> float:
    """Discounted expected streaming accuracy at each capture after that of the first decided frame."""
    frame, row, value = m.newest_frame[k, 0], m.newest_row[k, 0], 0.0
    for place in range(1, len(r.discount) + 1):
        if m.newest_frame[k, place] > frame:
            frame, row = m.newest_frame[k, place], m.newest_row[k, place]
        if frame >= 0:
            lag = min(begin + place - frame, len(r.aged_accuracy) - 1)
            value += r.discount[place - 1] * r.aged_accuracy[lag, row]
    return value


@rule
def those_running(m: Branches, running: int, frames: int) -> int:
    """Keep the branches that have frames left; returns how many."""
    kept = 0
    for i in range(running):
        if m.elapsed[m.running[i]] < frames:
            m.running[kept] = m.running[i]
            kept += 1
    return kept


@rule
def decide(t: TwinTables, r: Rules, m: Branches, running: int) -> None:
    """Let the policy choose the next row of every running branch."""
    count = len(r.features.sent)
    for i in range(running):
        first = i * count
        observe_state(t, environment(m.device, m.running[i]), m.seen[0])
        observe_references(t, environment(m.device, m.running[i]), m.age)
        fill_features(r.features, m.seen[0], m.age, m.lanes.context.T[i], m.lanes.candidates.T[first : first + count])
    fill_scores(r.policy, m.lanes, running, count)
    for i in range(running):
        m.row[m.running[i]] = best_of(m.lanes.scores, i * count, r.features.rows)
