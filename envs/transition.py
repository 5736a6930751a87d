"""What does one decision lead to? The twin's step: ``transition(world, rows) -> (world, record)``, pure.

The timeline is that of docs/architecture.md. Everything about a frame is settled at its decision point, because what
it depends on has been settled before: the uplink and the MEC serve in order, fallbacks run in order, and what others
do does not depend on this device. What the device *knows* comes later, when a reply or an outcome arrives.

Where that costs little, what is rare is computed only when it happens in one of the rows: a link that goes silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from controller.records import Bools, Floats, Ints, Status
from controller.telemetry import (
    FALLBACK_MARGIN,
    GIVE_UP_DEADLINES,
    MAX_UNANSWERED,
    OUTCOME_ALPHA,
    SLOWDOWN_ALPHA,
    fallback_reserve_s,
    smooth,
    uplink_sample_bps,
)
from envs.conditions import NOISE_ROWS, Conditions
from envs.flight import Flight, Moment, fly
from envs.rules import Luck, Rules
from envs.world import PROBE_BYTES, SAMPLES_KEPT, Last, Place, Sample, World, link_is_down

#: The session takes the link for down after 0.75 s without a word from the MEC, which it checks every 0.25 s.
SILENCE_S = 0.875
#: Codes of StepRecord.status.
STATUSES = tuple(Status)
_OK, _LATE, _FALLBACK = (STATUSES.index(s) for s in (Status.OK, Status.LATE, Status.FALLBACK))
_STATUS_OF = np.array([_LATE, _OK, _LATE, _FALLBACK])  # by on time + 2 * answered by a fallback
#: Captures are at multiples of the interval; rounding must not hide one.
_TICK = 1e-9
_FORGET = 1.0 - OUTCOME_ALPHA


class Answer(NamedTuple):
    """How a frame ends. A fallback that is not used has no duration."""

    row: Ints  # whose answer it is
    sent: Bools  # the MEC was asked
    settled_s: Floats  # when the outcome is known
    on_time: Bools
    silent: Bools  # no answer came
    fell_back: Bools  # the device answered in the MEC's place
    fallback_s: Floats  # when a fallback after the head starts; infinite without
    fallback_busy_s: Floats


class _Next(NamedTuple):
    """The decision point after this one."""

    now_s: Floats
    frame: Ints
    capture_s: Floats
    queued: Ints
    dropped: Ints


class _Link(NamedTuple):
    """What is new on the link: who was sent, what replies will tell, and when it is silent."""

    sent: Ints
    told: Ints
    sent_bytes: Floats
    lost_bytes: Floats
    down_from_s: Floats
    down_until_s: Floats
    mec_slowdown: Floats
    last: Floats  # (Last.COUNT, B)
    samples: Floats  # (Sample.COUNT, SAMPLES_KEPT + 1, B)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What became of each row's decision, in raw terms; every array is (B,). What few ask for is made when asked."""

    frame: Ints
    row: Ints  # of the cost table, as decided
    energy_j: Floats
    dropped: Ints  # frames dropped before the next decision
    reward: Floats  # utility of this frame and of the dropped ones
    done: Bools  # this was the episode's last decision
    decided_s: Floats  # since the episode began
    capture_s: Floats
    first_sample: Ints
    flight: Flight
    answer: Answer
    rules: Rules

    @property
    def status(self) -> Ints:
        """Index into STATUSES."""
        return np.asarray(_STATUS_OF.take(self.answer.on_time + 2 * self.answer.fell_back))

    @property
    def on_time(self) -> Bools:
        return self.answer.on_time

    @property
    def latency_s(self) -> Floats:
        """Capture to answer; the give-up time when none came."""
        return np.asarray(self.answer.settled_s - self.capture_s)

    @property
    def sample(self) -> Ints:
        """Column of the recorded scores."""
        return np.asarray((self.first_sample + self.frame) % self.rules.samples)

    @property
    def score(self) -> Floats:
        """Recorded score of the answer that was given; 0 without."""
        return np.asarray(_recorded_score(self.rules, self.answer, self.sample) * ~self.answer.silent)

    @property
    def accuracy(self) -> Floats:
        """Expected score of the answer that was given; 0 without."""
        return np.asarray(self.rules.accuracy.take(self.answer.row) * ~self.answer.silent)

    @property
    def utility(self) -> Floats:
        """Of this frame alone."""
        return np.asarray(self.reward + self.rules.utility.drop_penalty * self.dropped)

    @property
    def payload_bytes(self) -> Floats:
        return np.asarray(self.flight.payload_bytes * self.answer.sent)

    def breakdown_s(self) -> dict[str, Floats]:
        """Terms of the latency as decided, also where a fallback answered; named as in BreakdownMs."""
        f, sent = self.flight, self.answer.sent
        return {
            "wait": self.decided_s - self.capture_s,
            "head": f.end_s - self.decided_s,
            "uplink": (f.arrival_s - f.end_s) * sent,
            "queue": f.queue_s * sent,
            "tail": f.tail_s * sent,
            "downlink": (f.reply_s - f.done_s) * sent,
        }


def _recorded_score(rules: Rules, answer: Answer, sample: Ints) -> Any:
    return rules.score.take(rules.score_start.take(answer.row) + sample)


def transition(
    rules: Rules, conditions: Conditions, world: World, moment: Moment, rows: Ints
) -> tuple[World, StepRecord]:
    """Take ``rows`` (B,) of the cost table at the present decision points."""
    answer_by = world.capture_s + conditions.deadline_s
    taken = _taken(rules, world, moment, rows, answer_by)
    flight = fly(rules, conditions, moment, taken)
    slowdown = smooth(world.device_slowdown, moment.device_pace, SLOWDOWN_ALPHA)
    answer = _answer(rules, conditions, world, moment, flight, slowdown, taken, rows, answer_by)
    places = _take_place(world, moment, answer)
    link = _send(rules, conditions, world, moment, flight, answer)
    following = _advance(rules, conditions, world, moment, places, link.sent, flight, answer)
    on_time_frac, fallback_frac = _count_outcomes(world, places, answer, following)
    after = World(
        now_s=following.now_s,
        frame=following.frame,
        capture_s=following.capture_s,
        queued=following.queued,
        heard=link.told - np.add.reduce(link.samples[Sample.AT_S, :-1] > following.now_s, axis=0),
        fallback_end_s=np.maximum(world.fallback_end_s, answer.settled_s * answer.fell_back),
        device_slowdown=slowdown,
        on_time_frac=on_time_frac,
        fallback_frac=fallback_frac,
        places=places,
        **link._asdict(),
    )
    return after, _record(rules, conditions, world, flight, answer, following, rows)


def _taken(rules: Rules, world: World, moment: Moment, rows: Ints, answer_by: Floats) -> Ints:
    """The rows that are carried out: a local one where an offload was decided and the link cannot take it."""
    full = world.told - world.heard >= MAX_UNANSWERED
    refused = (moment.down | full) & rules.offload.take(rows)
    if not refused.any():
        return rows
    choice = _fallback_choice(rules, answer_by - world.now_s, world.device_slowdown)
    return np.where(refused, rules.frontier.take(choice), rows)


def _fallback_choice(rules: Rules, left_s: Floats, slowdown: Floats) -> Ints:
    """The most accurate row of the frontier that fits what is left of the deadline, else the fastest."""
    fits = rules.frontier_s.searchsorted(left_s / (slowdown * FALLBACK_MARGIN), side="right")
    return np.maximum(fits - 1, 0)


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
    due = answer_by - fallback_reserve_s(rules.frontier_s[0] * slowdown)
    falls_back = sent & (end <= due) & (reply > due)
    given = np.where(sent, reply, end)
    if (unsent := sent & link_is_down(world, end)).any():
        sent = sent & ~unsent
        due = np.where(unsent, end, due)
        falls_back = (falls_back & sent) | (unsent & (end < answer_by))
        given[unsent] = np.inf
    start = np.maximum(due, world.fallback_end_s)
    choice = _fallback_choice(rules, answer_by - start, slowdown)
    busy = rules.frontier_s.take(choice) * _fallback_pace(rules, conditions, world, moment, start) * falls_back
    given = np.where(falls_back, start + busy, given)
    give_up = np.maximum(world.capture_s + GIVE_UP_DEADLINES * conditions.deadline_s, end)
    silent = (given > give_up) & (given > end) & ~falls_back
    return Answer(
        row=np.where(falls_back, rules.frontier.take(choice), taken),
        sent=sent,
        settled_s=np.where(silent, give_up, given),
        on_time=given <= answer_by,
        silent=silent,
        fell_back=falls_back | (taken != rows),
        fallback_s=np.where(falls_back, start, np.inf),
        fallback_busy_s=busy,
    )


def _fallback_pace(rules: Rules, conditions: Conditions, world: World, moment: Moment, start_s: Floats) -> Floats:
    """Device time / profiled time of this frame's fallback."""
    last = conditions.device_pace.shape[1] - 1
    second = moment.first_second + np.minimum(start_s.astype(np.int64), last)
    luck = rules.luck[Luck.FALLBACK].take((conditions.noise_start + world.frame) & (NOISE_ROWS - 1))
    return np.asarray(conditions.device_slowdown * conditions.device_pace.ravel().take(second) * luck)


def _take_place(world: World, moment: Moment, answer: Answer) -> Floats:
    """The places in flight after this frame took one, if it was sent; requests take them in turn."""
    in_flight, batch = world.places.shape[1] - 1, world.places.shape[2]
    place = np.where(answer.sent, world.sent % in_flight, in_flight) * batch + moment.row
    places = world.places.copy()
    flat = places.reshape(Place.COUNT, -1)
    flat[Place.RELEASE_S][place] = np.minimum(answer.settled_s, answer.fallback_s)
    flat[Place.FALLBACK_S][place] = answer.fallback_s
    flat[Place.FALLBACK_BUSY_S][place] = answer.fallback_busy_s
    flat[Place.SETTLE_S][place] = answer.settled_s
    flat[Place.ON_TIME][place] = answer.on_time
    flat[Place.FELL_BACK][place] = answer.fell_back & answer.on_time
    return places


def _send(rules: Rules, conditions: Conditions, world: World, moment: Moment, flight: Flight, answer: Answer) -> _Link:
    """Hand the payload to the link and note what its reply will tell, unless the link goes silent before."""
    sent = answer.sent
    request = np.empty_like(world.last)
    request[Last.CROSSED_S] = flight.crossed_s
    request[Last.REPLY_S] = flight.reply_s
    request[Last.ARRIVAL_S] = flight.arrival_s
    request[Last.DONE_S] = flight.done_s
    request[Last.EXTRA_S] = flight.extra_s
    link = _Link(
        sent=world.sent + sent,
        told=world.told,
        sent_bytes=world.sent_bytes + flight.payload_bytes * sent,
        lost_bytes=world.lost_bytes.copy(),
        down_from_s=world.down_from_s.copy(),
        down_until_s=world.down_until_s.copy(),
        mec_slowdown=world.mec_slowdown,
        last=np.where(sent, request, world.last),
        samples=world.samples.copy(),
    )
    slowdown = smooth(world.mec_slowdown, moment.mec_pace, SLOWDOWN_ALPHA)
    crossing = flight.crossed_s - flight.begin_s
    told = (flight.payload_bytes, crossing, flight.reply_s, flight.reply_s, flight.queue_s, slowdown)
    silent_from = np.maximum(flight.end_s, world.last[Last.REPLY_S])
    breaks = sent & (flight.reply_s - silent_from > SILENCE_S)
    lost = breaks | (sent & (flight.end_s < world.down_until_s))  # or handed over before a silence still to come
    if not lost.any():
        return _tell(link, moment.row, sent, *told)
    link = _tell(link, moment.row, sent & ~lost, *told)
    link.lost_bytes[lost] = link.sent_bytes[lost]
    _go_silent(rules, conditions, link, np.flatnonzero(breaks), silent_from + SILENCE_S)
    return link


def _tell(
    link: _Link,
    row: Ints,
    where: Bools,
    payload_bytes: Any,
    crossing_s: Floats,
    at_s: Floats,
    reply_s: Floats,
    queue_s: Floats,
    mec_slowdown: Floats,
) -> _Link:
    """Add a sample in the given rows; ``link.samples`` is this step's own copy.

    The device knows when a payload began to cross, when its reply came and what of that was the MEC's time and the
    bare round trip, so it can tell how long the crossing took.
    """
    place = np.where(where, link.told & (SAMPLES_KEPT - 1), SAMPLES_KEPT) * len(row) + row
    flat = link.samples.reshape(Sample.COUNT, -1)
    flat[Sample.AT_S][place] = at_s
    flat[Sample.UPLINK_BPS][place] = uplink_sample_bps(payload_bytes, crossing_s, 0.0, 0.0)
    flat[Sample.SENT_BYTES][place] = link.sent_bytes
    flat[Sample.REPLY_S][place] = reply_s
    flat[Sample.QUEUE_S][place] = queue_s
    flat[Sample.MEC_SLOWDOWN][place] = mec_slowdown
    return link._replace(told=link.told + where, mec_slowdown=np.where(where, mec_slowdown, link.mec_slowdown))


def _go_silent(rules: Rules, conditions: Conditions, link: _Link, rows: Ints, down_from_s: Floats) -> None:
    """In these rows the link is down until the reply that broke it comes; then a probe tells what the uplink carries.

    ``link`` is this step's own, and changed in place.
    """
    batch, rtt, start = len(link.told), conditions.rtt_s[rows], conditions.trace_start_s[rows]
    up, from_s = link.last[Last.REPLY_S, rows], down_from_s[rows]
    joins = link.down_until_s[rows] > from_s  # the silence before
    link.down_from_s[rows] = np.where(joins, link.down_from_s[rows], from_s)
    link.down_until_s[rows] = up
    begin = np.maximum(up + rtt, link.last[Last.CROSSED_S, rows])
    bits = PROBE_BYTES * conditions.bits_per_byte[rows]
    crossed = rules.bank.finish_s(conditions.trace[rows], start + begin, bits) - start
    link.last[Last.CROSSED_S, rows] = crossed
    flat, told = link.samples.reshape(Sample.COUNT, -1), link.told[rows]
    newest = ((told - 1) & (SAMPLES_KEPT - 1)) * batch + rows
    place = (told & (SAMPLES_KEPT - 1)) * batch + rows
    flat[:, place] = flat[:, newest]  # the MEC itself tells nothing new, but
    flat[Sample.AT_S][place] = crossed + rtt + rules.overhead_s
    flat[Sample.UPLINK_BPS][place] = uplink_sample_bps(PROBE_BYTES, crossed - begin, 0.0, 0.0)
    flat[Sample.SENT_BYTES][place] = link.sent_bytes[rows]
    flat[Sample.MEC_SLOWDOWN][place] = link.mec_slowdown[rows] = conditions.mec_slowdown[rows]
    link.told[rows] = told + 1


def _advance(
    rules: Rules,
    conditions: Conditions,
    world: World,
    moment: Moment,
    places: Floats,
    sent: Ints,
    flight: Flight,
    answer: Answer,
) -> _Next:
    """The next moment at which the device is free, may send and has a frame."""
    in_flight, batch = places.shape[1] - 1, places.shape[2]
    oldest = places[Place.RELEASE_S].ravel().take((sent % in_flight) * batch + moment.row)
    first = world.frame + 1
    now = np.maximum(np.maximum(flight.end_s, oldest), first * conditions.interval_s)
    starts = places[Place.FALLBACK_S, :-1]
    ends = starts + places[Place.FALLBACK_BUSY_S, :-1]
    at_once = answer.fell_back & ~answer.sent
    if at_once.any():  # the link went down under the head, and its fallback has no place
        now = np.maximum(now, answer.settled_s * at_once)
    while True:  # fallbacks that start while the device idles; each may let it meet one more
        running = (starts <= now) & (ends > now)
        if not running.any():
            break
        now = np.maximum(now, np.maximum.reduce(np.where(running, ends, 0.0), axis=0))
    captured = np.minimum((now / conditions.interval_s + _TICK).astype(np.int64) + 1, conditions.frames)
    frame = np.maximum(first, captured - rules.queue_limit)
    queued = np.maximum(captured - frame - 1, 0)
    return _Next(now, frame, frame * conditions.interval_s, queued, frame - first)


def _count_outcomes(world: World, places: Floats, answer: Answer, following: _Next) -> tuple[Floats, Floats]:
    """Smooth the fractions over the outcomes that have become known, and mark these in ``places`` as counted.

    Several at once count with their mean, which is the sequential smoothing but for the order among them.
    """
    settle = places[Place.SETTLE_S, :-1]
    known = settle <= following.now_s
    count, on_time, fell_back = np.add.reduce(places[Place.ONE :, :-1] * known, axis=1)
    at_once = ~answer.sent
    count = count + at_once + following.dropped
    on_time = on_time + (at_once & answer.on_time)
    fell_back = fell_back + (at_once & answer.on_time & answer.fell_back)
    np.copyto(settle, np.inf, where=known)
    new = (1.0 - _FORGET**count) / np.maximum(count, 1.0)
    return (
        world.on_time_frac + new * (on_time - count * world.on_time_frac),
        world.fallback_frac + new * (fell_back - count * world.fallback_frac),
    )


def _record(
    rules: Rules,
    conditions: Conditions,
    world: World,
    flight: Flight,
    answer: Answer,
    following: _Next,
    rows: Ints,
) -> StepRecord:
    if rules.replayed:
        sample = (conditions.first_sample + world.frame) % rules.samples
        quality: Any = _recorded_score(rules, answer, sample)
    else:
        quality = rules.accuracy.take(answer.row)
    transmit = (flight.crossed_s - flight.begin_s) * answer.sent
    energy = rules.utility.energy_j(flight.head_s + answer.fallback_busy_s, transmit)
    return StepRecord(
        frame=world.frame,
        row=rows,
        energy_j=energy,
        dropped=following.dropped,
        reward=rules.utility.of(quality, answer.on_time, energy, following.dropped),
        done=following.frame >= conditions.frames,
        decided_s=world.now_s,
        capture_s=world.capture_s,
        first_sample=conditions.first_sample,
        flight=flight,
        answer=answer,
        rules=rules,
    )
