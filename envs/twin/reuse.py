"""What do the frames answer that are not run? The newest boxes that were out when each was captured.

A decision with an interval of n answers n frames. When it is taken everything about the n - 1 others is settled: they
are captured on the clock, and when each earlier answer comes is known. The record counts them at once.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from controller.records import Floats, Ints
from envs.twin.conditions import Conditions
from envs.twin.record import Answer, aged_score
from envs.twin.state import RecentAnswers, TwinState, row_numbers
from envs.twin.tables import TwinTables


class Skipped(NamedTuple):
    """(B,) each."""

    frames: Ints  # how many
    score: Floats  # of all of them; the energy is none, and they are always in time


@cache
def nothing_skipped(batch: int) -> Skipped:
    """Not to be changed."""
    return Skipped(np.zeros(batch, np.int64), np.zeros(batch))


def with_answer(world: TwinState, answer: Answer) -> Floats:
    """The answers to choose from once this frame's is among them, if there is one; the oldest is forgotten."""
    answers = np.empty_like(world.answers)
    answers[:, 1:] = world.answers[:, :-1]
    answers[RecentAnswers.OUT_S, 0] = answer.settled_s
    answers[RecentAnswers.FRAME, 0] = world.frame
    answers[RecentAnswers.ROW, 0] = answer.row
    return np.where(answer.silent, world.answers, answers) if np.count_nonzero(answer.silent) else answers


def skip(rules: TwinTables, conditions: Conditions, world: TwinState, answers: Floats, following: Ints) -> Skipped:
    """The frames between this one and ``following``, the next that may be run; an episode may end before it."""
    count = np.minimum(following, conditions.frames) - world.frame - 1
    batch = row_numbers(len(count))
    total = np.zeros(len(count))
    for ahead in range(1, int(count.max(initial=0)) + 1):
        frame = world.frame + ahead
        out = answers[RecentAnswers.OUT_S] <= frame * conditions.interval_s
        newest = out.argmax(axis=0)
        source = answers[RecentAnswers.FRAME, newest, batch].astype(np.int64)
        row = answers[RecentAnswers.ROW, newest, batch].astype(np.int64)
        sample = (conditions.first_sample + source) % rules.samples
        known = out[newest, batch] & (ahead <= count)  # before the first answer there is nothing to show
        total += aged_score(rules, row, sample, frame - source) * known
    return Skipped(count, total)
