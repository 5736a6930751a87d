"""What happens between the device and its MEC: transfers, probes, silences, and the wait at the MEC.

Requests cross one after another, so their replies come in the order of sending, and what each will tell can be noted
when it is sent, with the time from which on it is known. An uplink that carried nothing for long is probed again. A
transfer or a probe may last so long that the session takes the link for down.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from controller.packets import ping_bytes
from controller.records import NO_ROW, UPLINK_HISTORY
from controller.references import NO_STREAM
from controller.timeline import (
    HEARTBEAT_S,
    PROBE_BYTES,
    SAMPLE_AGE_S,
    SILENCE_S,
    SLOWDOWN_ALPHA,
    heartbeat_s,
    next_probe_bytes,
    probe_bytes,
    smooth,
    uplink_sample_bps,
)
from envs.twin.mec_queue import workload
from envs.twin.references import forget_references, note_request
from envs.twin.state import Environment, sample_place
from envs.twin.tables import TwinTables

#: After so long a silence the session takes the link for down; it looks with every heartbeat.
NOTICED_SILENCE_S = SILENCE_S + HEARTBEAT_S / 2
#: More probes than these, one after another, are not followed: longer than most episodes.
_MOST_PROBES = 64


# The uplink -------------------------------------------------------------------------------------------------


def crossed_s(t: TwinTables, conditions: Any, begin_s: float, size: float) -> float:
    """When ``size`` bytes that begin to cross at ``begin_s`` have done so."""
    start_s = conditions.trace_start_s
    return finish_s(t, conditions.trace_index, start_s + begin_s, size * conditions.bits_per_byte) - start_s


def finish_s(t: TwinTables, number: int, start_s: float, bits: float) -> float:
    """When ``bits`` that start at ``start_s`` on a trace have crossed, as ``TraceBank.finish_s``: where the running
    integral of the trace has grown by them. A trace starts over when time passes its end."""
    trace = t.traces[number]
    laps = np.floor(start_s / trace.duration_s)
    begin_s = trace.start_s + (start_s - laps * trace.duration_s)
    step = t.steps[_last_step(t.steps["start_s"], trace, begin_s)]
    target = step.start_bits + (begin_s - step.start_s) * step.bps - trace.start_bits + bits
    more = np.floor(target / trace.bits)
    end_bits = trace.start_bits + (target - more * trace.bits)
    step = t.steps[_last_step(t.steps["start_bits"], trace, end_bits)]
    end_s = step.start_s + (end_bits - step.start_bits) * step.s_per_bit
    return (laps + more) * trace.duration_s + (end_s - trace.start_s)


def _last_step(starts: Any, trace: Any, value: float) -> int:
    """The last step of the trace that starts, in time or in bits, at ``value`` or before."""
    low, high = trace.first, trace.last
    while low < high:
        middle = (low + high + 1) // 2
        if starts[middle] <= value:
            low = middle
        else:
            high = middle - 1
    return low


# The MEC ----------------------------------------------------------------------------------------------------


def others_work_s(t: TwinTables, env: Environment, level: int, arrival_s: float) -> float:
    """How long the MEC needs for the requests of other devices that are there."""
    service_s = env.conditions.neighbour_s
    return workload(t.queue, t.queue_started, level, env.conditions.neighbour_start + arrival_s / service_s) * service_s


def own_work_s(env: Environment, level: int, arrival_s: float) -> float:
    """How much longer it needs because of own requests.

    Own work is done in the share of time that others leave free; with none of them that is exact.
    """
    done_s = (arrival_s - env.state.arrival_s) * (1.0 - level / 100)
    return max(env.state.own_work_s - done_s, 0.0)


# Sending and probing ----------------------------------------------------------------------------------------


def send(t: TwinTables, env: Environment, request: Any, mec_pace: float) -> None:
    """Hand the payload to the link and note what its reply will tell, unless the link goes silent before."""
    state = env.state
    silent_from_s = max(request.end_s, state.word_s)
    breaks = request.reply_s - silent_from_s > NOTICED_SILENCE_S
    lost = breaks or request.end_s < state.down_until_s  # or handed over before a silence still to come
    state.sent += 1
    state.sent_bytes += request.uplink_bytes
    state.crossed_s, state.word_s = request.crossed_s, request.reply_s
    state.arrival_s, state.done_s, state.own_work_s = request.arrival_s, request.done_s, request.own_work_s
    if lost:
        state.lost_bytes = state.sent_bytes
    else:
        _note_reply(env, request, mec_pace)
    if breaks:
        _go_silent(t, env, silent_from_s + NOTICED_SILENCE_S)
    if lost and state.lost_row == NO_ROW:
        state.lost_row, state.lost_begin_s = request.row, request.begin_s
    if t.decisions[request.row].stream != NO_STREAM:
        note_request(t, env, t.decisions[request.row].stream, request, lost)


def _note_reply(env: Environment, request: Any, mec_pace: float) -> None:
    """What the reply will tell.

    The device knows when a payload began to cross, when its reply came and what of that was the MEC's time and the
    bare round trip, so it can tell how long the crossing took.
    """
    state = env.state
    if request.served:
        state.mec_slowdown = smooth(state.mec_slowdown, mec_pace, SLOWDOWN_ALPHA)
    sample = env.samples[sample_place(state.told)]
    sample.at_s = sample.reply_s = request.reply_s
    sample.row, sample.begin_s = request.row, request.begin_s
    sample.uplink_bps = uplink_sample_bps(request.uplink_bytes, request.crossed_s - request.begin_s)
    sample.sample_bytes = request.uplink_bytes
    sample.sent_bytes = state.sent_bytes
    sample.queue_s = request.queue_s
    sample.mec_slowdown = state.mec_slowdown
    state.told += 1


def probe_if_idle(t: TwinTables, env: Environment, begin_s: float) -> None:
    """Probe an uplink that has carried nothing for long; it may go silent because of that."""
    state = env.state
    if begin_s - state.word_s < SAMPLE_AGE_S:
        return
    size = ping_bytes(probe_bytes(env.samples[sample_place(state.told - 1)].uplink_bps))
    state.crossed_s = crossed_s(t, env.conditions, begin_s, size)
    state.word_s = _echo_s(t, env, state.crossed_s)
    if state.word_s - begin_s <= NOTICED_SILENCE_S:
        _note_echo(t, env, begin_s, size)
    else:
        state.lost_bytes = state.sent_bytes
        _go_silent(t, env, begin_s + NOTICED_SILENCE_S)


def _go_silent(t: TwinTables, env: Environment, from_s: float) -> None:
    """The link is down until the next word and then the echo of a probe, which tells what it carries."""
    state, announced = env.state, env.conditions.mec_slowdown
    if state.down_until_s <= from_s:  # otherwise it joins the silence before
        state.down_from_s, state.lost_row = from_s, NO_ROW
        forget_references(env, from_s)
    _probe_anew(t, env, state.word_s)
    sample = env.samples[sample_place(state.told - 1)]
    sample.sent_bytes = state.sent_bytes
    sample.mec_slowdown = state.mec_slowdown = announced


def _probe_anew(t: TwinTables, env: Environment, heard_s: float) -> None:
    """Probe a link that is heard again; it counts as up when the echo is there.

    The probe follows a bare ping. Where it silences the link itself the same happens again once its echo is heard; the
    session has forgotten it by then, so it tells nothing.
    """
    state, rtt_s = env.state, env.conditions.rtt_s
    begin_s, size, state.crossed_s = first_probe(t, env, heard_s + rtt_s)
    for _ in range(_MOST_PROBES):
        echo_s = _echo_s(t, env, state.crossed_s)
        if echo_s - begin_s <= NOTICED_SILENCE_S:
            break
        begin_s, size, state.crossed_s = first_probe(t, env, echo_s + rtt_s)
    state.down_until_s = state.word_s = _echo_s(t, env, state.crossed_s)
    _note_echo(t, env, begin_s, size)


def first_probe(t: TwinTables, env: Environment, begin_s: float) -> tuple[float, float, float]:
    """When the probe that measures an unknown uplink begins to cross, its bytes, and when it has crossed. On a fast
    uplink that is a larger one after the first; one that silences the link is the last."""
    padding = PROBE_BYTES
    while True:
        size = ping_bytes(padding)
        end_s = crossed_s(t, env.conditions, begin_s, size)
        larger = next_probe_bytes(padding, uplink_sample_bps(size, end_s - begin_s))
        echo_s = _echo_s(t, env, end_s)
        if larger == 0 or echo_s - begin_s > NOTICED_SILENCE_S:
            return begin_s, size, end_s
        begin_s, padding = echo_s, larger


def _echo_s(t: TwinTables, env: Environment, probe_crossed_s: float) -> float:
    """When the echo of a probe is there."""
    return probe_crossed_s + env.conditions.rtt_s + t.calibration.overhead_s


def _note_echo(t: TwinTables, env: Environment, begin_s: float, size: float) -> None:
    """What the echo of the last probe will tell: of the MEC's queue nothing, so that stands as before."""
    state, place = env.state, sample_place(env.state.told)
    env.samples[place] = env.samples[sample_place(state.told - 1)]
    env.samples[place].at_s = state.word_s
    env.samples[place].uplink_bps = uplink_sample_bps(size, state.crossed_s - begin_s)
    env.samples[place].sample_bytes = size
    state.told += 1


def meet_mec(t: TwinTables, env: Environment) -> None:
    """The first probe, before the first frame, tells what the uplink carries.

    Where it takes so long that the link counts as down, frames begin without a sample, and the probe is repeated. The
    trace begins anew with the first frame, as it does for a device.
    """
    state = env.state
    begin_s, size, end_s = first_probe(t, env, 0.0)
    heard_s = _echo_s(t, env, end_s) - begin_s - NOTICED_SILENCE_S
    bps = uplink_sample_bps(size, end_s - begin_s)
    if heard_s > 0:
        state.told = state.heard = UPLINK_HISTORY - 1
        for k in range(len(env.samples)):
            env.samples[k].at_s = env.samples[k].reply_s = -NOTICED_SILENCE_S
        _probe_anew(t, env, heard_s)
        # The history behind the first sample is that sample; until it comes, the device sees that there is none.
        newest = env.samples[sample_place(state.told - 1)]
        bps, size = newest.uplink_bps, newest.sample_bytes
    for k in range(len(env.samples)):
        env.samples[k].uplink_bps, env.samples[k].sample_bytes = bps, size


# Hearing ----------------------------------------------------------------------------------------------------


def listen(env: Environment) -> None:
    """Hear what has come by now."""
    env.state.heard = heard_by(env, env.state.now_s)


def heard_by(env: Environment, at_s: float) -> int:
    """How many samples have come at a time that is not before the decision point."""
    heard = env.state.heard
    while heard < env.state.told and env.samples[sample_place(heard)].at_s <= at_s:
        heard += 1
    return heard


def heard_s(t: TwinTables, env: Environment, at_s: float, busy_from_s: float) -> float:
    """When the device last heard of its MEC, as it knows at ``at_s``: a reply, the echo of a probe, or that of a
    heartbeat, for which the uplink must have been free; it is not from ``busy_from_s`` on."""
    newest = env.samples[sample_place(heard_by(env, at_s) - 1)]
    echo_s = env.conditions.rtt_s + t.calibration.overhead_s
    period_s = heartbeat_s(newest.uplink_bps)
    ping_s = math.floor(min(at_s - echo_s, busy_from_s) / period_s) * period_s
    return max(newest.at_s, ping_s + echo_s if env.state.crossed_s <= ping_s else 0.0)
