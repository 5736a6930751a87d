"""The compiled passes do what their source does, to the last bit, and stay within their bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.levels import fitted, moving_levels, signs_of

from runtime.codecs.signs import Signs, passes
from runtime.codecs.signs.coder import TOO_LONG, WINDOW_BYTES
from runtime.codecs.signs.compiled import compiled_passes
from runtime.codecs.signs.contexts import ACTIVITIES, CONTEXT_OF, FIRST_CONTEXTS, SECOND_CONTEXTS, at_rest
from runtime.codecs.signs.passes import Predictions, Space, room_for_a_cell
from runtime.codecs.signs.space import rows_of, space_of
from runtime.codecs.signs.tables import AGES, CHANCE, CLASSES, RANKS, Model

SHAPES = [(1, 1, 1), (3, 1, 4), (3, 5, 3), (8, 3, 5), (12, 5, 7), (24, 3, 5), (9, 1, 1), (20, 2, 1)]


def any_tables(seed: int, channels: int) -> Predictions:
    """Random ones of the right types, which no fit would give."""
    rng = np.random.default_rng(seed)
    ranks = rng.integers(0, RANKS, len(CONTEXT_OF)).astype(np.uint16) * np.uint16(ACTIVITIES)
    return Predictions(ranks, rng.integers(0, 256, (2, channels, RANKS * ACTIVITIES), np.uint8), CHANCE)


def any_space(seed: int, shape: tuple[int, int, int]) -> Space:
    """With a reference that changed at any time."""
    rng = np.random.default_rng(seed)
    memory = at_rest(rng.random(shape) < 0.5, 0)
    memory.values[1:-1, 1:-1] = rng.integers(0, 64, memory.values[1:-1, 1:-1].shape)
    return space_of(memory.values)


def any_values(seed: int, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    return rows_of(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def room(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.zeros(3 * int(np.prod(shape)) + room_for_a_cell(shape[0]), np.uint8)


def run_twice(name: str, seed: int, shape: tuple[int, int, int], *arguments: Any) -> list[tuple[Any, ...]]:
    """Run the source and the compiled pass; ``Space`` stands for a space of their own. Each: what it returns, what it
    leaves in the space, and in the last argument."""
    found = []
    for function in (getattr(passes, name), getattr(compiled_passes(), name)):
        space, own = any_space(seed, shape), [*arguments[:-1], arguments[-1].copy()]
        result = function(*(space if one is Space else one for one in own))
        found.append((result, space.after, space.moved, own[-1]))
    return found


def assert_same(runs: list[tuple[Any, ...]]) -> None:
    plain, quick = runs
    assert plain[0] == quick[0]
    for one, other in zip(plain[1:], quick[1:], strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", SHAPES)
class TestAgainstTheSource:
    def test_encoding_and_decoding(self, shape: tuple[int, int, int], seed: int) -> None:
        tables, values = any_tables(seed, shape[0]), any_values(seed + 1, shape)
        runs = run_twice("encode", seed, shape, tables, Space, values, room(shape))
        assert_same(runs)
        length, after, _, out = runs[1]
        decoded = run_twice("decode", seed, shape, tables, Space, out[:length])
        assert_same(decoded)
        read, restored, *_ = decoded[1]
        assert np.array_equal(restored, after)
        assert read <= length <= read + WINDOW_BYTES

    def test_decoding_of_anything(self, shape: tuple[int, int, int], seed: int) -> None:
        data = np.random.default_rng(seed).integers(0, 256, 9, np.uint8)
        runs = run_twice("decode", seed, shape, any_tables(seed, shape[0]), Space, data)
        assert_same(runs)
        assert runs[1][0] <= 3 * np.prod(shape)

    def test_counting(self, shape: tuple[int, int, int], seed: int) -> None:
        counts = np.zeros((2, shape[0], ACTIVITIES, max(FIRST_CONTEXTS, SECOND_CONTEXTS), 2), np.int32)
        plain, quick = (
            self.counted(function, seed, shape, counts.copy()) for function in (passes.count, compiled_passes().count)
        )
        assert np.array_equal(plain, quick)
        assert plain.sum() == np.prod(shape)

    @staticmethod
    def counted(function: Any, seed: int, shape: tuple[int, int, int], counts: NDArray[np.int32]) -> NDArray[np.int32]:
        function(counts, any_space(seed, shape), any_values(seed + 1, shape))
        return counts

    def test_remembering(self, shape: tuple[int, int, int], seed: int) -> None:
        assert_same(run_twice("remember", seed, shape, Space, any_values(seed + 1, shape)))


@pytest.mark.parametrize("function", [passes.encode, compiled_passes().encode], ids=["source", "compiled"])
def test_a_payload_that_becomes_too_long_is_given_up_and_the_memory_is_complete(function: Any) -> None:
    shape = (8, 6, 5)
    tables, values, space = (
        any_tables(0, 8)._replace(chance=CHANCE[[CLASSES - 1] * CLASSES]),
        any_values(1, shape),
        any_space(0, shape),
    )
    assert function(tables, space, values, np.zeros(30 + room_for_a_cell(8), np.uint8)) == TOO_LONG
    expected = any_space(0, shape)
    passes.remember(expected, values)
    assert np.array_equal(space.after, expected.after)


@pytest.mark.parametrize("channels", [*range(1, 26), 32])
def test_there_is_room_for_the_worst_half_of_a_cell(channels: int) -> None:
    """The length is only looked at after each cell."""
    most = max(
        sum(min(group + 4, channels) - group for group in range(passes._first_channel(0, 0, half), channels, 8))
        for half in range(2)
    )
    assert max(3 * most, WINDOW_BYTES) <= room_for_a_cell(channels)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_halves_hold_every_place_once_and_neighbours_are_in_the_other_half(shape: tuple[int, int, int]) -> None:
    half_of = np.full(shape, -1)
    for half in range(2):
        for y, x in np.ndindex(shape[1:]):
            for group in range(passes._first_channel(y, x, half), shape[0], 8):
                assert (half_of[group : group + 4, y, x] == -1).all()
                half_of[group : group + 4, y, x] = half
    assert set(np.unique(half_of)) <= {0, 1}
    assert (half_of[:, 1:] != half_of[:, :-1]).all()
    assert (half_of[:, :, 1:] != half_of[:, :, :-1]).all()


def test_indices_and_activities_are_those_of_the_definition() -> None:
    shape = (12, 4, 5)
    space, values = any_space(3, shape), any_values(4, shape)
    passes.remember(space, values)
    before, after = (memory.reshape(6, 7, 12).astype(int) for memory in (space.before, space.after))

    def cross(of: NDArray[Any]) -> Any:
        return of[:-2, 1:-1] + of[2:, 1:-1] + of[1:-1, :-2] + of[1:-1, 2:]

    here, near = before[1:-1, 1:-1], cross(before % 2)
    for half, more in enumerate((np.array(125), 5 * cross(after % 2) + 25 * cross((after < 2).astype(int)))):
        passes._find_indices(space, half)
        assert np.array_equal(space.indices.reshape(here.shape), here + 64 * (near + more))
    moved = (before < 2).sum(axis=2)
    assert np.array_equal(space.moved[0], moved)
    first = [[(c // 4 + y + x) % 2 == 0 for c in range(12)] for y, x in np.ndindex(4, 5)]
    changed = (after[1:-1, 1:-1] < 2) & np.array(first).reshape(4, 5, 12)
    assert np.array_equal(space.moved[1, 1:-1, 1:-1], changed.sum(axis=2))
    around = 2 * moved[1:-1, 1:-1] + cross(moved)
    limits = (1, 2, 3, 5, 8, 12, 18)
    for y, x in np.ndindex(4, 5):
        assert passes._activity(space.moved[0], y + 1, x + 1) == sum(around[y, x] >= limit for limit in limits)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=300), age=st.sampled_from([0, *AGES]))
def test_no_bytes_make_decoding_take_more_than_a_pass(data: bytes, age: int) -> None:
    shape = (8, 9, 10)
    model = Model(shape, fitted(shape, 4))
    space = space_of(model.background.values)
    read = compiled_passes().decode(model.predictions(age), space, np.frombuffer(data, np.uint8))
    assert read <= 3 * 8 * 9 * 10
    assert space.after.max() < 64


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_what_the_tables_do_not_expect_is_stored(share: float) -> None:
    shape = (12, 9, 11)
    sender = Signs().sender(shape, fitted(shape))
    rng = np.random.default_rng(0)
    for number in range(1, 4):
        encoded = sender.encode(signs_of((rng.random(shape) < share).astype(np.uint8)), number)
        sender.sent(number)
        sender.answered(number)
        assert encoded.payload[0] & 3 in (0, 1)
        assert len(encoded.payload) <= (12 * 9 * 11 + 7) // 8 + 1


def test_levels_may_be_given_in_any_order_of_memory() -> None:
    levels = signs_of(moving_levels((12, 9, 11), 1)[0])
    last = np.ascontiguousarray(levels.transpose(1, 2, 0)).transpose(2, 0, 1)  # as an engine keeps them
    last.flags.writeable = False
    wide = np.repeat(levels, 2, axis=2)[:, :, ::2]
    for other in (last, wide, levels.astype(np.float64)):
        assert np.array_equal(rows_of(other), rows_of(levels))
        sizes = [len(Signs().sender((12, 9, 11), {}).encode(one, 0).payload) for one in (levels, other)]
        assert sizes[0] == sizes[1]
