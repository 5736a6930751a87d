"""The twin's step, what one decision leads to: ``transition(world, rows) -> (world, record)``, pure.

The timeline is that of docs/architecture.md. Everything about a frame is settled at its decision point, because what
it depends on has been settled before: the uplink and the MEC serve in order, fallbacks run in order, and what others
do does not depend on this device. What the device *knows* comes later, when a reply or an outcome arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np

from controller.fallback import Situation
from controller.records import Bools, Floats, Ints
from controller.reuse import next_run
from controller.timeline import (
    MAX_UNANSWERED,
    OUTCOME_ALPHA,
    SLOWDOWN_ALPHA,
    fallback_reserve_s,
    smooth,
)
from envs.twin.conditions import Conditions
from envs.twin.link import send
from envs.twin.record import STATUSES, Answer, Reused, StepRecord, recorded_score
from envs.twin.request import DecisionPoint, RequestTimes, follow_request
from envs.twin.reuse import ask, both, nothing_reused, skip, with_answer
from envs.twin.state import (
    ONE,
    ZERO,
    InFlightSlot,
    Sample,
    TwinState,
    count_rows,
    filled,
    heard_s,
    link_is_down,
    select,
)
from envs.twin.tables import Cost, TwinTables

__all__ = ["STATUSES", "StepRecord", "transition"]

#: Captures are at multiples of the interval; rounding must not hide one.
_TICK = np.array(1e-9)
_FORGET = np.array(1.0 - OUTCOME_ALPHA)
_SURE, _NONE = np.array(1.0), np.array(0)
_ALPHA, _FULL = np.array(SLOWDOWN_ALPHA), np.array(MAX_UNANSWERED)


class _Next(NamedTuple):
    """The decision point after this one."""

    now_s: Floats
    frame: Ints
    capture_s: Floats
    queued: Ints
    dropped: Ints


def transition(
    rules: TwinTables, conditions: Conditions, world: TwinState, moment: DecisionPoint, rows: Ints
) -> tuple[TwinState, StepRecord]:
    """Take ``rows`` (B,) of the cost table at the present decision points."""
    answer_by = world.capture_s + conditions.deadline_s
    refused = _refused(rules, conditions, world, moment, rows)
    taken = _taken(rules, conditions, world, moment, rows, refused)
    flight = follow_request(rules, conditions, moment, taken)
    slowdown = smooth(world.device_slowdown, moment.device_pace, _ALPHA)
    answer = _answer(rules, conditions, world, moment, flight, slowdown, taken, refused, answer_by)
    places = _take_place(world, moment, answer)
    uplink = send(rules, conditions, world, moment, flight, answer.sent)
    answers, reused = world.answers, nothing_reused(len(rows))
    first = world.frame + ONE
    if rules.reuses:
        first = next_run(world.frame, _interval(rules, conditions, world, flight, answer, slowdown, taken))
        answers = with_answer(world, answer)
        reused = skip(rules, conditions, world, answers, first)
    advance = partial(_advance, rules, conditions, moment, places, uplink.sent, flight, answer, slowdown)
    following = advance(first)
    if rules.shortcuts:
        following, more = _pass_over(rules, conditions, answers, following, first, advance)
        reused = both(reused, more)
    on_time_frac, fallback_frac = _count_outcomes(world, places, answer, following)
    unheard = (uplink.samples[Sample.AT_S, :-1] > following.now_s).astype(np.float64)
    after = TwinState(
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
    return after, _record(rules, conditions, world, flight, answer, reused, following, taken)


def _refused(rules: TwinTables, conditions: Conditions, world: TwinState, moment: DecisionPoint, rows: Ints) -> Bools:
    """Where an offload was decided that cannot be carried out: the link is down or holds too much, all places in flight
    are taken, or one was not answered in time and nothing has been heard since."""
    oldest = world.places[InFlightSlot.RELEASE_S].ravel().take((world.sent % moment.places) * moment.batch + moment.row)
    full = (world.told - world.heard >= _FULL) | (oldest > world.now_s)
    overdue_from = world.places[InFlightSlot.OVERDUE_S, :-1]
    overdue = count_rows((overdue_from > heard_s(rules, conditions, world)) & (overdue_from <= world.now_s)) > ZERO
    in_vain = overdue & ~rules.alone.hopeless(conditions.deadline_s, world.device_slowdown)
    return np.asarray((moment.down | full | in_vain) & rules.offload.take(rows))


def _taken(
    rules: TwinTables, conditions: Conditions, world: TwinState, moment: DecisionPoint, rows: Ints, refused: Bools
) -> Ints:
    """The rows that are carried out: a local one where the decision was refused, or the link is down."""
    questioned = refused | moment.down
    if not np.count_nonzero(questioned):
        return rows
    at, taken = np.flatnonzero(questioned), rows.copy()
    situation = _situation(conditions, world, world.now_s, world.device_slowdown, at)
    taken[at] = rules.alone.instead(situation, rows[at])
    return taken


def _situation(conditions: Conditions, world: TwinState, now_s: Floats, slowdown: Floats, at: Ints) -> Situation:
    """Of the frame at hand in the given environments, at a given moment."""
    age = now_s[at] - world.capture_s[at]
    return Situation(age, conditions.deadline_s[at], conditions.interval_s[at], slowdown[at])


def _fallback_rows(
    rules: TwinTables,
    conditions: Conditions,
    world: TwinState,
    flight: RequestTimes,
    slowdown: Floats,
    taken: Ints,
    at: Ints,
) -> Ints:
    """Rows of fallbacks that follow their heads at once: the link went down meanwhile."""
    end, interval = flight.end_s[at], rules.interval.take(taken[at])
    captured = np.minimum((end / conditions.interval_s[at] + _TICK).astype(np.int64) + ONE, conditions.frames[at])
    waiting = np.clip(captured - world.frame[at] - interval, 0, rules.queue_limit)
    share = (interval * conditions.interval_s[at] - flight.head_s[at]) / (1 + waiting)
    return rules.alone.fallback(_situation(conditions, world, flight.end_s, slowdown, at), interval, share)


def _answer(
    rules: TwinTables,
    conditions: Conditions,
    world: TwinState,
    moment: DecisionPoint,
    flight: RequestTimes,
    slowdown: Floats,
    taken: Ints,
    refused: Bools,
    answer_by: Floats,
) -> Answer:
    """The first of: the local answer, the reply, the fallback; or silence."""
    end, reply = flight.end_s, flight.reply_s
    sent = rules.offload.take(taken)
    due = answer_by - fallback_reserve_s(rules.fastest_s * slowdown)
    falls_back = sent & (end <= due) & (reply > due)
    given, row = select(sent, reply, end), select(falls_back, rules.fastest, taken)
    if np.count_nonzero(unsent := sent & link_is_down(world, end)):
        sent = sent & ~unsent
        falls_back = (falls_back & sent) | (unsent & (end < answer_by))
        row = select(unsent & falls_back, rules.fastest, row)
        if len(at := np.flatnonzero(unsent & (end < due))):
            row[at] = _fallback_rows(rules, conditions, world, flight, slowdown, taken, at)
        due = select(unsent, end, due)
        given[unsent] = np.inf
    start = np.maximum(due, world.fallback_end_s)
    fallback_s = select(falls_back, start, moment.never_s)
    overdue = np.minimum(np.maximum(answer_by, end), fallback_s)
    give_up = np.maximum(moment.give_up_s, end)
    if np.count_nonzero(hopeless := falls_back & rules.alone.hopeless(answer_by - start, slowdown)):
        falls_back = falls_back & ~hopeless
        row = select(hopeless, taken, row)
        give_up, given[hopeless] = select(hopeless, start, give_up), np.inf
    busy = rules.costs[Cost.HEAD_S].take(row) * moment.fallback_pace * falls_back
    np.copyto(given, start + busy, where=falls_back)
    silent = (given > give_up) & ~falls_back
    return Answer(
        row=row,
        sent=sent,
        settled_s=select(silent, give_up, given),
        on_time=given <= answer_by,
        silent=silent,
        fell_back=falls_back | refused,
        fallback_s=fallback_s,
        fallback_busy_s=busy,
        overdue_s=select(reply > overdue, overdue, moment.never_s),
    )


def _interval(
    rules: TwinTables,
    conditions: Conditions,
    world: TwinState,
    flight: RequestTimes,
    answer: Answer,
    slowdown: Floats,
    taken: Ints,
) -> Ints:
    """Frames until the next one that may be run. A fallback that begins before that one can be decided, and takes
    longer than its share of the device's time, covers those that pass meanwhile."""
    interval = rules.interval.take(taken)
    free = np.maximum(flight.end_s, (world.frame + interval) * conditions.interval_s)
    if not len(at := np.flatnonzero((answer.fallback_busy_s > ZERO) & (answer.fallback_s <= free))):
        return interval
    share = interval[at] * conditions.interval_s[at] - flight.head_s[at]
    situation = _situation(conditions, world, answer.fallback_s, slowdown, at)
    interval[at] = rules.alone.stretched(situation, interval[at], answer.row[at], share)
    return interval


def _take_place(world: TwinState, moment: DecisionPoint, answer: Answer) -> Floats:
    """The places in flight after this frame took one, if it was sent; requests take them in turn."""
    in_flight, batch = world.places.shape[1] - 1, world.places.shape[2]
    place = select(answer.sent, world.sent % moment.places, filled(batch, in_flight)) * moment.batch + moment.row
    places = world.places.copy()
    flat = places.reshape(InFlightSlot.COUNT, -1)
    flat[InFlightSlot.RELEASE_S][place] = np.minimum(answer.settled_s, answer.fallback_s)
    flat[InFlightSlot.FALLBACK_S][place] = answer.fallback_s
    flat[InFlightSlot.FALLBACK_BUSY_S][place] = answer.fallback_busy_s
    flat[InFlightSlot.SETTLE_S][place] = answer.settled_s
    flat[InFlightSlot.ON_TIME][place] = answer.on_time
    flat[InFlightSlot.OVERDUE_S][place] = answer.overdue_s
    flat[InFlightSlot.FELL_BACK][place] = answer.fell_back & answer.on_time
    return places


def _advance(
    rules: TwinTables,
    conditions: Conditions,
    moment: DecisionPoint,
    places: Floats,
    sent: Ints,
    flight: RequestTimes,
    answer: Answer,
    slowdown: Floats,
    first: Ints,
) -> _Next:
    """The next moment at which the device is free and has a frame; ``first`` is the next one that is run. Where the
    device alone is too slow for the deadline, a place must be free, too."""
    now = np.maximum(flight.end_s, first * conditions.interval_s)
    if np.count_nonzero(needs_place := rules.alone.hopeless(conditions.deadline_s, slowdown)):
        oldest = places[InFlightSlot.RELEASE_S].ravel().take((sent % moment.places) * moment.batch + moment.row)
        now = np.maximum(now, select(needs_place, oldest, filled(len(now), 0.0)))
    starts = places[InFlightSlot.FALLBACK_S, :-1]
    ends = starts + places[InFlightSlot.FALLBACK_BUSY_S, :-1]
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


def _pass_over(
    rules: TwinTables,
    conditions: Conditions,
    answers: Floats,
    following: _Next,
    first: Ints,
    advance: Callable[[Ints], _Next],
) -> tuple[_Next, Reused]:
    """Go on to the next frame that no shortcut answers. Of the frames from ``first`` on, those that are neither run nor
    answered were dropped."""
    passed, up = nothing_reused(len(first)), first
    while len((more := ask(rules, conditions, answers, following)).env):
        passed, up = both(passed, more), up.copy()
        up[more.env] = more.frame + 1
        following = advance(up)
    return following._replace(dropped=following.frame - first - passed.frames), passed


def _count_outcomes(world: TwinState, places: Floats, answer: Answer, following: _Next) -> tuple[Floats, Floats]:
    """Smooth the fractions over the outcomes that have become known, and mark these in ``places`` as counted.

    Several at once count with their mean, which is the sequential smoothing but for the order among them.
    """
    settle = places[InFlightSlot.SETTLE_S, :-1]
    known = settle <= following.now_s
    counted, at_once = known.astype(np.float64), (~answer.sent).astype(np.float64)
    on_time, fell_back = at_once * answer.on_time, at_once * (answer.on_time & answer.fell_back)
    count = reduce(np.add, counted, at_once + following.dropped)
    on_time = reduce(np.add, places[InFlightSlot.ON_TIME, :-1] * counted, on_time)
    fell_back = reduce(np.add, places[InFlightSlot.FELL_BACK, :-1] * counted, fell_back)
    np.copyto(settle, np.inf, where=known)
    forgotten = _FORGET**count
    new = (_SURE - forgotten) / np.maximum(count, _SURE)
    return (
        forgotten * world.on_time_frac + new * on_time,
        forgotten * world.fallback_frac + new * fell_back,
    )


def _record(
    rules: TwinTables,
    conditions: Conditions,
    world: TwinState,
    flight: RequestTimes,
    answer: Answer,
    reused: Reused,
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
    if rules.reuses:
        reward += reused.total
    return StepRecord(
        frame=world.frame,
        row=rows,
        energy_j=energy,
        reused=reused,
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
