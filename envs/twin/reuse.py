"""Frames that the twin does not run because an earlier answer stands for them (``controller.reuse``).

Two moments, as on the device. A decision's frame stride covers the frames that follow it: each has the newest answer
that was out when it was captured. And before a frame is decided, each of ``TwinTables.shortcuts`` is asked in turn
whether the newest answer that is out by then may stand for it; if one says so, the next frame is up.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, Protocol

import numpy as np

from controller.records import STATUSES, Bools, Floats, Ints, Status
from controller.reuse import in_time
from envs.twin.conditions import Conditions
from envs.twin.record import Answer, Reused, aged_score
from envs.twin.state import RecentAnswers, TwinState, row_numbers
from envs.twin.tables import TwinTables

_SKIPPED = STATUSES.index(Status.SKIPPED)


class _Newest(NamedTuple):
    """The newest answer that is out, for K frames."""

    known: Bools  # (K,) whether there is one
    frame: Ints  # (K,) that it was computed for
    row: Ints  # (K,) of the cost table, whose answer it is
    out_s: Floats  # (K,)


class Coming(Protocol):
    """The frames that would be decided next, (B,)."""

    @property
    def now_s(self) -> Floats: ...
    @property
    def frame(self) -> Ints: ...
    @property
    def capture_s(self) -> Floats: ...


@cache
def nothing_reused(batch: int) -> Reused:
    """Not to be changed."""
    none = np.zeros(0, np.int64)
    return Reused(none, none, none, np.zeros(0), np.zeros(batch, np.int64), np.zeros(batch))


def with_answer(world: TwinState, answer: Answer) -> Floats:
    """The answers to choose from once this frame's is among them, if there is one; the oldest is forgotten."""
    answers = np.empty_like(world.answers)
    answers[:, 1:] = world.answers[:, :-1]
    answers[RecentAnswers.OUT_S, 0] = answer.settled_s
    answers[RecentAnswers.FRAME, 0] = world.frame
    answers[RecentAnswers.ROW, 0] = answer.row
    return np.where(answer.silent, world.answers, answers) if np.count_nonzero(answer.silent) else answers


def skip(rules: TwinTables, conditions: Conditions, world: TwinState, answers: Floats, following: Ints) -> Reused:
    """The frames between this one and ``following``, the next that is not skipped; an episode may end before it."""
    count = np.maximum(np.minimum(following, conditions.frames) - world.frame - 1, 0)
    env = np.repeat(row_numbers(len(count)), count)
    frame = np.arange(1, len(env) + 1) + (world.frame - np.cumsum(count) + count)[env]
    newest = _newest_out(answers, env, frame * conditions.interval_s[env])
    return _reused(rules, conditions, env, frame, newest, np.full(len(env), _SKIPPED))


def ask(rules: TwinTables, conditions: Conditions, answers: Floats, coming: Coming) -> Reused:
    """The coming frames that a shortcut answers; the first that does counts."""
    batch = row_numbers(len(coming.frame))
    newest = _newest_out(answers, batch, coming.now_s)
    sample = (conditions.first_sample + coming.frame) % rules.samples
    may = newest.known & (coming.frame < conditions.frames)
    may &= in_time(np.maximum(newest.out_s - coming.capture_s, 0.0), conditions.deadline_s)
    reason = np.full(len(batch), -1)
    for shortcut in reversed(rules.shortcuts):
        stands = shortcut.stands(coming.frame, sample, coming.frame - newest.frame)
        reason[may & stands] = STATUSES.index(shortcut.reason)
    env = np.flatnonzero(reason >= 0)
    chosen = _Newest._make(column[env] for column in newest)
    return _reused(rules, conditions, env, coming.frame[env], chosen, reason[env])


def both(first: Reused, then: Reused) -> Reused:
    """The frames of two parts of one step."""
    return Reused(
        np.concatenate((first.env, then.env)),
        np.concatenate((first.frame, then.frame)),
        np.concatenate((first.reason, then.reason)),
        np.concatenate((first.score, then.score)),
        first.frames + then.frames,
        first.total + then.total,
    )


def _newest_out(answers: Floats, env: Ints, at_s: Floats) -> _Newest:
    """Of environment ``env`` (K,) at ``at_s`` (K,)."""
    out = answers[RecentAnswers.OUT_S][:, env] <= at_s
    slot = out.argmax(axis=0)
    out_s, frame, row = answers[:, slot, env]
    return _Newest(out[slot, row_numbers(len(env))], frame.astype(np.int64), row.astype(np.int64), out_s)


def _reused(rules: TwinTables, conditions: Conditions, env: Ints, frame: Ints, newest: _Newest, reason: Ints) -> Reused:
    """Score the answers at their age; before the first answer there is nothing to show."""
    sample = (conditions.first_sample[env] + newest.frame) % rules.samples
    score = aged_score(rules, newest.row, sample, frame - newest.frame) * newest.known
    batch = len(conditions.frames)
    total: Floats = np.bincount(env, weights=score, minlength=batch).astype(np.float64)  # an integer where K is 0
    return Reused(env, frame, reason, score, np.bincount(env, minlength=batch), total)
