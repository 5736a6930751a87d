"""The nodes of a beam search: the memory that holds them, and which of them remain."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from controller.records import Floats
from envs.twin.record import RECORD
from envs.twin.references import refers_as_well
from envs.twin.state import Environment, record_type

#: Places in flight by whose release nodes are compared, the next one first.
PLACES = 4
#: Captures to come by whose present answers nodes are compared; besides, answers are compared by their score when old.
SEEN = 4


class Ranking(NamedTuple):
    """Guesses of the utility that what is late or already answered will bring, for nodes that reach the same frame and
    for the end of a horizon."""

    device_penalty: float = 0.05  # per capture period for which the device will be busy when the next frame is there
    link_penalty: float = 0.02  # likewise the link
    most_periods: float = 10.0  # of either, more do not count
    seen_weight: float = 0.2  # of the scores that the present answers have at each of the next captures
    old_weight: float = 0.0  # of the score that the newest answer will have when it is old


#: The two numbers of a beam that change.
SEARCHED = record_type(
    last="i8",  # number of the last bucket of this search
    free="i8",  # states
)

#: A decision point that was reached.
NODE = record_type(
    earned="f8",  # before it
    rank="f8",  # the same, less a guess of what the times below will cost
    parent="i8",  # the node before: its bucket times width, plus its place there; -1 at the start
    row="i8",  # that was decided there
    slot="i8",  # of its state in the pool
    # From when on something is free; less is better:
    now_s="f8",
    link_s="f8",
    mec_s="f8",
    place_s=("f8", (PLACES,)),
    owed_s="f8",  # device time of fallbacks that are still to come
    # Scores of the present answers at the next captures, and when they are old; more is better:
    seen=("f8", (SEEN + 1,)),
)


class Beam(NamedTuple):
    """Memory of a search over F frames; bucket n has the nodes at n frames after the start, at most W of them."""

    ranking: Ranking
    streaming_weight: float  # of what a viewer sees at each capture, beside utility
    searched: Any  # (1,) SEARCHED
    totals: Floats  # (F + 1,) what so many frames count for, if each earns 1
    nodes: Any  # (F + 1, W) NODE
    order: Any  # (F + 1, W) places of a bucket: those in use by falling rank, then the others
    count: Any  # (F + 1,) in use
    pool: Environment  # (N,) states of the nodes that are still to be expanded; in number 0 steps are tried
    free: Any  # (N,) numbers of the pool that are not in use
    node: Any  # (1,) NODE that is tried
    records: Any  # (2,) RECORD of its step, and an empty one
    skipped: Floats  # (K,) of its step


def new_beam(
    ranking: Ranking, streaming_weight: float, totals: Floats, width: int, longest_stride: int, like: Environment
) -> Beam:
    """Memory for environments of the same shape as those of ``like``; what is not used is never touched."""
    frames = len(totals) - 1
    size = frames * width + 1
    kept = {name: getattr(like, name) for name in ("state", "requests", "samples", "answers", "streams", "references")}
    states = {name: np.zeros((size, *column.shape[1:]), column.dtype) for name, column in kept.items()}
    return Beam(
        ranking=ranking,
        streaming_weight=streaming_weight,
        searched=np.zeros(1, SEARCHED),
        totals=totals,
        nodes=np.zeros((frames + 1, width), NODE),
        order=np.zeros((frames + 1, width), np.int64),
        count=np.zeros(frames + 1, np.int64),
        pool=like._replace(**states),
        free=np.zeros(size, np.int64),
        node=np.zeros(1, NODE),
        records=np.zeros(2, RECORD),
        skipped=np.zeros(longest_stride - 1),
    )


def clear(w: Beam) -> None:
    """No nodes, every state free."""
    for number in range(w.searched[0].last + 1):
        w.count[number] = 0
        for place in range(w.order.shape[1]):
            w.order[number, place] = place
    w.searched[0].free = w.searched[0].last * w.order.shape[1]
    for k in range(w.searched[0].free):
        w.free[k] = w.searched[0].free - k  # the lowest is taken first


def dominates(one: Any, other: Any) -> bool:
    """Whether a node is in nothing worse than another one. What its payloads may refer to is compared apart, in the
    states: that of the node that is tried is number 0 of the pool."""
    if one.rank < other.rank or one.earned < other.earned:
        return False
    if one.now_s > other.now_s or one.link_s > other.link_s or one.mec_s > other.mec_s or one.owed_s > other.owed_s:
        return False
    for k in range(PLACES):
        if one.place_s[k] > other.place_s[k]:
            return False
    for k in range(SEEN + 1):  # noqa: SIM110 - compiled code has no generators
        if one.seen[k] < other.seen[k]:
            return False
    return True


def keep(w: Beam, number: int) -> bool:
    """Put the node that is tried into a bucket and give it a state, unless others are better; those that are worse,
    leave."""
    order, nodes, node, width = w.order[number], w.nodes[number], w.node[0], w.order.shape[1]
    count = w.count[number]
    if count == width and node.rank <= nodes[order[count - 1]].rank:
        return False
    at = 0
    while at < count and nodes[order[at]].rank >= node.rank:
        if dominates(nodes[order[at]], node) and refers_as_well(w.pool, nodes[order[at]].slot, 0):
            return False
        at += 1
    count = thin_out(w, number, at)
    if count == width:
        count -= 1
        give_back(w, nodes[order[count]].slot)
    place = order[count]
    for k in range(count, at, -1):
        order[k] = order[k - 1]
    order[at] = place
    w.count[number] = count + 1
    w.searched[0].free -= 1
    node.slot = w.free[w.searched[0].free]
    nodes[place] = w.node[0]
    return True


def thin_out(w: Beam, number: int, first: int) -> int:
    """Take the nodes out that the one that is tried dominates, of those from ``first`` on. How many remain."""
    order, nodes, kept = w.order[number], w.nodes[number], first
    for k in range(first, w.count[number]):
        place = order[k]
        if dominates(w.node[0], nodes[place]) and refers_as_well(w.pool, 0, nodes[place].slot):
            give_back(w, nodes[place].slot)
        else:
            order[k], order[kept] = order[kept], place
            kept += 1
    return kept


def give_back(w: Beam, slot: int) -> None:
    """A state that is not needed any more."""
    w.free[w.searched[0].free] = slot
    w.searched[0].free += 1


def release(w: Beam, number: int) -> None:
    """The states of a bucket that was expanded; its nodes remain, for the way back."""
    for k in range(w.count[number]):
        give_back(w, w.nodes[number, w.order[number, k]].slot)
