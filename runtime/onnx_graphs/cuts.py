"""Where a graph can be cut: one sweep of the tensors that are live between its operators.

This module knows no ONNX. It works on names and sizes, so that it is tested on random graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

MOST_TENSORS = 3  # through one cut


@dataclass(frozen=True)
class Step:
    """One operator that depends on the input of the graph. Names of weights and constants are left out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int = 0


@dataclass(frozen=True)
class Flow:
    """What passes between the operators of a graph, in an order in which they can run."""

    source: str  # the input of the graph
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    sizes: Mapping[str, int]  # bytes of each tensor that may cross a cut

    @cached_property
    def maker(self) -> dict[str, int]:
        """The step that makes a tensor."""
        return {name: index for index, step in enumerate(self.steps) for name in step.outputs}

    @cached_property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps)


@dataclass(frozen=True)
class Cut:
    """A place where a graph is cut in two. Its tensors are the same at every resolution of a model."""

    tensors: tuple[str, ...]  # that cross it, in the order in which they are made
    size: int  # of these tensors together, in bytes
    macs_before: int
    macs_after: int


def candidates(flow: Flow, most_tensors: int = MOST_TENSORS) -> list[Cut]:
    """Every place between two steps with at most so many live tensors of known size, in the order of the best sweep.

    Fewer live tensors at a time mean more cuts. The order of the file and two others are tried; the one with the most
    places is taken. All places come from one order, so what is before one is before every later one.
    """
    orders = (range(len(flow.steps)), _depth_first(flow), _fewest_live_bytes(flow))
    return max((list(_sweep(flow, order, most_tensors)) for order in orders), key=len)


def not_dominated(cuts: Iterable[Cut]) -> list[Cut]:
    """The cuts for which no other has at most the bytes and at most the MACs before it, with less of one of them.

    A cut without MACs before it is dominated by sending the image, one without MACs after it by not cutting. Of equal
    ones the last is kept: it is behind the activation, whose output takes fewer bytes once it is encoded.
    """
    kept: list[Cut] = []
    worth = reversed([cut for cut in cuts if cut.macs_before and cut.macs_after])
    for cut in sorted(worth, key=lambda cut: (cut.macs_before, cut.size, len(cut.tensors))):
        if not kept or cut.size < kept[-1].size:
            kept.append(cut)
    return kept


def cut_through(flow: Flow, tensors: Sequence[str]) -> Cut | None:
    """The cut through exactly these tensors; None where other tensors cross it too, or one is not in the graph."""
    if any(name not in flow.maker for name in tensors):
        return None
    before = _ancestors(flow, tensors)
    live = _live_after(flow, before)
    if set(live) != set(tensors) or not all(name in flow.sizes for name in live):
        return None
    return _cut(flow, live, sum(flow.steps[index].macs for index in before))


def choose_cuts(flows: Sequence[Flow], most: int = 6) -> list[Cut]:
    """At most so many cuts of a model, given its graph at each resolution, the largest first; as cuts of that one.

    The cuts that no other dominates come first: of more than ``most``, those with the fewest bytes in equal parts of
    the MACs. Where they leave a wide part of the model without a cut, the one with the fewest bytes there is added,
    for exits. [] for a graph that cannot be cut.

    A cut whose tensors have the same size at two resolutions is left out: what arrives there would not say which
    resolution's piece shall run.
    """
    found = [cut for cut in candidates(flows[0]) if _tells_resolutions_apart(cut, flows)]
    worth = [cut for cut in found if cut.macs_before and cut.macs_after]
    chosen = not_dominated(worth)
    if len(chosen) > most:
        chosen = _spread(chosen, most)
    while len(chosen) < most and (more := _in_widest_gap(worth, chosen, 0.5 / (most + 1))):
        chosen = sorted([*chosen, more], key=lambda cut: cut.macs_before)
    return chosen


def _tells_resolutions_apart(cut: Cut, flows: Sequence[Flow]) -> bool:
    """Whether it is a cut at every resolution, through as many bytes at no two of them."""
    found = [cut_through(flow, cut.tensors) for flow in flows]
    return None not in found and len({own.size for own in found if own is not None}) == len(flows)


def _spread(cuts: list[Cut], most: int) -> list[Cut]:
    """One cut for each of ``most`` equal parts of the MACs between the first and the last: that of fewest bytes."""
    low, high = cuts[0].macs_before, cuts[-1].macs_before
    parts: dict[int, Cut] = {}
    for cut in cuts:
        part = min((cut.macs_before - low) * most // max(high - low, 1), most - 1)
        if part not in parts or cut.size < parts[part].size:
            parts[part] = cut
    return list(parts.values())


def _in_widest_gap(cuts: list[Cut], chosen: list[Cut], least: float) -> Cut | None:
    """The cut of fewest bytes in the middle half of the widest gap that has one there; None below ``least`` of the
    MACs."""
    total = cuts[0].macs_before + cuts[0].macs_after if cuts else 0
    places = [0, *(cut.macs_before for cut in chosen), total]
    for low, high in sorted(pairwise(places), key=lambda gap: gap[0] - gap[1]):
        margin = (high - low) / 4
        inside = [cut for cut in cuts if low + margin <= cut.macs_before <= high - margin]
        if inside and high - low >= least * total:
            return min(reversed(inside), key=lambda cut: (cut.size, cut.macs_before))
    return None


def _sweep(flow: Flow, order: Sequence[int], most_tensors: int) -> Iterator[Cut]:
    uses = _uses(flow)
    live = dict.fromkeys([flow.source])
    done = 0
    for index in order[:-1]:
        step = flow.steps[index]
        _run(step, live, uses)
        done += step.macs
        fits = len(live) <= most_tensors and all(name in flow.sizes for name in live) and flow.source not in live
        if fits:
            yield _cut(flow, live, done)


def _cut(flow: Flow, live: Iterable[str], macs_before: int) -> Cut:
    tensors = tuple(sorted(live, key=lambda name: (flow.maker[name], name)))
    return Cut(tensors, sum(flow.sizes[name] for name in tensors), macs_before, flow.macs - macs_before)


def _uses(flow: Flow) -> dict[str, int]:
    """How often each tensor is still needed: by the steps, and as an output of the graph."""
    uses = dict.fromkeys(flow.outputs, 1)
    for step in flow.steps:
        for name in set(step.inputs):
            uses[name] = uses.get(name, 0) + 1
    return uses


def _run(step: Step, live: dict[str, None], uses: dict[str, int]) -> None:
    for name in set(step.inputs):
        uses[name] -= 1
        if not uses[name]:
            live.pop(name, None)
    live.update((name, None) for name in step.outputs if uses.get(name))


def _depth_first(flow: Flow) -> list[int]:
    """Steps in the order in which the outputs need them: a branch is finished before the next one begins."""
    order: list[int] = []
    seen: set[int] = set()
    stack = [(flow.maker[name], False) for name in reversed(flow.outputs) if name in flow.maker]
    while stack:
        index, finished = stack.pop()
        if finished:
            order.append(index)
        elif index not in seen:
            seen.add(index)
            stack.append((index, True))
            stack += [(flow.maker[name], False) for name in flow.steps[index].inputs if name in flow.maker]
    return order


def _fewest_live_bytes(flow: Flow) -> list[int]:
    """Steps in the order in which, of those that can run, the one that leaves the fewest live bytes is next."""
    uses, order = _uses(flow), list[int]()
    waiting = {index: len({n for n in step.inputs if n in flow.maker}) for index, step in enumerate(flow.steps)}
    users: dict[str, list[int]] = {}
    for index, step in enumerate(flow.steps):
        for name in set(step.inputs):
            users.setdefault(name, []).append(index)
    ready = [index for index, count in waiting.items() if not count]
    growth = _growth(flow, uses)
    while ready:
        index = min(ready, key=lambda index: (growth(index), index))
        ready.remove(index)
        order.append(index)
        _run(flow.steps[index], {}, uses)
        for user in (user for name in flow.steps[index].outputs for user in users.get(name, ())):
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    return order


def _growth(flow: Flow, uses: Mapping[str, int]) -> Callable[[int], int]:
    """By how many bytes the live tensors grow when a step runs, given how often each tensor is still needed."""

    def growth(index: int) -> int:
        step = flow.steps[index]
        freed = sum(flow.sizes.get(name, 0) for name in set(step.inputs) if uses[name] == 1)
        return sum(flow.sizes.get(name, 0) for name in step.outputs if uses.get(name)) - freed

    return growth


def _ancestors(flow: Flow, tensors: Sequence[str]) -> set[int]:
    """The steps that these tensors depend on, those that make them included."""
    found: set[int] = set()
    stack = [flow.maker[name] for name in tensors]
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack += [flow.maker[name] for name in flow.steps[index].inputs if name in flow.maker]
    return found


def _live_after(flow: Flow, before: set[int]) -> list[str]:
    """What the other steps and the outputs need of these steps, or of the input."""
    needed = {name for index, step in enumerate(flow.steps) if index not in before for name in step.inputs}
    needed |= set(flow.outputs)
    return [name for name in needed if name == flow.source or flow.maker[name] in before]
