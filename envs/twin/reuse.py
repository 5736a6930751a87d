"""Frames that a shortcut answers: the only part of a step that is not compiled, because shortcuts are Python objects.

Before a frame is decided, each shortcut is asked in turn whether an earlier answer may stand for the frame
(``controller.reuse``); if one says so, the next frame is up. Each question takes device time. Frames that a decision's
stride covers are those of ``envs.twin.frame.skip_frames``.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from controller.records import STATUSES, Floats, Ints
from controller.reuse import in_time
from controller.timeline import OUTCOME_ALPHA
from envs.twin.drive import look_at_frames, pass_over
from envs.twin.record import Reused
from envs.twin.shortcut import Asked, TableShortcut
from envs.twin.state import Environment
from envs.twin.tables import TwinTables, aged_score, sample_of


class Shortcuts:
    """The shortcuts of one twin. Owns what they remember of each environment."""

    def __init__(self, members: Sequence[TableShortcut], batch: int) -> None:
        self._members = tuple(members)
        self._memories = [np.zeros(batch, member.memory) for member in members]

    def __bool__(self) -> bool:
        return bool(self._members)

    def taken(self, rows: Ints) -> Shortcuts:
        """The same shortcuts with copies of what they remember of the given environments."""
        taken = Shortcuts(self._members, 0)
        taken._memories = [_copied(memory[rows]) for memory in self._memories]
        return taken

    def begin(self, t: TwinTables, batch: Environment, rows: Ints) -> None:
        """Episodes begin in the given environments. Nothing is known yet, but the first frame is looked at too."""
        for memory in self._memories:
            memory[rows] = np.zeros((), memory.dtype)
        if self._members:
            first = self._ask(t, batch, rows)
            assert not len(first.env), "a shortcut answered the first frame of an episode"

    def ask(self, t: TwinTables, batch: Environment, records: Any) -> Reused:
        """Go on to the next frame that no shortcut answers, in every environment. Returns the frames that were
        passed."""
        passed = [self._ask(t, batch, np.arange(len(records)))]
        while len(passed[-1].env):
            env, frame, _, score, energy_j = passed[-1]
            records["passed_frames"][env] += 1
            records["reused_frames"][env] += 1
            records["reused_score"][env] += score
            records["reused_energy_j"][env] += energy_j
            pass_over(t, batch, env, frame + 1, records)
            passed.append(self._ask(t, batch, env))
        return Reused(*(np.concatenate(columns) for columns in zip(*passed, strict=True)))

    def _ask(self, t: TwinTables, batch: Environment, env: Ints) -> Reused:
        """Of the coming frames of these environments those that a shortcut answers; the first that does counts."""
        env = env[batch.state["frame"][env] < batch.conditions["frames"][env]]
        asked = _asked(t, batch, env)
        reason, score, look_s = np.full(len(env), -1), np.zeros(len(env)), np.zeros(len(env))
        motion = np.full(len(env), np.nan)
        for member, memory in zip(self._members, self._memories, strict=True):
            left = np.flatnonzero(reason < 0)
            question = Asked._make(column[left] for column in asked)
            stands, own_score, own_motion, own_look_s = member.verdict(question, memory)
            if own_motion is not None:
                motion[left] = np.where(np.isnan(motion[left]), own_motion, motion[left])
            look_s[left] += member.look_s if own_look_s is None else own_look_s
            stands = stands & question.has_answer if own_score is None else stands
            found = left[stands]
            reason[found] = STATUSES.index(member.reason)
            score[found] = _newest_score(t, question, stands) if own_score is None else own_score[stands]
        energy_j = self._look(t, batch, env, look_s)
        answered = np.flatnonzero(reason >= 0)
        batch.state["motion"][env] = motion
        batch.state["reused_frac"][env] += OUTCOME_ALPHA * ((reason >= 0) - batch.state["reused_frac"][env])
        return Reused._make(column[answered] for column in (env, asked.frame, reason, score, energy_j))

    def _look(self, t: TwinTables, batch: Environment, env: Ints, look_s: Floats) -> Floats:
        """Let the questions take their time. Returns the energy of each."""
        took_s = np.zeros(len(env))
        if look_s.any():
            look_at_frames(t, batch, env, look_s, took_s)
        return t.compute_power_w * took_s


def _copied(memory: Any) -> Any:
    """Records that share nothing with the given ones, whatever rows were named twice."""
    for name in memory.dtype.names or ():
        if memory.dtype[name].hasobject:
            memory[name] = [deepcopy(kept) for kept in memory[name]]
    return memory


def _asked(t: TwinTables, batch: Environment, env: Ints) -> Asked:
    conditions, state, answers = batch.conditions[env], batch.state[env], batch.answers[env]
    out = answers["out_s"] <= state["now_s"][:, None]
    newest = answers[np.arange(len(env)), out.argmax(axis=1)]
    wait_s = np.maximum(newest["out_s"] - state["capture_s"], 0.0)
    has_answer = out.any(axis=1) & in_time(wait_s, conditions["deadline_s"])
    frame = state["frame"]
    sample = sample_of(t, conditions, frame)
    slowdown = conditions["device_slowdown"] * batch.device_pace[env, _second(batch, state["now_s"])]
    times = state["now_s"], state["capture_s"], conditions["deadline_s"], slowdown
    return Asked(env, frame, sample, *times, has_answer, frame - newest["frame"], newest["row"], answers)


def _second(batch: Environment, now_s: Floats) -> Ints:
    """(N,) where a moment stands in the series of a batch; see ``envs.twin.state.at_second``."""
    return np.minimum(now_s, batch.device_pace.shape[1] - 1.0).astype(np.int64)


def _newest_score(t: TwinTables, asked: Asked, which: Any) -> Floats:
    """Recorded scores of the newest answers on the frames that they stand for."""
    age = asked.age[which]
    return np.asarray(aged_score(t, asked.row[which], (asked.sample[which] - age) % t.samples, age))
