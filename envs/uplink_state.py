"""What does the device's link hold after a frame, and what will its replies tell? Requests, samples and silences.

Requests cross one after another, so their replies come in the order of sending, and what each will tell can be noted
when it is sent, with the time from which on it is known. Silence is rare: it is computed only in the rows where a
transmission lasts so long that the session takes the link for down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from controller.records import Bools, Floats, Ints
from controller.telemetry import SLOWDOWN_ALPHA, smooth, uplink_sample_bps
from envs.conditions import Conditions
from envs.flight import Flight, Moment
from envs.rules import Rules
from envs.world import SAMPLES_KEPT, ZERO, Last, Sample, World, filled, select
from runtime import device_session
from runtime.device import PROBE_BYTES

#: After so long a silence the session takes the link for down; it looks with every heartbeat.
SILENCE_S = device_session.SILENCE_S + device_session.HEARTBEAT_S / 2
_SILENCE_S, _ALPHA = np.array(SILENCE_S), np.array(SLOWDOWN_ALPHA)
_SAMPLE_MASK = np.array(SAMPLES_KEPT - 1)


class UplinkState(NamedTuple):
    """The fields of World of the same names, after this frame's request if there is one."""

    sent: Ints
    told: Ints
    sent_bytes: Floats
    lost_bytes: Floats
    down_from_s: Floats
    down_until_s: Floats
    mec_slowdown: Floats
    last: Floats  # (Last.COUNT, B)
    samples: Floats  # (Sample.COUNT, SAMPLES_KEPT + 1, B)


def send(
    rules: Rules, conditions: Conditions, world: World, moment: Moment, flight: Flight, sent: Bools
) -> UplinkState:
    """Hand the payload to the link and note what its reply will tell, unless the link goes silent before."""
    silent_from = np.maximum(flight.end_s, world.last[Last.REPLY_S])
    breaks = sent & (flight.reply_s - silent_from > _SILENCE_S)
    lost = breaks | (sent & (flight.end_s < world.down_until_s))  # or handed over before a silence still to come
    silence = np.count_nonzero(lost)
    told = sent & ~lost if silence else sent
    request = np.empty_like(world.last)
    request[Last.CROSSED_S] = flight.crossed_s
    request[Last.REPLY_S] = flight.reply_s
    request[Last.ARRIVAL_S] = flight.arrival_s
    request[Last.DONE_S] = flight.done_s
    request[Last.EXTRA_S] = flight.extra_s
    slowdown = smooth(world.mec_slowdown, moment.mec_pace, _ALPHA)
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
    return _go_silent(rules, conditions, state, lost, breaks, silent_from + _SILENCE_S) if silence else state


def _with_sample(
    world: World, moment: Moment, flight: Flight, told: Bools, sent_bytes: Floats, mec_slowdown: Floats
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


def _go_silent(
    rules: Rules, conditions: Conditions, state: UplinkState, lost: Bools, breaks: Bools, down_from_s: Floats
) -> UplinkState:
    """Where it breaks, the link is down until that reply comes; then a probe tells what the uplink carries."""
    state = state._replace(
        lost_bytes=np.where(lost, state.sent_bytes, state.lost_bytes),
        down_from_s=state.down_from_s.copy(),
        down_until_s=state.down_until_s.copy(),
    )
    batch, rows = len(breaks), np.flatnonzero(breaks)
    rtt, start = conditions.rtt_s[rows], conditions.trace_start_s[rows]
    up, from_s = state.last[Last.REPLY_S, rows], down_from_s[rows]
    joins = state.down_until_s[rows] > from_s  # the silence before
    state.down_from_s[rows] = np.where(joins, state.down_from_s[rows], from_s)
    state.down_until_s[rows] = up
    begin = np.maximum(up + rtt, state.last[Last.CROSSED_S, rows])
    bits = PROBE_BYTES * conditions.bits_per_byte[rows]
    crossed = rules.bank.finish_s(conditions.trace[rows], start + begin, bits) - start
    state.last[Last.CROSSED_S, rows] = crossed
    flat, told = state.samples.reshape(Sample.COUNT, -1), state.told[rows]
    newest = ((told - 1) & _SAMPLE_MASK) * batch + rows
    place = (told & _SAMPLE_MASK) * batch + rows
    flat[:, place] = flat[:, newest]  # of the MEC's queue the probe tells nothing
    flat[Sample.AT_S][place] = crossed + rtt + rules.overhead_s
    flat[Sample.UPLINK_BPS][place] = uplink_sample_bps(PROBE_BYTES, crossed - begin, ZERO, ZERO)
    flat[Sample.SENT_BYTES][place] = state.sent_bytes[rows]
    flat[Sample.MEC_SLOWDOWN][place] = state.mec_slowdown[rows] = conditions.mec_slowdown[rows]
    state.told[rows] = told + 1
    return state
