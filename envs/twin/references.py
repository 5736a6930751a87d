"""What payloads refer to: the senders of ``runtime.link.senders`` as the twin knows them.

A payload is encoded at the end of its head. What it may refer to then depends on which replies have come. Of each
stream that is in use the twin remembers the last requests, and of each of these from when until when it may be a
reference:

* In a free stream, from its reply on. A request that expired at the MEC never may, and what it referred to may no
  longer once the device hears of that, as in ``runtime.codecs.signs``.
* In a chained stream, from the moment at which it was sent; only the newest request may.
* Until the link goes down, which makes the device forget all of them. Requests that a dying link loses are remembered
  like any other until then.

A stream is forgotten when as many others as both sides keep were used since.

One thing is simpler than on a device. A chained payload behind a request that expired is rejected and sent once more,
alone. Here it stands alone at once: the first of the two messages, which is small, and a round trip are left out. This
is rare: a request expires only behind work of seconds at the MEC.
"""

from __future__ import annotations

import math
from typing import Any

from controller.references import NO_STREAM
from envs.twin.state import Environment
from envs.twin.tables import TwinTables

#: Age of a reference where there is none.
NO_AGE = 0


def reference_age(t: TwinTables, env: Environment, stream: int, at_s: float) -> int:
    """Age in frames of what the frame at hand would refer to if it were encoded at ``at_s``; NO_AGE if to nothing."""
    place = place_of(env, stream)
    newest = -1 if place < 0 else newest_reference(t, env, place, at_s)
    return NO_AGE if newest < 0 else max(env.state.frame - env.references[newest].frame, 1)


def place_of(env: Environment, stream: int) -> int:
    """Where a stream is remembered; -1 if it is not."""
    for k in range(len(env.streams)):
        if env.streams[k].number == stream:
            return k
    return -1


def newest_reference(t: TwinTables, env: Environment, place: int, at_s: float) -> int:
    """Which of ``env.references`` a payload refers to that is encoded at ``at_s``; -1 if it stands alone."""
    stream = env.streams[place]
    if t.chained[stream.number]:
        return reference_place(env, place, stream.sent - 1) if stream.sent > 0 and at_s < stream.until_s else -1
    for number in range(stream.sent - 1, max(stream.sent - kept(env), 0) - 1, -1):
        found = reference_place(env, place, number)
        if env.references[found].from_s <= at_s < env.references[found].until_s:
            return found
    return -1


def kept(env: Environment) -> int:
    """How many requests of a stream are remembered."""
    return len(env.references) // len(env.streams)


def reference_place(env: Environment, place: int, number: int) -> int:
    """Where request ``number`` of the stream at ``place`` stands among ``env.references``."""
    return place * kept(env) + number % kept(env)


def use_stream(env: Environment, stream: int) -> None:
    """A head begins whose payload belongs to this stream: it is the last that would be forgotten."""
    place, last = place_of(env, stream), 0
    for k in range(len(env.streams)):
        last = max(last, env.streams[k].used)
    if place < 0:
        place = 0
        for k in range(1, len(env.streams)):
            if env.streams[k].used < env.streams[place].used:
                place = k
        forgotten = env.streams[place]
        forgotten.number, forgotten.sent, forgotten.until_s = stream, 0, math.inf
    env.streams[place].used = last + 1


def note_request(t: TwinTables, env: Environment, stream: int, request: Any, lost: bool) -> None:
    """The payload of the frame at hand was handed to the link; ``lost`` where no reply comes, because the link is
    about to go down."""
    place = place_of(env, stream)
    newest, used = newest_reference(t, env, place, request.end_s), env.streams[place]
    expired = not lost and not request.served
    if newest < 0:
        used.until_s = math.inf
    elif expired and not t.chained[stream]:
        env.references[newest].until_s = min(env.references[newest].until_s, request.reply_s)
    if expired:
        used.until_s = -math.inf
    sent = env.references[reference_place(env, place, used.sent)]
    used.sent += 1
    sent.frame, sent.until_s = env.state.frame, math.inf
    sent.from_s = math.inf if lost or expired else request.reply_s
    if lost:  # the silence may have been foreseen before
        used.until_s = min(used.until_s, max(env.state.down_from_s, request.end_s))


def forget_references(env: Environment, from_s: float) -> None:
    """From that time on nothing that was sent before may be a reference."""
    for k in range(len(env.streams)):
        env.streams[k].until_s = min(env.streams[k].until_s, from_s)
    for k in range(len(env.references)):
        env.references[k].until_s = min(env.references[k].until_s, from_s)


def observe_references(t: TwinTables, env: Environment, age: Any) -> None:
    """Fill ``age`` (streams,): of the reference that each stream has at the decision point."""
    for stream in range(len(age)):
        age[stream] = NO_AGE
    for k in range(len(env.streams)):
        if env.streams[k].number != NO_STREAM:
            age[env.streams[k].number] = reference_age(t, env, env.streams[k].number, env.state.now_s)


# Comparing two states that reach the same frame (``envs.search``) -------------------------------------------


def refers_as_well(pool: Environment, one: int, other: int) -> bool:
    """Whether each stream of environment ``other`` was sent as late in ``one``; replies still to come count."""
    for k in range(len(pool.streams[other])):
        newest = newest_sent(pool, other, k)
        if newest >= 0 and not has_sent(pool, one, pool.streams[other, k].number, newest):
            return False
    return True


def has_sent(pool: Environment, b: int, stream: int, frame: int) -> bool:
    """Whether environment ``b`` may refer to that frame or a later one of a stream, now or later."""
    for k in range(len(pool.streams[b])):
        if pool.streams[b, k].number == stream:
            return newest_sent(pool, b, k) >= frame
    return False


def newest_sent(pool: Environment, b: int, place: int) -> int:
    """Frame of the newest request of the stream at ``place`` that may be referred to, now or later; -1 without one."""
    stream, newest = pool.streams[b, place], -1
    most = len(pool.references[b]) // len(pool.streams[b])
    for number in range(max(stream.sent - most, 0), stream.sent):
        request = pool.references[b, place * most + number % most]
        if request.from_s < math.inf and pool.state[b].now_s < request.until_s:
            newest = max(newest, request.frame)
    return newest
