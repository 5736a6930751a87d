"""Frames that a shortcut answers: the only part of a step that is not compiled, because shortcuts are Python objects.

Before a frame is decided, each shortcut is asked in turn whether the newest answer that is out by then may stand for
the frame (``controller.reuse``); if one says so, the next frame is up. Frames that a decision's stride covers are those
of ``envs.twin.frame.skip_frames``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.records import STATUSES
from controller.reuse import in_time
from envs.twin.drive import pass_over
from envs.twin.record import Reused
from envs.twin.state import Environment
from envs.twin.tables import TableShortcut, TwinTables, aged_score, sample_of


def ask_shortcuts(t: TwinTables, batch: Environment, shortcuts: Sequence[TableShortcut], records: Any) -> Reused:
    """Go on to the next frame that no shortcut answers, in every environment. Returns the frames that were passed."""
    passed = [_ask(t, batch, shortcuts)]
    while len(passed[-1].env):
        env, frame, _, score = passed[-1]
        records["passed_frames"][env] += 1
        records["reused_frames"][env] += 1
        records["reused_score"][env] += score
        pass_over(t, batch, env, frame + 1, records)
        passed.append(_ask(t, batch, shortcuts))
    return Reused(*(np.concatenate(columns) for columns in zip(*passed, strict=True)))


def _ask(t: TwinTables, batch: Environment, shortcuts: Sequence[TableShortcut]) -> Reused:
    """The coming frames that a shortcut answers; the first that does counts."""
    conditions, state = batch.conditions, batch.state
    out = batch.answers["out_s"] <= state["now_s"][:, None]
    newest = batch.answers[np.arange(len(out)), out.argmax(axis=1)]
    frame, sample = state["frame"], sample_of(t, conditions, state["frame"])
    may = out.any(axis=1) & (frame < conditions["frames"])
    may &= in_time(np.maximum(newest["out_s"] - state["capture_s"], 0.0), conditions["deadline_s"])
    reason = np.full(len(frame), -1)
    for shortcut in reversed(shortcuts):
        stands = shortcut.stands(frame, sample, frame - newest["frame"])
        reason[may & stands] = STATUSES.index(shortcut.reason)
    env = np.flatnonzero(reason >= 0)
    frame, answer = frame[env], newest[env]
    sample = sample_of(t, conditions[env], answer["frame"])
    return Reused(env, frame, reason[env], aged_score(t, answer["row"], sample, frame - answer["frame"]))
