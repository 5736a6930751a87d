"""What does one decision lead to? The twin's step: ``transition(world, rows) -> (world, record)``, pure.

The timeline is that of docs/architecture.md. Everything about a frame is settled at its decision point, because what
it depends on has been settled before: the uplink and the MEC serve in order, fallbacks run in order, and what others
do does not depend on this device. What the device *knows* comes later, when a reply or an outcome arrives.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from controller.records import Floats, Ints
from controller.telemetry import (
    FALLBACK_MARGIN,
    MAX_UNANSWERED,
    OUTCOME_ALPHA,
    SLOWDOWN_ALPHA,
    fallback_reserve_s,
    smooth,
)
from envs.conditions import Conditions
from envs.flight import Flight, Moment, fly
from envs.record import STATUSES, Answer, StepRecord, recorded_score
from envs.rules import Rules
from envs.skips import Skipped, nothing_skipped, skip, with_answer
from envs.uplink_state import send
from envs.world import ONE, ZERO, Place, Sample, World, filled, link_is_down, select

__all__ = ["STATUSES", "StepRecord", "transition"]

#: Captures are at multiples of the interval; rounding must not hide one.
_TICK = np.array(1e-9)
_FORGET = np.array(1.0 - OUTCOME_ALPHA)
_SURE, _NONE = np.array(1.0), np.array(0)
_ALPHA, _MARGIN, _FULL = np.array(SLOWDOWN_ALPHA), np.array(FALLBACK_MARGIN), np.array(MAX_UNANSWERED)


class _Next(NamedTuple):
    """The decision point after this one."""

    now_s: Floats
    frame: Ints
    capture_s: Floats
    queued: Ints
    dropped: Ints


def transition(
    rules: Rules, conditions: Conditions, world: World, moment: Moment, rows: Ints
) -> tuple[World, StepRecord]:
    """Take ``rows`` (B,) of the cost table at the present decision points."""
    answer_by = world.capture_s + conditions.deadline_s
    taken = _taken(rules, world, moment, rows, answer_by)
    flight = fly(rules, conditions, moment, taken)
    slowdown = smooth(world.device_slowdown, moment.device_pace, _ALPHA)
    answer = _answer(rules, conditions, world, moment, flight, slowdown, taken, rows, answer_by)
    places = _take_place(world, moment, answer)
    uplink = send(rules, conditions, world, moment, flight, answer.sent)
    answers, skipped = world.answers, nothing_skipped(len(rows))
    first = world.frame + ONE
    if rules.longest_interval > 1:
        first = world.frame + rules.interval.take(rows)
        answers = with_answer(world, answer)
        skipped = skip(rules, conditions, world, answers, first)
    following = _advance(rules, conditions, moment, places, uplink.sent, flight, answer, first)
    on_time_frac, fallback_frac = _count_outcomes(world, places, answer, following)
    unheard = (uplink.samples[Sample.AT_S, :-1] > following.now_s).astype(np.float64)
    after = World(
        now_s=following.now_s,
        frame=following.frame,
        capture_s=following.capture_s,
        queued=following.queued,
        heard=uplink.told - (np.ones(len(unheard)) @ unheard).astype(np.int64),
        fallback_end_s=np.maximum(world.fallback_end_s, answer.settled_s * answer.fell_back),
        device_slowdown=slowdown,
        on_time_frac=on_time_frac,
        fallback_frac=fallback_frac,
        places=places,
        answers=answers,
        **uplink._asdict(),
    )
    return after, _record(rules, conditions, world, flight, answer, skipped, following, rows)


def _taken(rules: Rules, world: World, moment: Moment, rows: Ints, answer_by: Floats) -> Ints:
    """The rows that are carried out: a local one where an offload was decided and the link cannot take it."""
    full = world.told - world.heard >= _FULL
    refused = (moment.down | full) & rules.offload.take(rows)
    if not np.count_nonzero(refused):
        return rows
    choice = _fallback_choice(rules, answer_by - world.now_s, world.device_slowdown)
    return np.asarray(select(refused, rules.frontier.take(choice), rows))


def _fallback_choice(rules: Rules, left_s: Floats, slowdown: Floats) -> Ints:
    """The most accurate row of the frontier that fits what is left of the deadline, else the fastest."""
    fits = rules.frontier_s.searchsorted(left_s / (slowdown * _MARGIN), side="right")
    return np.asarray(np.maximum(fits - ONE, _NONE))


def _answer(
    rules: Rules,
    conditions: Conditions,
    world: World,
    moment: Moment,
    flight: Flight,
    slowdown: Floats,
    taken: Ints,
    rows: Ints,
    answer_by: Floats,
) -> Answer:
    """The first of: the local answer, the reply, the fallback; or silence."""
    end, reply = flight.end_s, flight.reply_s
    sent = rules.offload.take(taken)
    due = answer_by - fallback_reserve_s(rules.fastest_s * slowdown)
    falls_back = sent & (end <= due) & (reply > due)
    given = select(sent, reply, end)
    if np.count_nonzero(unsent := sent & link_is_down(world, end)):
        sent = sent & ~unsent
        due = select(unsent, end, due)
        falls_back = (falls_back & sent) | (unsent & (end < answer_by))
        given[unsent] = np.inf
    start = np.maximum(due, world.fallback_end_s)
    choice = _fallback_choice(rules, answer_by - start, slowdown)
    busy = rules.frontier_s.take(choice) * moment.fallback_pace * falls_back
    np.copyto(given, start + busy, where=falls_back)
    give_up = np.maximum(moment.give_up_s, end)
    silent = (given > give_up) & ~falls_back
    return Answer(
        row=select(falls_back, rules.frontier.take(choice), taken),
        sent=sent,
        settled_s=select(silent, give_up, given),
        on_time=given <= answer_by,
        silent=silent,
        fell_back=falls_back | (taken != rows),
        fallback_s=select(falls_back, start, moment.never_s),
        fallback_busy_s=busy,
    )


def _take_place(world: World, moment: Moment, answer: Answer) -> Floats:
    """The places in flight after this frame took one, if it was sent; requests take them in turn."""
    in_flight, batch = world.places.shape[1] - 1, world.places.shape[2]
    place = select(answer.sent, world.sent % moment.places, filled(batch, in_flight)) * moment.batch + moment.row
    places = world.places.copy()
    flat = places.reshape(Place.COUNT, -1)
    flat[Place.RELEASE_S][place] = np.minimum(answer.settled_s, answer.fallback_s)
    flat[Place.FALLBACK_S][place] = answer.fallback_s
    flat[Place.FALLBACK_BUSY_S][place] = answer.fallback_busy_s
    flat[Place.SETTLE_S][place] = answer.settled_s
    flat[Place.ON_TIME][place] = answer.on_time
    flat[Place.FELL_BACK][place] = answer.fell_back & answer.on_time
    return places


def _advance(
    rules: Rules,
    conditions: Conditions,
    moment: Moment,
    places: Floats,
    sent: Ints,
    flight: Flight,
    answer: Answer,
    first: Ints,
) -> _Next:
    """The next moment at which the device is free, may send and has a frame; ``first`` is the next one that is run."""
    oldest = places[Place.RELEASE_S].ravel().take((sent % moment.places) * moment.batch + moment.row)
    now = np.maximum(np.maximum(flight.end_s, oldest), first * conditions.interval_s)
    starts = places[Place.FALLBACK_S, :-1]
    ends = starts + places[Place.FALLBACK_BUSY_S, :-1]
    at_once = (answer.fallback_busy_s > ZERO) & ~answer.sent
    if np.count_nonzero(at_once):  # the link went down under the head, and its fallback has no place
        now = np.maximum(now, answer.settled_s * at_once)
    while True:  # fallbacks that start while the device idles; each may let it meet one more
        running = (starts <= now) & (ends > now)
        if not np.count_nonzero(running):
            break
        now = reduce(np.maximum, select(running, ends, filled(len(now), 0.0, len(ends))), now)
    captured = np.minimum((now / conditions.interval_s + _TICK).astype(np.int64) + ONE, conditions.frames)
    frame = np.maximum(first, captured - rules.queue_limit)
    queued = np.maximum(captured - frame - ONE, _NONE)
    return _Next(now, frame, frame * conditions.interval_s, queued, frame - first)


def _count_outcomes(world: World, places: Floats, answer: Answer, following: _Next) -> tuple[Floats, Floats]:
    """Smooth the fractions over the outcomes that have become known, and mark these in ``places`` as counted.

    Several at once count with their mean, which is the sequential smoothing but for the order among them.
    """
    settle = places[Place.SETTLE_S, :-1]
    known = settle <= following.now_s
    counted, at_once = known.astype(np.float64), (~answer.sent).astype(np.float64)
    on_time, fell_back = at_once * answer.on_time, at_once * (answer.on_time & answer.fell_back)
    count = reduce(np.add, counted, at_once + following.dropped)
    on_time = reduce(np.add, places[Place.ON_TIME, :-1] * counted, on_time)
    fell_back = reduce(np.add, places[Place.FELL_BACK, :-1] * counted, fell_back)
    np.copyto(settle, np.inf, where=known)
    forgotten = _FORGET**count
    new = (_SURE - forgotten) / np.maximum(count, _SURE)
    return (
        forgotten * world.on_time_frac + new * on_time,
        forgotten * world.fallback_frac + new * fell_back,
    )


def _record(
    rules: Rules,
    conditions: Conditions,
    world: World,
    flight: Flight,
    answer: Answer,
    skipped: Skipped,
    following: _Next,
    rows: Ints,
) -> StepRecord:
    if rules.replayed:
        sample = (conditions.first_sample + world.frame) % rules.samples
        quality: Any = recorded_score(rules, answer, sample)
    else:
        quality = rules.accuracy.take(answer.row)
    transmit = (flight.crossed_s - flight.begin_s) * answer.sent
    energy = rules.utility.energy_j(flight.head_s + answer.fallback_busy_s, transmit)
    reward = rules.utility.of(quality, answer.on_time, energy, following.dropped)
    if rules.longest_interval > 1:
        reward += skipped.score
    return StepRecord(
        frame=world.frame,
        row=rows,
        energy_j=energy,
        skipped=skipped.frames,
        skipped_score=skipped.score,
        dropped=following.dropped,
        reward=reward,
        done=following.frame >= conditions.frames,
        decided_s=world.now_s,
        capture_s=world.capture_s,
        first_sample=conditions.first_sample,
        flight=flight,
        answer=answer,
        rules=rules,
    )
