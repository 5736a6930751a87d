"""What does the device's link hold after a frame, and what will its replies tell? Requests, samples and silences.

Requests cross one after another, so their replies come in the order of sending, and what each will tell can be noted
when it is sent, with the time from which on it is known. An uplink that carried nothing for long is probed again.
Silence is rare: it is computed only in the rows where a transmission or a probe lasts so long that the session takes
the link for down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from controller.records import UPLINK_HISTORY, Bools, Floats, Ints
from controller.timeline import (
    HEARTBEAT_S,
    PROBE_BYTES,
    SAMPLE_AGE_S,
    SILENCE_S,
    SLOWDOWN_ALPHA,
    probe_bytes,
    smooth,
    uplink_sample_bps,
)
from envs.twin.conditions import Conditions
from envs.twin.request import DecisionPoint, RequestTimes
from envs.twin.state import SAMPLES_KEPT, ZERO, LastRequest, Sample, TwinState, filled, select
from envs.twin.tables import TwinTables

#: After so long a silence the session takes the link for down; it looks with every heartbeat.
NOTICED_SILENCE_S = SILENCE_S + HEARTBEAT_S / 2
_SILENCE_S, _SAMPLE_AGE_S, _ALPHA = np.array(NOTICED_SILENCE_S), np.array(SAMPLE_AGE_S), np.array(SLOWDOWN_ALPHA)
_SAMPLE_MASK = np.array(SAMPLES_KEPT - 1)
#: More probes than these, one after another, are not followed: longer than most episodes.
_MOST_PROBES = 64


class UplinkState(NamedTuple):
    """The fields of TwinState of the same names, after this frame's request if there is one."""

    sent: Ints
    told: Ints
    sent_bytes: Floats
    lost_bytes: Floats
    down_from_s: Floats
    down_until_s: Floats
    mec_slowdown: Floats
    last: Floats  # (LastRequest.COUNT, B)
    samples: Floats  # (Sample.COUNT, SAMPLES_KEPT + 1, B)


def send(
    rules: TwinTables,
    conditions: Conditions,
    world: TwinState,
    moment: DecisionPoint,
    flight: RequestTimes,
    sent: Bools,
) -> UplinkState:
    """Hand the payload to the link and note what its reply will tell, unless the link goes silent before; a row that
    sends nothing probes its uplink if that is due."""
    silent_from = np.maximum(flight.end_s, world.last[LastRequest.HEARD_S])
    breaks = sent & (flight.reply_s - silent_from > _SILENCE_S)
    lost = breaks | (sent & (flight.end_s < world.down_until_s))  # or handed over before a silence still to come
    silence = np.count_nonzero(lost)
    told = sent & ~lost if silence else sent
    request = np.empty_like(world.last)
    request[LastRequest.CROSSED_S] = flight.crossed_s
    request[LastRequest.HEARD_S] = flight.reply_s
    request[LastRequest.ARRIVAL_S] = flight.arrival_s
    request[LastRequest.DONE_S] = flight.done_s
    request[LastRequest.EXTRA_S] = flight.extra_s
    slowdown = select(flight.served, smooth(world.mec_slowdown, moment.mec_pace, _ALPHA), world.mec_slowdown)
    sent_bytes = world.sent_bytes + flight.payload_bytes * sent
    state = UplinkState(
        sent=world.sent + sent,
        told=world.told + told,
        sent_bytes=sent_bytes,
        lost_bytes=world.lost_bytes,
        down_from_s=world.down_from_s,
        down_until_s=world.down_until_s,
        mec_slowdown=select(told, slowdown, world.mec_slowdown),
        last=np.where(sent, request, world.last),
        samples=_with_sample(world, moment, flight, told, sent_bytes, slowdown),
    )
    if silence:
        state = _go_silent(rules, conditions, state, lost, breaks, silent_from + _SILENCE_S)
    begin = moment.now_s + rules.decide_s
    due = (begin - state.last[LastRequest.HEARD_S] >= _SAMPLE_AGE_S) & ~sent
    return _probe_idle(rules, conditions, state, begin, np.flatnonzero(due)) if np.count_nonzero(due) else state


def _with_sample(
    world: TwinState, moment: DecisionPoint, flight: RequestTimes, told: Bools, sent_bytes: Floats, mec_slowdown: Floats
) -> Floats:
    """The samples with one more in the given rows.

    The device knows when a payload began to cross, when its reply came and what of that was the MEC's time and the
    bare round trip, so it can tell how long the crossing took.
    """
    samples = world.samples.copy()
    batch = len(told)
    place = select(told, world.told & _SAMPLE_MASK, filled(batch, SAMPLES_KEPT)) * moment.batch + moment.row
    flat = samples.reshape(Sample.COUNT, -1)
    flat[Sample.AT_S][place] = flight.reply_s
    crossing = flight.crossed_s - flight.begin_s
    flat[Sample.UPLINK_BPS][place] = uplink_sample_bps(flight.payload_bytes, crossing, ZERO, ZERO)
    flat[Sample.SENT_BYTES][place] = sent_bytes
    flat[Sample.REPLY_S][place] = flight.reply_s
    flat[Sample.QUEUE_S][place] = flight.queue_s
    flat[Sample.MEC_SLOWDOWN][place] = mec_slowdown
    return samples


def meet_mec(rules: TwinTables, conditions: Conditions, world: TwinState) -> TwinState:
    """The world after the first probe, which tells what the uplink carries.

    Where it takes so long that the link counts as down, frames begin without a sample, and the probe is repeated. The
    trace begins anew with the first frame, as it does for a device.
    """
    crossed = _crossed(rules, conditions, np.arange(len(world.now_s)), np.zeros_like(world.now_s))
    samples = world.samples.copy()
    samples[Sample.UPLINK_BPS] = uplink_sample_bps(PROBE_BYTES, crossed, ZERO, ZERO)
    heard = crossed + conditions.rtt_s + rules.overhead_s - _SILENCE_S
    rows = np.flatnonzero(heard > 0)
    if not len(rows):
        return world._replace(samples=samples)
    begin, crossed = _probed(rules, conditions, rows, heard[rows])
    samples[Sample.AT_S, :, rows] = samples[Sample.REPLY_S, :, rows] = -NOTICED_SILENCE_S
    first = np.full(len(rows), UPLINK_HISTORY - 1)
    _tell_probe(rules, conditions, samples, rows, first, begin, crossed)
    # The history behind the first sample is that sample; until it comes, `observe` shows that there is none.
    samples[Sample.UPLINK_BPS, :, rows] = samples[Sample.UPLINK_BPS, first, rows][:, None]
    world = world._replace(
        heard=world.heard.copy(), down_until_s=world.down_until_s.copy(), last=world.last.copy(), samples=samples
    )
    world.heard[rows] = UPLINK_HISTORY - 1
    world.down_until_s[rows] = _echoed(rules, conditions, rows, crossed)
    world.last[LastRequest.HEARD_S, rows] = world.down_until_s[rows]
    world.last[LastRequest.CROSSED_S, rows] = crossed
    return world


def _go_silent(
    rules: TwinTables, conditions: Conditions, state: UplinkState, lost: Bools, breaks: Bools, down_from_s: Floats
) -> UplinkState:
    """Where it breaks, the link is down until that reply and then the echo of a probe, which tells what it carries."""
    state = state._replace(
        lost_bytes=np.where(lost, state.sent_bytes, state.lost_bytes),
        down_from_s=state.down_from_s.copy(),
        down_until_s=state.down_until_s.copy(),
    )
    rows = np.flatnonzero(breaks)
    from_s = down_from_s[rows]
    joins = state.down_until_s[rows] > from_s  # the silence before
    begin, crossed = _probed(rules, conditions, rows, state.last[LastRequest.HEARD_S, rows])
    state.down_from_s[rows] = np.where(joins, state.down_from_s[rows], from_s)
    state.down_until_s[rows] = _echoed(rules, conditions, rows, crossed)
    state.last[LastRequest.HEARD_S, rows] = state.down_until_s[rows]
    state.last[LastRequest.CROSSED_S, rows] = crossed
    told = state.told[rows]
    _tell_probe(rules, conditions, state.samples, rows, told, begin, crossed)
    state.samples[Sample.SENT_BYTES, told & _SAMPLE_MASK, rows] = state.sent_bytes[rows]
    state.samples[Sample.MEC_SLOWDOWN, told & _SAMPLE_MASK, rows] = conditions.mec_slowdown[rows]
    state.mec_slowdown[rows] = conditions.mec_slowdown[rows]
    state.told[rows] = told + 1
    return state


def _probe_idle(
    rules: TwinTables, conditions: Conditions, state: UplinkState, begin_s: Floats, rows: Ints
) -> UplinkState:
    """Probe the uplink of the given rows, none of which waits for a word; it may go silent because of that."""
    begin, told = begin_s[rows], state.told[rows]
    size = probe_bytes(state.samples[Sample.UPLINK_BPS, (told - 1) & _SAMPLE_MASK, rows])
    crossed = _crossed(rules, conditions, rows, begin, size)
    echo = _echoed(rules, conditions, rows, crossed)
    state.last[LastRequest.HEARD_S, rows] = echo
    state.last[LastRequest.CROSSED_S, rows] = crossed
    ok = echo - begin <= _SILENCE_S
    _tell_probe(rules, conditions, state.samples, rows[ok], told[ok], begin[ok], crossed[ok], size[ok])
    state.told[rows[ok]] += 1
    if ok.all():
        return state
    breaks = np.zeros(len(begin_s), bool)
    breaks[rows[~ok]] = True
    return _go_silent(rules, conditions, state, breaks, breaks, begin_s + _SILENCE_S)


def _probed(rules: TwinTables, conditions: Conditions, rows: Ints, heard_s: Floats) -> tuple[Floats, Floats]:
    """When the probe of a link that is heard again begins and has crossed.

    It follows a bare ping. Where it silences the link itself the same happens again once its echo is heard; the session
    has forgotten it by then, so it tells nothing.
    """
    rtt = conditions.rtt_s[rows]
    begin = heard_s + rtt
    crossed = _crossed(rules, conditions, rows, begin)
    for _ in range(_MOST_PROBES):
        echo = _echoed(rules, conditions, rows, crossed)
        silenced = echo - begin > _SILENCE_S
        if not silenced.any():
            break
        begin = np.where(silenced, echo + rtt, begin)
        crossed = _crossed(rules, conditions, rows, begin)
    return begin, crossed


def _crossed(
    rules: TwinTables, conditions: Conditions, rows: Ints, begin_s: Floats, size: Floats | int = PROBE_BYTES
) -> Floats:
    """When a probe that begins to cross at ``begin_s`` has done so."""
    start, bits = conditions.trace_start_s[rows], size * conditions.bits_per_byte[rows]
    return np.asarray(rules.bank.finish_s(conditions.trace[rows], start + begin_s, bits) - start)


def _echoed(rules: TwinTables, conditions: Conditions, rows: Ints, crossed_s: Floats) -> Floats:
    """When the echo of a probe that has crossed is there."""
    return np.asarray(crossed_s + conditions.rtt_s[rows] + rules.overhead_s)


def _tell_probe(
    rules: TwinTables,
    conditions: Conditions,
    samples: Floats,
    rows: Ints,
    told: Ints,
    begin_s: Floats,
    crossed_s: Floats,
    size: Floats | int = PROBE_BYTES,
) -> None:
    """Note in place what the echo will tell: of the MEC's queue nothing, so that stands as before."""
    place = told & _SAMPLE_MASK
    samples[:, place, rows] = samples[:, (place - 1) & _SAMPLE_MASK, rows]
    samples[Sample.AT_S, place, rows] = _echoed(rules, conditions, rows, crossed_s)
    samples[Sample.UPLINK_BPS, place, rows] = uplink_sample_bps(size, crossed_s - begin_s, ZERO, ZERO)
