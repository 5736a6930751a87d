"""When would a decision be answered, if it were taken now? Head, uplink, queue and tail of the frame at hand.

The same arithmetic serves the decision that is taken, (B,), and the latency of every candidate, (B, C), which only
the hindsight controller may see.
"""

from __future__ import annotations

from functools import cache, reduce
from typing import NamedTuple

import numpy as np

from controller.predict.arrivals import LEVELS
from controller.records import Bools, Floats, Ints
from controller.timeline import GIVE_UP_DEADLINES
from envs.twin.conditions import NOISE_ROWS, Conditions
from envs.twin.state import ZERO, InFlightSlot, LastRequest, TwinState, filled, link_is_down, row_numbers
from envs.twin.tables import Cost, Noise, TwinTables

#: Share of the MEC's time that others leave, by the level of their load.
_FREE_FRAC = 1.0 - np.arange(LEVELS) / 100
_GIVE_UP = np.array(GIVE_UP_DEADLINES)
_HALF, _NOISE_MASK = np.array(0.5), np.array(NOISE_ROWS - 1)


class DecisionPoint(NamedTuple):
    """What decides how a flight goes. Each is (B,), or (B, 1) against candidates, unless said otherwise."""

    now_s: Floats
    give_up_s: Floats  # when the device gives the frame up
    down: Bools  # the session holds the link for down
    device_pace: Floats  # device time / profiled time of this frame's head
    fallback_pace: Floats  # and of its fallback, under the same load
    mec_pace: Floats
    payload_sample: Ints  # whose payload it is
    payload_luck: Floats  # standard deviations from it, where only the mean is known
    half_rtt_s: Floats
    trace: Ints
    trace_start_s: Floats
    bits_per_byte: Floats
    neighbour_s: Floats
    neighbour_start: Floats
    row: Ints  # 0, 1, ... B - 1
    batch: Ints  # B, ()
    places: Ints  # in flight, ()
    never_s: Floats  # infinite
    first_second: Ints  # where the row's loads start in the flat arrays of all
    last: Floats  # (LastRequest.COUNT, B)
    fallback_s: Floats  # (in flight, B) starts of fallbacks, infinite where there is none
    fallback_busy_s: Floats  # (in flight, B) how long they take


class RequestTimes(NamedTuple):
    """One decision followed to its reply, as if it were sent; of device-only rows ``end_s`` is the answer."""

    head_s: Floats  # device time of the head segment alone
    end_s: Floats  # when the head ends; fallbacks that preempt it included
    payload_bytes: Floats
    begin_s: Floats  # the payload starts to cross
    crossed_s: Floats
    arrival_s: Floats  # at the MEC
    queue_s: Floats
    served: Bools  # by the MEC; otherwise the request expired there
    tail_s: Floats
    done_s: Floats
    extra_s: Floats  # work at the MEC because of own requests, this one included
    reply_s: Floats


def moment_of(rules: TwinTables, conditions: Conditions, world: TwinState) -> DecisionPoint:
    """The moment of the next decision of each row."""
    luck = rules.luck.take((conditions.noise_start + world.frame) & _NOISE_MASK, axis=1)
    batch, seconds = conditions.mec_level.shape
    first = first_places(batch, seconds)
    second = first + np.minimum(world.now_s.astype(np.int64), np.array(seconds - 1))
    pace = conditions.device_slowdown * conditions.device_pace.ravel().take(second)
    return DecisionPoint(
        now_s=world.now_s,
        give_up_s=world.capture_s + _GIVE_UP * conditions.deadline_s,
        down=link_is_down(world, world.now_s),
        device_pace=pace * luck[Noise.HEAD],
        fallback_pace=pace * luck[Noise.FALLBACK],
        mec_pace=conditions.mec_slowdown * luck[Noise.MEC],
        payload_sample=(conditions.first_sample + world.frame) % rules.payload_samples,
        payload_luck=luck[Noise.PAYLOAD],
        half_rtt_s=conditions.rtt_s * _HALF,
        trace=conditions.trace,
        trace_start_s=conditions.trace_start_s,
        bits_per_byte=conditions.bits_per_byte,
        neighbour_s=conditions.neighbour_s,
        neighbour_start=conditions.neighbour_start,
        row=row_numbers(batch),
        batch=np.array(batch),
        places=np.array(world.places.shape[1] - 1),
        never_s=filled(batch, np.inf),
        first_second=first,
        last=world.last,
        fallback_s=world.places[InFlightSlot.FALLBACK_S, :-1],
        fallback_busy_s=world.places[InFlightSlot.FALLBACK_BUSY_S, :-1],
    )


@cache
def first_places(batch: int, seconds: int) -> Ints:
    """Where each row starts in a flat (batch, seconds) array; not to be changed."""
    return np.arange(batch) * seconds


def against_candidates(moment: DecisionPoint) -> DecisionPoint:
    """The moment with a last axis for candidates."""
    return DecisionPoint._make(array[..., None] for array in moment)


def follow_request(rules: TwinTables, conditions: Conditions, moment: DecisionPoint, rows: Ints) -> RequestTimes:
    """Follow the given rows of the cost table, (B,) or, against candidates, (C,)."""
    m, cost = moment, rules.costs.take(rows, axis=1)
    head = cost[Cost.HEAD_S] * m.device_pace
    end = _preempted(m, m.now_s + rules.decide_s + head)
    usual = rules.payload_bytes.take(rules.payload_start.take(rows) + m.payload_sample)
    payload = np.maximum(usual + cost[Cost.PAYLOAD_STD_BYTES] * m.payload_luck, _HALF * usual)
    begin = np.maximum(end, m.last[LastRequest.CROSSED_S])
    bits = (payload + rules.header_bytes) * m.bits_per_byte
    crossed = rules.bank.finish_s(m.trace, m.trace_start_s + begin, bits) - m.trace_start_s
    arrival = crossed + (m.half_rtt_s + rules.overhead_s)
    queue, extra = _wait_at_mec(rules, conditions, m, arrival)
    served = queue <= np.maximum(m.give_up_s - end, ZERO)  # the budget that the request brings; else it expires
    tail = cost[Cost.MEC_S] * m.mec_pace * served
    done = arrival + queue + tail
    reply = done + m.half_rtt_s
    return RequestTimes(head, end, payload, begin, crossed, arrival, queue, served, tail, done, extra + tail, reply)


def true_latency_s(rules: TwinTables, conditions: Conditions, world: TwinState, moment: DecisionPoint) -> Floats:
    """(B, C) capture to answer of every candidate, had it all the time it takes."""
    flight = follow_request(rules, conditions, against_candidates(moment), np.arange(rules.costs.shape[1]))
    reply = np.where(moment.down[:, None], np.inf, flight.reply_s)
    return np.where(rules.offload, reply, flight.end_s) - world.capture_s[:, None]


def _preempted(m: DecisionPoint, end_s: Floats) -> Floats:
    """The end of a head that waits for every fallback that starts before it."""
    undisturbed, pending = end_s, m.fallback_s >= m.now_s
    while True:  # a head that ends later may meet one more fallback, so at most as often as there are places
        met = pending & (m.fallback_s < end_s)
        if not np.count_nonzero(met):
            return end_s
        later = undisturbed + reduce(np.add, m.fallback_busy_s * met.astype(np.float64))
        if not np.count_nonzero(later > end_s):
            return end_s
        end_s = later


def _wait_at_mec(
    rules: TwinTables, conditions: Conditions, m: DecisionPoint, arrival_s: Floats
) -> tuple[Floats, Floats]:
    """Wait behind others' and own work, and how much of it is there because of own requests.

    Own work is done in the share of time that others leave free; with none of them that is exact.
    """
    seconds = conditions.mec_level.shape[1]
    second = np.minimum(arrival_s.astype(np.int64), np.array(seconds - 1))
    level = conditions.mec_level.ravel().take(m.first_second + second)
    others = rules.queue.workload(level, m.neighbour_start + arrival_s / m.neighbour_s) * m.neighbour_s
    done = (arrival_s - m.last[LastRequest.ARRIVAL_S]) * _FREE_FRAC.take(level)
    own = np.maximum(m.last[LastRequest.EXTRA_S] - done, ZERO)
    wait = np.maximum(others + own, m.last[LastRequest.DONE_S] - arrival_s)  # in order of arrival, come what may
    return wait, wait - others
