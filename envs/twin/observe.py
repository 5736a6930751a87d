"""What the device knows at its decision point, and what only the twin knows."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from controller.predict.uplink import FLOOR_BPS
from controller.records import NO_ROW, UPLINK_HISTORY, SystemState
from controller.timeline import believed_frac
from envs.twin.frame import follow_decision, newest_out, noise_of, path_of
from envs.twin.last_moment import mec_slowdown
from envs.twin.regions import aimed, crop_column
from envs.twin.state import Environment, link_is_down, record_type, sample_place
from envs.twin.tables import TwinTables, sample_of

_HISTORIES = ("uplink_bps", "uplink_sample_bytes", "uplink_sample_age_s")
_KINDS = {"Floats": "f8", "Ints": "i8", "Bools": "?", "Floats | None": "f8"}
_ORACLE = "true_latency_s"
#: The fields of a SystemState, but for what only an oracle knows. Not a number stands for what is not known.
SEEN = record_type(
    **{
        field.name: (kind, (UPLINK_HISTORY,)) if field.name in _HISTORIES else kind
        for field in fields(SystemState)
        if field.name != _ORACLE and (kind := _KINDS.get(str(field.type)))
    }
)


def observe_state(t: TwinTables, env: Environment, seen: Any) -> None:
    """Fill ``seen`` (SEEN)."""
    conditions, state = env.conditions, env.state
    seen.deadline_s, seen.capture_period_s = conditions.deadline_s, conditions.capture_period_s
    seen.frame_age_s = state.now_s - state.capture_s
    seen.rtt_s = conditions.rtt_s + t.calibration.overhead_s
    seen.device_slowdown = state.device_slowdown
    seen.queued_frames, seen.in_flight = state.queued, in_flight(env)
    seen.link_up = not link_is_down(state, state.now_s)
    seen.on_time_frac, seen.fallback_frac = state.on_time_frac, state.fallback_frac
    seen.motion, seen.reused_frac = state.motion, state.reused_frac
    observe_answer(t, env, seen)
    observe_uplink(env, seen)
    observe_mec(env, seen)
    observe_replies(env, seen)


def in_flight(env: Environment) -> int:
    """How many frames wait for the MEC."""
    count = 0
    for k in range(len(env.requests)):
        count += env.requests[k].release_s > env.state.now_s
    return count


def observe_uplink(env: Environment, seen: Any) -> None:
    """Samples, newest first, and what has not crossed yet."""
    state, newest = env.state, env.samples[sample_place(env.state.heard - 1)]
    known = state.heard >= UPLINK_HISTORY
    first = min(state.heard, UPLINK_HISTORY) - 1  # number of the first sample, or of what stands for it
    for k in range(UPLINK_HISTORY):
        sample = env.samples[sample_place(max(state.heard - 1 - k, first))]
        seen.uplink_bps[k] = sample.uplink_bps if known else FLOOR_BPS
        seen.uplink_sample_bytes[k] = sample.sample_bytes if known else 0.0
        seen.uplink_sample_age_s[k] = state.now_s - sample.at_s
    seen.uplink_sample_count = state.heard - (UPLINK_HISTORY - 1)
    seen.uplink_age_s = state.now_s - newest.at_s
    lost_bytes = state.lost_bytes if state.now_s >= state.down_from_s else 0.0
    seen.uplink_backlog_bytes = state.sent_bytes - max(newest.sent_bytes, lost_bytes)


def observe_mec(env: Environment, seen: Any) -> None:
    """What the last replies reported; an old report counts less."""
    state, newest = env.state, env.samples[sample_place(env.state.heard - 1)]
    seen.mec_age_s = state.now_s - newest.reply_s
    believed = believed_frac(seen.mec_age_s)
    total_s = 0.0
    for k in range(UPLINK_HISTORY):
        total_s += env.samples[sample_place(state.heard - 1 - k)].queue_s
    seen.mec_queue_s = newest.queue_s * believed
    seen.mec_queue_mean_s = total_s * (1.0 / UPLINK_HISTORY * believed)
    seen.mec_slowdown = mec_slowdown(env, state.heard, state.now_s)


def observe_replies(env: Environment, seen: Any) -> None:
    """How long the last reply took, and how long the oldest request without one has waited."""
    state, newest = env.state, env.samples[sample_place(env.state.heard - 1)]
    seen.replied_row, seen.replied_s = newest.row, newest.reply_s - newest.begin_s
    seen.waiting_row, seen.waiting_s = NO_ROW, 0.0
    next_heard = env.samples[sample_place(state.heard)]
    if state.heard < state.told and next_heard.at_s == next_heard.reply_s:  # the echo of a probe is no reply
        seen.waiting_row, seen.waiting_s = next_heard.row, max(state.now_s - next_heard.begin_s, 0.0)
    elif state.now_s < state.down_from_s and state.lost_row != NO_ROW:  # nobody knows yet that it is lost
        seen.waiting_row, seen.waiting_s = state.lost_row, max(state.now_s - state.lost_begin_s, 0.0)


def observe_answer(t: TwinTables, env: Environment, seen: Any) -> None:
    """What the newest answer that is out says of the scene."""
    seen.confidence = seen.tracked_speed = math.nan
    if len(t.expected_score) == 0:
        return
    newest = newest_out(env, env.state.now_s)
    if newest < 0:
        return
    answer = env.answers[newest]
    place = t.decisions[answer.row].score_start + sample_of(t, env.conditions, answer.frame)
    seen.confidence = t.expected_score[place]
    if len(t.tracked_speed) > 0:
        seen.tracked_speed = t.tracked_speed[place]


def true_latencies(t: TwinTables, env: Environment, record: Any, latency_s: Any) -> None:
    """Fill ``latency_s`` (C,): capture to answer of every candidate, had it all the time it takes."""
    luck, down = noise_of(t, env), link_is_down(env.state, env.state.now_s)
    sample = sample_of(t, env.conditions, env.state.frame)
    column = crop_column(t, env)
    for row in range(t.rows):
        path = path_of(t, aimed(t, row, sample, column), sample, column)
        follow_decision(t, env, luck, path, record)
        answer_s = record.end_s
        if t.decisions[path].offload:
            answer_s = math.inf if down else record.reply_s
        latency_s[row] = answer_s - env.state.capture_s
