"""Where a graph can be cut, on random graphs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.onnx_graphs.cuts import Cut, Flow, Step, candidates, choose_cuts, cut_through, not_dominated


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """A graph of up to 14 steps with one or two outputs each, in which every tensor leads to an output."""
    made, steps = ["image"], list[Step]()
    for index in range(draw(st.integers(2, 14))):
        inputs = draw(st.lists(st.sampled_from(made[-4:]), min_size=1, max_size=3, unique=True))
        outputs = [f"t{index}.{part}" for part in range(draw(st.integers(1, 2)))]
        steps.append(Step(tuple(inputs), tuple(outputs), draw(st.sampled_from([0, 0, 10, 100]))))
        made += outputs
    used = {name for step in steps for name in step.inputs}
    ends = [name for step in steps for name in step.outputs if name not in used]
    sizes = {name: draw(st.integers(1, 9)) for name in made[1:] if draw(st.integers(0, 9))}
    return Flow("image", tuple(ends), tuple(steps), sizes)


def crossing(flow: Flow, before: set[int]) -> set[str]:
    """What is made by these steps and needed by others, or is an output; the image too where others need it."""
    made = {"image", *(name for index in before for name in flow.steps[index].outputs)}
    needed = {name for index, step in enumerate(flow.steps) if index not in before for name in step.inputs}
    return made & (needed | set(flow.outputs))


def steps_before(flow: Flow, cut: Cut) -> set[int]:
    found: set[int] = set()
    names = list(cut.tensors)
    while names:
        name = names.pop()
        index = flow.maker.get(name)
        if index is not None and index not in found:
            found.add(index)
            names += flow.steps[index].inputs
    return found


@given(flows(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_exactly_the_tensors_of_a_cut_cross_it(flow: Flow, most: int) -> None:
    found = candidates(flow, most)
    for cut in found:
        before = steps_before(flow, cut)
        assert crossing(flow, before) == set(cut.tensors)
        assert 1 <= len(cut.tensors) <= most
        assert cut.macs_before == sum(flow.steps[index].macs for index in before)
        assert cut.macs_before + cut.macs_after == flow.macs
        assert cut.size == sum(flow.sizes[name] for name in cut.tensors)
    for one, next_one in pairwise(found):
        assert steps_before(flow, one) < steps_before(flow, next_one)


@given(flows())
@settings(max_examples=40, deadline=None)
def test_no_place_of_the_files_own_order_is_lost(flow: Flow) -> None:
    found, before = 0, set[int]()
    for index in range(len(flow.steps) - 1):
        before.add(index)
        live = crossing(flow, before)
        found += len(live) <= 3 and live <= set(flow.sizes)
    assert len(candidates(flow)) >= found


@given(flows())
@settings(max_examples=40, deadline=None)
def test_a_cut_is_found_again_by_its_tensors(flow: Flow) -> None:
    for cut in candidates(flow):
        assert cut_through(flow, cut.tensors) == cut
        assert cut_through(flow, (*cut.tensors, "image")) is None
        assert len(cut.tensors) == 1 or cut_through(flow, cut.tensors[1:]) in (None, *candidates(flow))


@given(flows())
@settings(max_examples=40, deadline=None)
def test_dominated_cuts_go_and_no_other_does(flow: Flow) -> None:
    found = [cut for cut in candidates(flow) if cut.macs_before and cut.macs_after]
    kept = not_dominated(found)
    for cut in found:
        better = [one for one in kept if one.size <= cut.size and one.macs_before <= cut.macs_before]
        assert better
        assert cut not in kept or better == [cut]


@given(flows(), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_chosen_cuts_follow_each_other(flow: Flow, most: int) -> None:
    chosen = choose_cuts([flow], most)
    assert len(chosen) <= most
    assert all(one.macs_before < other.macs_before for one, other in pairwise(chosen))
    assert all(steps_before(flow, one) < steps_before(flow, other) for one, other in pairwise(chosen))


def chain(*sizes: int) -> Flow:
    names = ["image", *(f"t{index}" for index in range(len(sizes)))]
    steps = tuple(Step((a,), (b,), 10) for a, b in pairwise(names))
    return Flow("image", (names[-1],), steps, dict(zip(names[1:], sizes, strict=True)))


def test_few_bytes_come_first_and_gaps_are_filled() -> None:
    flow = chain(90, 80, 99, 98, 97, 96, 95, 94, 93, 30, 99, 20, 1)
    assert [cut.size for cut in not_dominated(candidates(flow))] == [90, 80, 30, 20]
    chosen = [cut.size for cut in choose_cuts([flow], 5)]
    assert chosen == [90, 80, 94, 30, 20]  # 93 is too close to 30


def test_resolutions_share_their_cuts() -> None:
    large = chain(90, 80, 70, 60, 1)
    small = replace(large, sizes={name: size // 2 for name, size in large.sizes.items() if name != "t1"})
    assert [cut.tensors for cut in choose_cuts([large, small])] == [("t0",), ("t2",), ("t3",)]


def test_a_cut_of_the_same_size_at_two_resolutions_is_left_out() -> None:
    large = chain(90, 80, 70, 60, 1)
    small = replace(large, sizes={name: size if name == "t1" else size // 2 for name, size in large.sizes.items()})
    assert [cut.tensors for cut in choose_cuts([large, small])] == [("t0",), ("t2",), ("t3",)]


def test_depth_first_order_finds_cuts_that_the_files_order_hides() -> None:
    """Four branches, listed level by level: only one after the other are few tensors live."""
    branches = range(4)
    first = tuple(Step(("image",), (f"a{n}",), 1) for n in branches)
    second = tuple(Step((f"a{n}",), (f"b{n}",), 1) for n in branches)
    joins = (
        Step(("b0", "b1"), ("j1",)),
        Step(("j1", "b2"), ("j2",)),
        Step(("j2", "b3"), ("end",)),
        Step(("end",), ("out",), 1),
    )
    stem = Step(("image",), ("stem",), 1)
    first = tuple(replace(step, inputs=("stem",)) for step in first)
    steps = (stem, *first, *second, *joins)
    flow = Flow("image", ("out",), steps, {name: 1 for step in steps for name in step.outputs})
    assert len(candidates(flow)) > 8
