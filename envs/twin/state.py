"""The state of one environment of a twin: records with named fields, and how an environment begins.

A batch is an array of records for each of the fields of ``Environment``. ``environment`` picks one of them; what is
written to its records is written to the batch. Times are in seconds since the episode began.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from controller.fallback import FrameTiming
from controller.records import NO_ROW, UPLINK_HISTORY
from controller.references import NO_STREAM
from controller.timeline import MAX_UNANSWERED


def record_type(**fields: str | tuple[str, tuple[int, ...]]) -> np.dtype[Any]:
    """A record with these fields, in memory as compiled code likes it."""
    columns = [(name, kind) if isinstance(kind, str) else (name, *kind) for name, kind in fields.items()]
    return np.dtype((np.record, np.dtype(columns, align=True)))


#: Under which conditions an environment runs; fixed for an episode. What a Scenario has, has its name there.
CONDITIONS = record_type(
    capture_period_s="f8",
    deadline_s="f8",
    device_slowdown="f8",
    mec_slowdown="f8",
    rtt_s="f8",
    trace_index="i8",
    trace_start_s="f8",
    bits_per_byte="f8",  # 8 over the share of the trace's bandwidth
    frames="i8",
    first_sample="i8",
    noise_start="i8",  # record of the noise table that frame 0 uses
    device_load_frac="f8",  # mean of the load
    mec_load_frac="f8",
    device_load_start="i8",  # where the loads begin in the table of draws
    mec_load_start="i8",
    load_steps="i8",  # seconds after which a load stays as it is
    neighbour_s="f8",  # service time of other devices' requests
    neighbour_start="f8",  # where on the stream of others' requests the episode starts, in service times
)

#: Everything that changes from frame to frame.
STATE = record_type(
    now_s="f8",  # the decision point
    frame="i8",  # to be decided
    capture_s="f8",  # of that frame
    queued="i8",  # frames that wait behind it
    device_slowdown="f8",  # estimate
    on_time_frac="f8",
    fallback_frac="f8",
    reused_frac="f8",
    motion="f8",  # of the frame at hand, as a shortcut found; not a number where none did
    fallback_end_s="f8",  # of the last fallback that was scheduled
    looked_s="f8",  # device time that shortcuts took for that frame
    sent="i8",  # requests so far
    sent_bytes="f8",  # on the wire
    # The last request that was sent, or the probe that followed it:
    crossed_s="f8",  # when the uplink is free again
    word_s="f8",  # its reply, or the echo: until then the device waits for a word of the MEC
    # The last request at the MEC:
    arrival_s="f8",
    done_s="f8",
    own_work_s="f8",  # work that was there because of own requests just after that arrival
    # Samples that a reply or an echo brings:
    told="i8",  # that were sent or are on their way
    heard="i8",  # of these, those that have come
    mec_slowdown="f8",  # what the estimate will be once all are heard
    # The link's last silence, or the next, which nobody knows of yet:
    down_from_s="f8",
    down_until_s="f8",
    lost_bytes="f8",  # what had been sent when it began
    lost_row="i8",  # of the first request that it loses
    lost_begin_s="f8",  # when the payload of that one began to cross
)

#: A request whose frame waits for the MEC; requests take the places of ``Environment.requests`` in turn.
REQUEST = record_type(
    release_s="f8",  # when the place is free: reply, fallback or give-up
    fallback_s="f8",  # when its fallback starts; infinite without
    fallback_busy_s="f8",  # how long that takes
    settled_s="f8",  # when its outcome is known; infinite once it was counted
    overdue_s="f8",  # from when on it counts as not answered in time; infinite if it is
    on_time="?",
    fell_back="?",  # and that on time
)

#: Remembered samples: those of the history, and those still to come; a power of two.
SAMPLES_KEPT = 16
assert SAMPLES_KEPT >= UPLINK_HISTORY + MAX_UNANSWERED

#: What a reply tells, or the echo of a probe, in the order in which they come.
SAMPLE = record_type(
    at_s="f8",
    uplink_bps="f8",
    sample_bytes="f8",  # that crossed, on the wire
    sent_bytes="f8",  # of this and all requests before it
    reply_s="f8",  # of the last request, which a probe is not
    row="i8",  # of that request
    begin_s="f8",  # when its payload began to cross
    queue_s="f8",
    mec_slowdown="f8",  # smoothed
)

#: An answer; the newest frame comes first. Kept where answers may be reused.
ANSWER = record_type(
    out_s="f8",  # infinite before the first ones
    frame="i8",
    row="i8",  # of the cost table, whose answer it is
)

#: A stream of payloads that refer to each other, as its sender on the device knows it (``envs.twin.references``).
STREAM = record_type(
    number="i8",  # of the stream; NO_STREAM where a place is free
    used="i8",  # the larger, the later it was used last
    sent="i8",  # requests
    until_s="f8",  # from when on the next payload stands alone, if the stream is chained
)

#: A request that later payloads of its stream may refer to.
REFERENCE = record_type(
    frame="i8",
    from_s="f8",  # from when on they may, if the stream is not chained: when its reply has come
    until_s="f8",  # until when
)


class Environment(NamedTuple):
    """One environment, or a batch of them with one more axis in front."""

    conditions: Any  # CONDITIONS
    state: Any  # STATE
    requests: Any  # (max_in_flight,) REQUEST
    samples: Any  # (SAMPLES_KEPT,) SAMPLE
    answers: Any  # (kept,) ANSWER
    streams: Any  # (most,) STREAM; empty where no payload refers to another one
    references: Any  # (most * kept,) REFERENCE: the last requests of each stream, which take their places in turn
    device_pace: Any  # (seconds,) 1 / (1 - load of the device) at each second; the last one goes on
    mec_level: Any  # (seconds,) load of the MEC in hundredths; likewise


def environment(batch: Environment, b: int) -> Environment:
    """Environment ``b`` of a batch."""
    return Environment(
        batch.conditions[b],
        batch.state[b],
        batch.requests[b],
        batch.samples[b],
        batch.answers[b],
        batch.streams[b],
        batch.references[b],
        batch.device_pace[b],
        batch.mec_level[b],
    )


def part_of(batch: Environment, which: Any) -> Environment:
    """The environments of a slice, or copies of those with the given numbers."""
    return Environment(*[column[which] for column in batch])


def empty_batch(
    conditions: Any, seconds: int, max_in_flight: int, answers: int, streams: int, references: int
) -> Environment:
    """A batch under these conditions, all else zero; ``references`` of each of the streams are remembered."""
    batch = len(conditions)
    return Environment(
        conditions=conditions,
        state=np.zeros(batch, STATE),
        requests=np.zeros((batch, max_in_flight), REQUEST),
        samples=np.zeros((batch, SAMPLES_KEPT), SAMPLE),
        answers=np.zeros((batch, answers), ANSWER),
        streams=np.zeros((batch, streams), STREAM),
        references=np.zeros((batch, streams * references), REFERENCE),
        device_pace=np.zeros((batch, seconds)),
        mec_level=np.zeros((batch, seconds), np.int64),
    )


def copy_over(column: Any, source: Any) -> None:
    """Overwrite a column with another one of its length."""
    for k in range(len(column)):
        column[k] = source[k]


def copy_state(batch: Environment, b: int, env: Environment) -> None:
    """Make all that changes from frame to frame in environment ``b`` of a batch what it is in ``env``."""
    batch.state[b] = env.state
    copy_over(batch.requests[b], env.requests)
    copy_over(batch.samples[b], env.samples)
    copy_over(batch.answers[b], env.answers)
    copy_over(batch.streams[b], env.streams)
    copy_over(batch.references[b], env.references)


def replace(batch: Environment, b: int, env: Environment) -> None:
    """Make environment ``b`` of a batch what ``env`` is."""
    copy_state(batch, b, env)
    batch.conditions[b] = env.conditions
    copy_over(batch.device_pace[b], env.device_pace)
    copy_over(batch.mec_level[b], env.mec_level)


def at_second(series: Any, time_s: float) -> Any:
    """Value of a series at a time."""
    return series[int(min(time_s, len(series) - 1.0))]


def sample_place(number: int) -> int:
    """Where sample ``number`` stands among those that are remembered."""
    return number & (SAMPLES_KEPT - 1)


def timing(env: Environment, now_s: float) -> FrameTiming:
    """Of the frame at hand, at a given moment."""
    conditions, state = env.conditions, env.state
    age_s = now_s - state.capture_s
    return FrameTiming(age_s, conditions.deadline_s, conditions.capture_period_s, state.device_slowdown)


def link_is_down(state: Any, at_s: float) -> bool:
    """Whether the session holds the link for down at this time."""
    return state.down_from_s <= at_s < state.down_until_s


def begin(env: Environment) -> None:
    """The first decision point: frame 0 was just captured. What the uplink carries is not known yet."""
    conditions, state = env.conditions, env.state
    state.told = state.heard = UPLINK_HISTORY
    state.device_slowdown = conditions.device_slowdown * env.device_pace[0]
    state.mec_slowdown = conditions.mec_slowdown
    state.on_time_frac = 1.0
    state.motion = np.nan
    for k in range(len(env.samples)):
        env.samples[k].mec_slowdown = conditions.mec_slowdown
        env.samples[k].row = NO_ROW
    for k in range(len(env.requests)):
        request = env.requests[k]
        request.release_s = -np.inf
        request.fallback_s = request.settled_s = request.overdue_s = np.inf
    for k in range(len(env.answers)):
        env.answers[k].out_s = np.inf
    for k in range(len(env.streams)):
        env.streams[k].number = NO_STREAM
