"""What is the state of each environment of a twin at its decision point?

The twin's owner is ``envs.twin.twin.Twin``; ``envs.twin.step`` makes the next TwinState from one, and changes none in
place.
Where a field has more axes than the batch, the batch is the last one, so that one array operation runs along the batch
for the handful of places or columns there are.
"""

from __future__ import annotations

from functools import cache, reduce
from typing import Any, Final, NamedTuple

import numpy as np

from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Bools, Floats, Ints, SystemState
from controller.timeline import MAX_UNANSWERED, believed_frac, slowdown_now
from envs.twin.conditions import Conditions
from envs.twin.tables import TwinTables
from runtime.protocol.device_session import HEARTBEAT_S

#: Remembered uplink samples: those of the history, and those still to come; a power of two.
SAMPLES_KEPT = 16
assert SAMPLES_KEPT >= UPLINK_HISTORY + MAX_UNANSWERED


class LastRequest:
    """Rows of TwinState.last: the last request that was sent."""

    CROSSED_S: Final = 0  # when the uplink is free again
    HEARD_S: Final = 1  # its reply, or the echo of a probe that followed: until then the device waits for a word
    ARRIVAL_S: Final = 2  # at the MEC
    DONE_S: Final = 3  # served by the MEC
    EXTRA_S: Final = 4  # work at the MEC that is there because of own requests, just after that arrival
    COUNT: Final = 5


class InFlightSlot:
    """Rows of TwinState.places: requests whose frame waits for the MEC, each in one of a few places."""

    RELEASE_S: Final = 0  # when the place is free: reply, fallback or give-up
    FALLBACK_S: Final = 1  # when its fallback starts; infinite without
    FALLBACK_BUSY_S: Final = 2  # how long it takes
    SETTLE_S: Final = 3  # when its outcome is known; infinite once it was counted
    ON_TIME: Final = 4
    FELL_BACK: Final = 5  # and that on time
    OVERDUE_S: Final = 6  # from when on it counts as not answered in time; infinite if it is
    COUNT: Final = 7


class RecentAnswers:
    """Rows of TwinState.answers: the last answers, newest frame first; where answers are reused only."""

    OUT_S: Final = 0  # when it is there; infinite before the first ones
    FRAME: Final = 1
    ROW: Final = 2  # of the cost table, whose answer it is
    COUNT: Final = 3


class Sample:
    """Rows of TwinState.samples: what a reply tells, or the echo of a probe, in the order in which they come."""

    AT_S: Final = 0
    UPLINK_BPS: Final = 1
    SENT_BYTES: Final = 2  # of this and all requests before it
    REPLY_S: Final = 3  # of the last request, which a probe is not
    QUEUE_S: Final = 4
    MEC_SLOWDOWN: Final = 5  # smoothed
    COUNT: Final = 6


#: numpy takes a number into an operation in 0.4 us, an array without axes in none.
ZERO, ONE = np.array(0.0), np.array(1)
_SAMPLE_MASK = np.array(SAMPLES_KEPT - 1)
_BEFORE_REAL = np.array(UPLINK_HISTORY - 1)
_MEAN_OF_HISTORY = np.array(1.0 / UPLINK_HISTORY)
_HEARTBEAT_S, _HEARTBEATS_PER_S = np.array(HEARTBEAT_S), np.array(1.0 / HEARTBEAT_S)
_EMPTY_PLACE = np.array([-np.inf, np.inf, 0.0, np.inf, 0.0, 0.0, np.inf])


class TwinState(NamedTuple):
    """Everything that changes from step to step. Times are in seconds since the episode began; arrays are (B,)."""

    now_s: Floats  # the decision point
    frame: Ints  # to be decided
    capture_s: Floats  # of that frame
    queued: Ints  # frames that wait behind it
    sent: Ints  # requests so far
    told: Ints  # samples that were or will be told
    heard: Ints  # of these, those that have come
    sent_bytes: Floats
    lost_bytes: Floats  # what had been sent when the link last went silent
    down_from_s: Floats  # the link's last silence, or the next, which nobody knows of yet
    down_until_s: Floats
    fallback_end_s: Floats  # of the last fallback that was scheduled
    device_slowdown: Floats  # estimate
    mec_slowdown: Floats  # what the estimate will be once all that was sent is told
    on_time_frac: Floats
    fallback_frac: Floats
    last: Floats  # (LastRequest.COUNT, B)
    places: Floats  # (InFlightSlot.COUNT, in flight + 1, B); the extra one takes what is not kept
    samples: Floats  # (Sample.COUNT, SAMPLES_KEPT + 1, B); likewise
    answers: Floats  # (RecentAnswers.COUNT, answers kept, B)


def new_world(rules: TwinTables, conditions: Conditions) -> TwinState:
    """The first decision point: frame 0 was just captured. What the uplink carries is not known yet."""
    batch = len(conditions.deadline_s)
    zeros, none = np.zeros(batch), np.zeros(batch, np.int64)
    samples = np.zeros((Sample.COUNT, SAMPLES_KEPT + 1, batch))
    samples[Sample.MEC_SLOWDOWN] = conditions.mec_slowdown
    return TwinState(
        now_s=zeros,
        frame=none,
        capture_s=zeros,
        queued=none,
        sent=none,
        told=none + UPLINK_HISTORY,
        heard=none + UPLINK_HISTORY,
        sent_bytes=zeros,
        lost_bytes=zeros,
        down_from_s=zeros,
        down_until_s=zeros,
        fallback_end_s=zeros,
        device_slowdown=conditions.device_slowdown * conditions.device_pace[:, 0],
        mec_slowdown=conditions.mec_slowdown,
        on_time_frac=zeros + 1.0,
        fallback_frac=zeros,
        last=np.zeros((LastRequest.COUNT, batch)),
        places=np.repeat(_EMPTY_PLACE, (rules.max_in_flight + 1) * batch).reshape(InFlightSlot.COUNT, -1, batch),
        samples=samples,
        answers=_no_answers(rules, batch),
    )


def _no_answers(rules: TwinTables, batch: int) -> Floats:
    # One for each request in flight and for each fallback that waits for another: the newest that is out is among them.
    kept = 2 * rules.max_in_flight + 1 if rules.reuses else 0
    answers = np.zeros((RecentAnswers.COUNT, kept, batch))
    answers[RecentAnswers.OUT_S] = np.inf
    return answers


def count_rows(mask: Bools) -> Ints:
    """(B,) how many of a handful of rows are true, in half the time of a reduction."""
    return reduce(np.add, mask.view(np.int8))


def select(mask: Bools, new: Any, old: Any) -> Any:
    """``np.where(mask, new, old)`` for an array ``old``, in half the time when there are a few dozen rows."""
    chosen = old.copy()
    np.copyto(chosen, new, where=mask)
    return chosen


def heard_s(rules: TwinTables, conditions: Conditions, world: TwinState) -> Floats:
    """When the device last heard of its MEC: a reply, the echo of a probe, or that of a heartbeat, for which the uplink
    must have been free."""
    batch = len(world.now_s)
    newest = world.samples[Sample.AT_S].ravel().take(((world.heard - ONE) & _SAMPLE_MASK) * batch + row_numbers(batch))
    echo_s = conditions.rtt_s + rules.overhead_s
    ping = np.floor((world.now_s - echo_s) * _HEARTBEATS_PER_S) * _HEARTBEAT_S
    return np.asarray(np.maximum(newest, (ping + echo_s) * (world.last[LastRequest.CROSSED_S] <= ping)))


def link_is_down(world: TwinState, at_s: Floats) -> Any:
    """Where the session holds the link for down at the given times."""
    return (at_s >= world.down_from_s) & (at_s < world.down_until_s)


def observe(
    rules: TwinTables, conditions: Conditions, world: TwinState, down: Bools, true_latency_s: Floats | None
) -> SystemState:
    """What the device knows at the decision point; ``down`` is ``link_is_down`` there."""
    now, batch = world.now_s, len(world.now_s)
    known = world.samples.reshape(Sample.COUNT, -1)
    place = _history_places(batch).take(world.heard & _SAMPLE_MASK, axis=1)
    place += row_numbers(batch)
    newest = known.take(place[0], axis=1)
    crossed = np.maximum(newest[Sample.SENT_BYTES], world.lost_bytes * (now >= world.down_from_s))
    uplink_bps = known[Sample.UPLINK_BPS].take(place).T
    reply_age = now - newest[Sample.REPLY_S]
    believed = believed_frac(reply_age)
    unknown = world.heard < UPLINK_HISTORY
    if np.count_nonzero(unknown):
        uplink_bps[unknown] = FLOOR_BPS
    return SystemState(
        deadline_s=conditions.deadline_s,
        capture_period_s=conditions.interval_s,
        frame_age_s=now - world.capture_s,
        uplink_bps=uplink_bps,
        uplink_sample_count=world.heard - _BEFORE_REAL,
        uplink_age_s=now - newest[Sample.AT_S],
        uplink_backlog_bytes=world.sent_bytes - crossed,
        rtt_s=conditions.rtt_s + rules.overhead_s,
        device_slowdown=world.device_slowdown,
        queued_frames=world.queued,
        in_flight=count_rows(world.places[InFlightSlot.RELEASE_S, :-1] > now),
        mec_queue_s=newest[Sample.QUEUE_S] * believed,
        mec_queue_mean_s=np.add.reduce(known[Sample.QUEUE_S].take(place)) * (_MEAN_OF_HISTORY * believed),
        mec_slowdown=slowdown_now(newest[Sample.MEC_SLOWDOWN], conditions.mec_slowdown, believed),
        mec_age_s=reply_age,
        link_up=~down,
        on_time_frac=world.on_time_frac,
        fallback_frac=world.fallback_frac,
        true_latency_s=true_latency_s,
    )


@cache
def row_numbers(batch: int) -> Ints:
    """0, 1, ... batch - 1; not to be changed."""
    return np.arange(batch)


@cache
def filled(batch: int, value: float, rows: int | None = None) -> Any:
    """(B,) or (rows, B) of one value; not to be changed."""
    return np.full(batch if rows is None else (rows, batch), value)


@cache
def _history_places(batch: int) -> Ints:
    """(UPLINK_HISTORY, SAMPLES_KEPT) where the newest samples stand, newest first, when so many were heard."""
    newest_first = np.arange(SAMPLES_KEPT) - np.arange(1, UPLINK_HISTORY + 1)[:, None]
    return np.asarray(newest_first % SAMPLES_KEPT * batch)
