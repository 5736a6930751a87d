"""Searches for the rows that earn most in an environment whose future is known: a beam search, compiled.

A node is a decision point: what was earned before it, and what the state of the twin is there. Strides and dropped
frames make steps of different length, so there is a bucket for each frame that may be decided next, and only nodes of
one bucket are compared. Buckets are expanded in order; a step is that of the twin itself (``envs.twin.frame``).

Of a bucket the best ``width`` nodes remain, by rank: what was earned, less a guess of what a busy device and link will
cost. A node that is in nothing better than another one is left out. That is nearly exact: what is free earlier seldom
earns less (a head that ends after the last moment of a fallback may still get the better answer of the MEC). So most
buckets hold few nodes, and a wider beam finds little more.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from controller.streaming import TICK
from envs.search import nodes
from envs.search.nodes import PLACES, SEEN, Beam, clear, keep, release
from envs.twin.compiled import compiled, inlined, rules
from envs.twin.drive import environment
from envs.twin.frame import is_refused, newest_out, play_frame
from envs.twin.state import Environment, copy_over, copy_state, sample_place
from envs.twin.tables import TwinTables, aged_score, sample_of


@inlined
def at_slot(env: Environment, w: Beam, slot: int) -> Environment:
    """The environment in a state of the pool."""
    return Environment(
        env.conditions,
        w.pool.state[slot],
        w.pool.requests[slot],
        w.pool.samples[slot],
        w.pool.answers[slot],
        w.pool.streams[slot],
        w.pool.references[slot],
        env.device_pace,
        env.mec_level,
    )


def search(t: TwinTables, env: Environment, row: int, w: Beam) -> float:
    """Most that can be earned from here on; with ``row`` first, if that is not -1. Leaves the nodes in their buckets,
    in the last one only the best."""
    last = max(min(len(w.totals) - 1, env.conditions.frames - env.state.frame), 0)
    w.searched[0].last, root = last, w.node[0]
    clear(w)
    root.earned = root.rank = 0.0
    root.parent = -1
    if last == 0:  # the episode is over
        keep_best(w)
    elif keep(w, 0):
        copy_state(w.pool, root.slot, env)
    for number in range(last):
        if w.count[number] > 0:
            for k in range(w.count[number]):
                expand(t, env, number, w.order[number, k], row if number == 0 else -1, w)
            release(w, number)
    return float(w.nodes[last, 0].rank)


def expand(t: TwinTables, env: Environment, number: int, place: int, first: int, w: Beam) -> None:
    """Try every row from a node, or only the first one. An offload that is refused becomes a local row, which is tried
    itself."""
    before, after = at_slot(env, w, w.nodes[number, place].slot), at_slot(env, w, 0)
    copy_state(w.pool, 0, before)
    for row in range(t.rows):
        if row == first or (first < 0 and not is_refused(t, before, row)):
            step(t, after, number, place, row, w)
            undo(before, w)


def step(t: TwinTables, env: Environment, number: int, place: int, row: int, w: Beam) -> None:
    """Carry a row out, and keep what comes of it if it is good."""
    last, frame, record = w.searched[0].last, env.state.frame, w.records[0]
    node, parent = w.node[0], w.nodes[number, place]
    w.records[0] = w.records[1]
    play_frame(t, env, row, record, w.skipped)
    reached = min(number + env.state.frame - frame, last)
    took = 1 + record.reused_frames + record.dropped
    counted = w.totals[min(number + took, last)] - w.totals[number]
    node.earned = parent.earned + record.reward * (counted / took)
    for capture in range(number + 1, reached + 1):
        if w.streaming_weight > 0 and frame - number + capture < env.conditions.frames:
            seen = seen_at(t, env, frame - number + capture)
            node.earned += w.streaming_weight * seen * (w.totals[capture] - w.totals[capture - 1])
    node.parent, node.row = number * w.order.shape[1] + place, row
    compare_by(t, env, w, w.totals[reached] - w.totals[reached - 1])
    if reached == last:
        keep_best(w)
    elif keep(w, reached):
        copy_state(w.pool, node.slot, env)


def undo(before: Environment, w: Beam) -> None:
    """Make the state in number 0 of the pool what it was before the step; only the newest samples have changed."""
    w.pool.state[0].told, told = before.state.told, w.pool.state[0].told
    for number in range(before.state.told, told):
        w.pool.samples[0, sample_place(number)] = before.samples[sample_place(number)]
    w.pool.state[0] = before.state
    copy_over(w.pool.requests[0], before.requests)
    copy_over(w.pool.answers[0], before.answers)
    copy_over(w.pool.streams[0], before.streams)
    copy_over(w.pool.references[0], before.references)


def seen_at(t: TwinTables, env: Environment, capture: int) -> float:
    """Score of what a viewer sees at the capture of a frame."""
    newest = newest_out(env, (capture + TICK) * env.conditions.capture_period_s)
    if newest < 0:
        return 0.0
    answer = env.answers[newest]
    return float(aged_score(t, answer.row, sample_of(t, env.conditions, answer.frame), capture - answer.frame))


def compare_by(t: TwinTables, env: Environment, w: Beam, counts: float) -> None:
    """Fill in by what the node is compared; ``counts`` is what a frame counts for here."""
    ranking, node, state, period_s = w.ranking, w.node[0], env.state, env.conditions.capture_period_s
    node.now_s = state.now_s
    node.link_s = max(state.crossed_s, state.down_until_s, state.now_s)
    node.mec_s = max(state.done_s, state.now_s)
    node.owed_s = 0.0
    for k in range(len(env.requests)):
        if env.requests[k].fallback_s > state.now_s and env.requests[k].fallback_s < np.inf:
            node.owed_s += env.requests[k].fallback_busy_s
    for k in range(PLACES):
        place = (state.sent + k) % len(env.requests)
        node.place_s[k] = max(env.requests[place].release_s, state.now_s)
    device = min((state.now_s - state.capture_s) / period_s, ranking.most_periods)
    link = min((node.link_s - state.now_s) / period_s, ranking.most_periods)
    guess = -ranking.device_penalty * device - ranking.link_penalty * link
    for k in range(SEEN + 1):
        later = 1 + k if k < SEEN else len(t.aged_score) + SEEN
        node.seen[k] = seen_at(t, env, state.frame + later) if t.reuses else 0.0
        guess += (ranking.seen_weight if k < SEEN else ranking.old_weight) * node.seen[k]
    node.rank = node.earned
    if state.frame < env.conditions.frames:
        node.rank += counts * guess


def keep_best(w: Beam) -> None:
    """Keep the node that is tried in the last bucket if it is the best one there."""
    last = w.searched[0].last
    if w.count[last] == 0 or w.node[0].rank > w.nodes[last, 0].rank:
        w.count[last] = 1
        w.nodes[last, 0] = w.node[0]


@compiled
def search_all(t: TwinTables, batch: Environment, w: Beam, first: Any, best: Any, rows: Any) -> None:
    """Search from every environment with each of its first rows (B, K), or freely where that is -1. Out: the most that
    can be earned (B, K), and the row that does so at each frame from the present one on (B, K, F), -1 where none is
    decided."""
    for b in range(len(first)):
        for k in range(first.shape[1]):
            best[b, k] = search(t, environment(batch, b), first[b, k], w)
            trace_back(w, rows[b, k])


def trace_back(w: Beam, rows: Any) -> None:
    """The rows on the way to the best node."""
    for k in range(len(rows)):
        rows[k] = -1
    node = w.nodes[w.searched[0].last, 0]
    while node.parent >= 0:
        rows[node.parent // w.order.shape[1]] = node.row
        node = w.nodes[node.parent // w.order.shape[1], node.parent % w.order.shape[1]]


rules(nodes, sys.modules[__name__])
