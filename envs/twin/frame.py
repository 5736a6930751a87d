"""One frame of one environment, from its decision to the next decision point.

The order is that of the timeline in docs/architecture.md (``play_frame``). Everything about a
frame is settled at its decision point, because what it depends on has been settled before: the uplink and the MEC serve
in order, fallbacks run in order, and what others do does not depend on this device. What the device *knows* comes
later, when a reply or an outcome arrives (``envs.twin.observe``).
"""

from __future__ import annotations

import math
from typing import Any

from controller.fallback import fallback_row, is_hopeless, row_instead, stretched_stride
from controller.packets import wire_bytes
from controller.references import NO_STREAM
from controller.timeline import (
    GIVE_UP_DEADLINES,
    MAX_UNANSWERED,
    OUTCOME_ALPHA,
    SLOWDOWN_ALPHA,
    fallback_reserve_s,
    smooth,
)
from envs.twin.last_moment import is_overdue, waits_on
from envs.twin.link import (
    crossed_s,
    listen,
    others_work_s,
    own_work_s,
    probe_if_idle,
    send,
)
from envs.twin.references import reference_age, use_stream
from envs.twin.regions import NOT_CROPPED, aimed, crop_column
from envs.twin.state import Environment, at_second, link_is_down, timing
from envs.twin.tables import NOISE_ROWS, NOT_GATED, TwinTables, aged_score, sample_of

#: Captures are at multiples of the capture period; rounding must not hide one.
_TICK = 1e-9


def play_frame(t: TwinTables, env: Environment, row: int, record: Any, skipped: Any) -> None:
    """All of it, where no shortcut is asked in between: in ``record`` (RECORD) what becomes of the frame, in
    ``skipped`` (K,) the scores of the frames that its stride covers."""
    run_frame(t, env, row, record, skipped)
    advance(t, env, record.first, record)
    settle(t, env, record)


def run_frame(t: TwinTables, env: Environment, row: int, record: Any, skipped: Any) -> None:
    """Carry ``row`` out at the decision point."""
    state, luck = env.state, noise_of(t, env)
    record.frame, record.decided_s, record.capture_s = state.frame, state.now_s, state.capture_s
    record.sample = sample_of(t, env.conditions, state.frame)
    record.looked_s, state.looked_s = state.looked_s, 0.0
    refused = is_refused(t, env, row)
    column = crop_column(t, env)
    record.row = aimed(t, carried_out(t, env, row, refused), record.sample, column)
    if t.decisions[record.row].stream != NO_STREAM:
        use_stream(env, t.decisions[record.row].stream)
    record.path = path_of(t, record.row, record.sample, column)
    follow_decision(t, env, luck, record.path, record)
    state.device_slowdown = smooth(state.device_slowdown, load_pace(env) * luck.head, SLOWDOWN_ALPHA)
    answer_frame(t, env, luck, refused, record)
    if record.sent:
        take_place(env, record)
        send(t, env, record, env.conditions.mec_slowdown * luck.mec)
    elif t.decisions[record.row].offload:  # an exit on the way has answered
        probe_if_idle(t, env, record.end_s)
    else:
        probe_if_idle(t, env, state.now_s + t.calibration.decide_s)
    record.first = state.frame + 1
    if t.reuses:
        record.first = state.frame + covered_frames(t, env, record)
        keep_answer(env, record)
        skip_frames(t, env, record, skipped)


# The decision point -----------------------------------------------------------------------------------------


def noise_of(t: TwinTables, env: Environment) -> Any:
    """NOISE of the frame at hand: it belongs to the frame, whatever was decided before."""
    return t.noise[(env.conditions.noise_start + env.state.frame) & (NOISE_ROWS - 1)]


def load_pace(env: Environment) -> float:
    """Device time over profiled time under the present load."""
    return env.conditions.device_slowdown * at_second(env.device_pace, env.state.now_s)


def is_refused(t: TwinTables, env: Environment, row: int) -> bool:
    """Whether an offload was decided that cannot be carried out: the link is down or holds too much, all places in
    flight are taken, or a request was not answered in time and nothing has been heard since."""
    state = env.state
    if not t.decisions[row].offload:
        return False
    if link_is_down(state, state.now_s) or state.told - state.heard >= MAX_UNANSWERED:
        return True
    if next_place(env).release_s > state.now_s:
        return True
    rescues = not is_hopeless(t.local, env.conditions.deadline_s, state.device_slowdown)
    return rescues and is_overdue(t, env, state.now_s, math.inf)


def next_place(env: Environment) -> Any:
    """The place that the next request takes."""
    return env.requests[env.state.sent % len(env.requests)]


def carried_out(t: TwinTables, env: Environment, row: int, refused: bool) -> int:
    """The row that is carried out: a local one where the decision was refused, or the link is down."""
    if refused or link_is_down(env.state, env.state.now_s):
        return row_instead(t.local, timing(env, env.state.now_s), row)
    return row


# Head, uplink, MEC, reply -----------------------------------------------------------------------------------


def path_of(t: TwinTables, row: int, sample: int, column: int) -> int:
    """What becomes of a sample under a row: the row to its end, an exit on the way that is sure, or a crop at the age
    of ``column``."""
    if t.decisions[row].crop_start != NOT_CROPPED:
        return t.decisions[row].crop_start + column
    start = t.decisions[row].taken_start
    return row if start == NOT_GATED else int(t.taken[start + sample])


def follow_decision(t: TwinTables, env: Environment, luck: Any, path: int, record: Any) -> None:
    """Times of a path if it is taken now; of a device-only one, the end of its head is the answer."""
    conditions, state, decision = env.conditions, env.state, t.decisions[path]
    record.head_s = decision.head_s * (load_pace(env) * luck.head)
    record.end_s = preempted_end_s(env, state.now_s + t.calibration.decide_s + record.head_s)
    record.reply_s = math.inf
    if decision.offload:
        record.request_bytes = payload_bytes(t, env, decision, luck, record.end_s)
        record.uplink_bytes = wire_bytes(record.request_bytes)
        record.begin_s = max(record.end_s, state.crossed_s)
        record.crossed_s = crossed_s(t, conditions, record.begin_s, record.uplink_bytes)
        record.arrival_s = record.crossed_s + (conditions.rtt_s * 0.5 + t.calibration.overhead_s)
        follow_at_mec(t, env, decision.mec_s * (conditions.mec_slowdown * luck.mec), record)


def preempted_end_s(env: Environment, end_s: float) -> float:
    """The end of a head that waits for every fallback that starts before it."""
    undisturbed_s = end_s
    for _ in range(len(env.requests)):  # a head that ends later may meet one more fallback
        busy_s = 0.0
        for k in range(len(env.requests)):
            if env.state.now_s <= env.requests[k].fallback_s < end_s:
                busy_s += env.requests[k].fallback_busy_s
        if undisturbed_s + busy_s <= end_s:
            break
        end_s = undisturbed_s + busy_s
    return end_s


def payload_bytes(t: TwinTables, env: Environment, decision: Any, luck: Any, encoded_s: float) -> float:
    """As recorded for this sample and the age of the reference; around the mean where only that is known."""
    sample = (env.conditions.first_sample + env.state.frame) % t.payload_samples
    place = decision.payload_start + sample
    if decision.stream != NO_STREAM:
        age = reference_age(t, env, decision.stream, encoded_s)
        place += t.column_of_age[min(age, len(t.column_of_age) - 1)] * t.payload_samples
    usual = t.payload_bytes[place]
    return max(usual + decision.payload_std_bytes * luck.payload, 0.5 * usual)


def follow_at_mec(t: TwinTables, env: Environment, tail_s: float, record: Any) -> None:
    """Wait behind others' and own work, the tail, and the reply. A request whose wait exceeds the time that it brings
    is not served."""
    conditions, state, arrival_s = env.conditions, env.state, record.arrival_s
    level = at_second(env.mec_level, arrival_s)
    others_s = others_work_s(t, env, level, arrival_s)
    wait_s = others_s + own_work_s(env, level, arrival_s)
    record.queue_s = max(wait_s, state.done_s - arrival_s)  # in order of arrival, come what may
    record.served = record.queue_s <= max(give_up_s(env) - record.end_s, 0.0)
    record.tail_s = tail_s if record.served else 0.0
    record.done_s = arrival_s + record.queue_s + record.tail_s
    record.own_work_s = record.queue_s - others_s + record.tail_s
    record.reply_s = record.done_s + conditions.rtt_s * 0.5


# The answer -------------------------------------------------------------------------------------------------


def answer_frame(t: TwinTables, env: Environment, luck: Any, refused: bool, record: Any) -> None:
    """The first of: the local answer, the reply, the fallback; or silence."""
    state, end_s = env.state, record.end_s
    answer_by_s = state.capture_s + env.conditions.deadline_s
    due_s = answer_by_s - fallback_reserve_s(t.local.fastest_s * state.device_slowdown)
    record.sent, record.answer_row, row = t.decisions[record.path].offload, record.path, t.fastest
    given_s = record.reply_s if record.sent else end_s
    falls_back = record.sent and end_s <= due_s < record.reply_s and not waits_on(t, env, record, due_s)
    if record.sent and link_is_down(state, end_s):  # it went down under the head
        row = row_at_once(t, env, record) if end_s < due_s else row
        record.sent, given_s, falls_back, due_s = False, math.inf, end_s < answer_by_s, end_s
    start_s = max(due_s, state.fallback_end_s)
    record.fallback_s = start_s if falls_back else math.inf
    overdue_s = min(max(answer_by_s, end_s), record.fallback_s)
    record.overdue_s = overdue_s if record.reply_s > overdue_s else math.inf
    if not falls_back:
        end_frame(record, given_s, max(give_up_s(env), end_s), answer_by_s)
    elif is_hopeless(t.local, answer_by_s - start_s, state.device_slowdown):
        falls_back = False
        end_frame(record, math.inf, start_s, answer_by_s)
    else:
        record.answer_row = row
        record.fallback_busy_s = t.decisions[row].head_s * (load_pace(env) * luck.fallback)
        end_frame(record, start_s + record.fallback_busy_s, math.inf, answer_by_s)
    record.fell_back = falls_back or refused
    if record.fell_back:
        state.fallback_end_s = max(state.fallback_end_s, record.settled_s)


def give_up_s(env: Environment) -> float:
    """When a frame without an answer is given up."""
    return env.state.capture_s + GIVE_UP_DEADLINES * env.conditions.deadline_s


def end_frame(record: Any, given_s: float, given_up_s: float, answer_by_s: float) -> None:
    """The frame ends with its answer, or with silence where that comes too late."""
    record.silent = given_s > given_up_s
    record.settled_s = given_up_s if record.silent else given_s
    record.on_time = given_s <= answer_by_s


def row_at_once(t: TwinTables, env: Environment, record: Any) -> int:
    """Row of a fallback that follows its head at once."""
    state, period_s = env.state, env.conditions.capture_period_s
    stride = t.decisions[record.row].stride
    waiting = min(max(captured_by(env, record.end_s) - state.frame - stride, 0), t.queue_limit)
    share_s = (stride * period_s - record.head_s) / (1 + waiting)
    return fallback_row(t.local, timing(env, record.end_s), stride, share_s)


def captured_by(env: Environment, now_s: float) -> int:
    """How many frames of the episode have been captured."""
    last = env.conditions.frames - 1.0
    return int(min(now_s / env.conditions.capture_period_s + _TICK, last)) + 1


def take_place(env: Environment, record: Any) -> None:
    """The request takes the next place in flight."""
    request = next_place(env)
    request.release_s = min(record.settled_s, record.fallback_s)
    request.fallback_s, request.fallback_busy_s = record.fallback_s, record.fallback_busy_s
    request.settled_s, request.overdue_s = record.settled_s, record.overdue_s
    request.on_time = record.on_time
    request.fell_back = record.fell_back and record.on_time


# Frames that are not run ------------------------------------------------------------------------------------


def covered_frames(t: TwinTables, env: Environment, record: Any) -> int:
    """Frames until the next one that may be run. A fallback that begins before that one can be decided, and takes
    longer than its share of the device's time, covers those that pass meanwhile."""
    period_s, stride = env.conditions.capture_period_s, t.decisions[record.row].stride
    free_s = max(record.end_s, (env.state.frame + stride) * period_s)
    if record.fallback_busy_s > 0 and record.fallback_s <= free_s:
        share_s = stride * period_s - record.head_s
        return stretched_stride(t.local, timing(env, record.fallback_s), stride, record.answer_row, share_s)
    return stride


def keep_answer(env: Environment, record: Any) -> None:
    """Put the answer before those of earlier frames, if there is one; the oldest is forgotten."""
    if record.silent:
        return
    answers = env.answers
    for k in range(len(answers) - 1, 0, -1):
        answers[k] = answers[k - 1]
    answers[0].out_s, answers[0].frame, answers[0].row = record.settled_s, record.frame, record.answer_row


def skip_frames(t: TwinTables, env: Environment, record: Any, skipped: Any) -> None:
    """Each frame between this one and the next that may be run has the newest answer that was out at its capture; an
    episode may end before. Before the first answer there is nothing to show."""
    record.reused_frames = max(min(record.first, env.conditions.frames) - record.frame - 1, 0)
    for k in range(record.reused_frames):
        frame = record.frame + 1 + k
        newest = newest_out(env, frame * env.conditions.capture_period_s)
        skipped[k] = 0.0
        if newest >= 0:
            answer = env.answers[newest]
            sample = sample_of(t, env.conditions, answer.frame)
            skipped[k] = aged_score(t, answer.row, sample, frame - answer.frame)
        record.reused_score += skipped[k]


def newest_out(env: Environment, at_s: float) -> int:
    """Which answer is the one to the newest frame of those that are out; -1 where none is."""
    for k in range(len(env.answers)):
        if env.answers[k].out_s <= at_s:
            return k
    return -1


# The next decision point ------------------------------------------------------------------------------------


def advance(t: TwinTables, env: Environment, first: int, record: Any) -> None:
    """Go to the next moment at which the device is free and has a frame; ``first`` is the next one that may be run.
    Where the device alone is too slow for the deadline, a place must be free, too."""
    conditions, state = env.conditions, env.state
    now_s = max(record.end_s, state.now_s, first * conditions.capture_period_s)
    if is_hopeless(t.local, conditions.deadline_s, state.device_slowdown):
        now_s = max(now_s, next_place(env).release_s)
    if record.fallback_busy_s > 0 and not record.sent:  # it followed its head at once, and has no place
        now_s = max(now_s, record.settled_s)
    state.now_s = after_fallbacks_s(env, now_s)
    captured = captured_by(env, state.now_s)
    state.frame = max(first, captured - t.queue_limit)
    state.capture_s = state.frame * conditions.capture_period_s
    state.queued = max(captured - state.frame - 1, 0)


def look(t: TwinTables, env: Environment, look_s: float) -> float:
    """Shortcuts look at the frame at hand, for as long as they take on the profiled device; frames that are captured
    meanwhile wait. Returns the device time that it took."""
    state = env.state
    took_s = look_s * load_pace(env)
    state.now_s = preempted_end_s(env, state.now_s + took_s)
    state.queued = min(max(captured_by(env, state.now_s) - state.frame - 1, 0), t.queue_limit)
    state.looked_s = took_s
    return took_s


def after_fallbacks_s(env: Environment, now_s: float) -> float:
    """When the fallbacks that start while the device idles are over; each may let it meet one more."""
    met = True
    while met:
        met = False
        for k in range(len(env.requests)):
            end_s = env.requests[k].fallback_s + env.requests[k].fallback_busy_s
            if env.requests[k].fallback_s <= now_s < end_s:
                now_s, met = end_s, True
    return now_s


def settle(t: TwinTables, env: Environment, record: Any) -> None:
    """What is known at the next decision point, and what the frame earned."""
    record.dropped = env.state.frame - record.first - record.passed_frames
    record.done = env.state.frame >= env.conditions.frames
    count_outcomes(env, record)
    listen(env)
    earn(t, record)


def count_outcomes(env: Environment, record: Any) -> None:
    """Smooth the fractions over the outcomes that have become known.

    Several at once count with their mean, which is the sequential smoothing but for the order among them.
    """
    state, count, on_time, fell_back = env.state, record.dropped, 0, 0
    if not record.sent:
        count, on_time, fell_back = count + 1, int(record.on_time), int(record.on_time and record.fell_back)
    for k in range(len(env.requests)):
        request = env.requests[k]
        if request.settled_s <= state.now_s:
            count, on_time, fell_back = count + 1, on_time + request.on_time, fell_back + request.fell_back
            request.settled_s = math.inf
    if count > 0:
        kept = (1.0 - OUTCOME_ALPHA) ** count
        state.on_time_frac = kept * state.on_time_frac + (1.0 - kept) / count * on_time
        state.fallback_frac = kept * state.fallback_frac + (1.0 - kept) / count * fell_back


def earn(t: TwinTables, record: Any) -> None:
    """Energy of the frame, and utility of it, of those with a reused answer and of the dropped ones."""
    transmit_s = record.crossed_s - record.begin_s if record.sent else 0.0
    busy_s = record.head_s + record.fallback_busy_s + record.looked_s
    record.energy_j = t.compute_power_w * busy_s + t.radio_power_w * transmit_s
    earned = aged_score(t, record.answer_row, record.sample, 0) if record.on_time else 0.0
    record.utility = earned - t.energy_weight_per_j * record.energy_j
    reused = record.reused_score - t.energy_weight_per_j * record.reused_energy_j
    record.reward = record.utility - t.drop_penalty * record.dropped + reused
