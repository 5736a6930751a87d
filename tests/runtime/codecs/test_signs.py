"""Signs come back exactly, with and without tables and references; hostile payloads end in one error type."""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.levels import fitted, moving_levels, signs_of
from support.live import ROOT

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs import decode, encode, get_codec
from runtime.codecs.signs import Signs, fit_tables
from runtime.codecs.signs.compiled import compiled_passes
from runtime.codecs.signs.contexts import Memory, at_rest
from runtime.codecs.signs.space import rows_of, space_of
from runtime.codecs.signs.tables import AGES, Model, prefix, table_of, table_shapes
from runtime.codecs.streams import MOST_AGE, UnknownReferenceError

SHAPE = (6, 11, 14)
TABLES = fitted(SHAPE)

shapes = st.tuples(st.integers(1, 32), st.integers(1, 13), st.integers(1, 13))


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    """Tensors of -1 and +1: constant, sparse or random."""
    size = draw(shapes) if shape is None else shape
    share = draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    return signs_of((np.random.default_rng(draw(st.integers(0, 2**32))).random(size) < share).astype(np.uint8))


def _exchange(tables: dict[str, NDArray[np.uint8]], arrays: list[NDArray[np.float32]], age: int = 1) -> list[int]:
    """Send all arrays, each with the one before it as reference; returns the bytes of each payload."""
    sender, receiver = Signs().sender(arrays[0].shape, tables), Signs().receiver(arrays[0].shape, tables)
    sizes = []
    for number, array in enumerate(arrays, 1):
        encoded = sender.encode(array, number * age)
        sender.sent(number)
        assert np.array_equal(receiver.decode(encoded.payload, number, encoded.reference_id, encoded.digest), array)
        sender.answered(number)
        sizes.append(len(encoded.payload))
    return sizes


@given(array=tensors())
def test_a_payload_that_stands_alone_comes_back_and_is_never_much_larger_than_its_bits(array: Any) -> None:
    payload = encode("signs", array)
    restored = decode("signs", payload, array.shape)
    assert restored.dtype == np.float32
    assert np.array_equal(restored, array)
    assert np.array_equal(get_codec("signs").roundtrip(array[None])[0], array)
    assert len(payload) <= (array.size + 7) // 8 + 1


def test_values_above_zero_are_plus_one() -> None:
    array = np.array([[[-2.5, 0.0, 1e-30, 7]]], np.float32)
    assert decode("signs", encode("signs", array), array.shape).tolist() == [[[-1, -1, 1, 1]]]


@given(arrays=shapes.flatmap(lambda shape: st.lists(tensors(shape), min_size=2, max_size=3)))
def test_without_tables_every_sequence_comes_back(arrays: Any) -> None:
    assert all(size <= (arrays[0].size + 7) // 8 + 1 for size in _exchange({}, arrays))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=shapes, seed=st.integers(0, 99), data=st.data())
def test_with_tables_every_sequence_of_every_shape_comes_back(shape: Any, seed: int, data: st.DataObject) -> None:
    tables = fit_tables(moving_levels(shape, 3, seed))
    arrays = [*signs_of(moving_levels(shape, 3, seed + 1)), data.draw(tensors(shape))]
    assert all(size <= (arrays[0].size + 7) // 8 + 1 for size in _exchange(tables, arrays))


@pytest.mark.parametrize("age", [1, 2, 4, 7, 100])
def test_every_age_comes_back(age: int) -> None:
    _exchange(TABLES, list(signs_of(moving_levels(SHAPE, 30, 1)[::age][:8])), age)


def test_references_and_tables_each_save_most_of_the_bytes() -> None:
    shape = (24, 36, 48)
    frames = list(signs_of(moving_levels(shape, 40, 0)[30:]))
    tables = fit_tables(moving_levels(shape, 30, 0))
    with_both = np.mean(_exchange(tables, frames)[1:])
    without_tables = np.mean(_exchange({}, frames)[1:])
    alone = np.mean([len(encode("signs", frame)) for frame in frames])
    assert with_both < 0.7 * without_tables < 0.5 * alone


def test_a_first_frame_like_the_training_frames_costs_little_though_it_stands_alone() -> None:
    frame = signs_of(moving_levels(SHAPE, 25, 0)[24])
    assert len(Signs().sender(SHAPE, TABLES).encode(frame, 0).payload) < 0.8 * len(encode("signs", frame))


def test_a_table_serves_the_ages_up_to_the_next_one() -> None:
    assert [table_of(age) for age in (0, 1, 2, 3, 4, 5, 7, 8, MOST_AGE)] == [0, 1, 2, 3, 3, 4, 4, 5, 5]
    assert table_of(MOST_AGE) == len(AGES)


def test_the_same_frames_give_the_same_tables_of_the_stated_shapes() -> None:
    again = fit_tables(moving_levels(SHAPE, 24))
    assert again.keys() == TABLES.keys()
    assert all(np.array_equal(again[name], TABLES[name]) for name in TABLES)
    Model(SHAPE, TABLES)


def _after(memory: Memory, levels: NDArray[np.bool_]) -> Memory:
    """The memory that a payload of these levels leaves behind."""
    space = space_of(memory.values)
    compiled_passes().remember(space, rows_of(levels))
    return Memory(space.after.reshape(memory.values.shape), 0)


def test_a_memory_counts_payloads_since_each_change() -> None:
    memory = at_rest(np.array([[[True, False]]]), 0)
    for levels in ([True, True], [True, True], [False, True]):
        memory = _after(memory, np.array([[levels]]))
    assert memory.values[1:-1, 1:-1].tolist() == [[[0], [1 + 2 * 2]]]
    assert memory.levels.tolist() == [[[False, True]]]


def test_a_memory_counts_no_further_than_its_index_has_room_for() -> None:
    levels = np.array([[[True]], [[False]]])
    changed = _after(at_rest(~levels, 0), levels)
    assert changed.values[1, 1].tolist() == [1, 0]
    for _ in range(40):
        changed = _after(changed, levels)
    assert np.array_equal(changed.values, at_rest(levels, 0).values)


def test_digests_tell_references_and_tables_apart() -> None:
    frames = signs_of(moving_levels(SHAPE, 3, 3))
    other = {name: table ^ np.uint8("level" in name) for name, table in TABLES.items()}
    digests = []
    for tables, sequence in ((TABLES, [0, 2]), (TABLES, [1, 2]), (other, [0, 2])):
        sender = Signs().sender(SHAPE, tables)
        for number in sequence:
            encoded = sender.encode(frames[number], number)
            sender.sent(number + 1)
            sender.answered(number + 1)
        digests.append(encoded.digest)
    assert len(set(digests)) == 3


def _prepared() -> tuple[Any, bytes, int]:
    """A receiver that holds request 1, and a payload that refers to it, with its digest."""
    sender, receiver = Signs().sender(SHAPE, TABLES), Signs().receiver(SHAPE, TABLES)
    frames = signs_of(moving_levels(SHAPE, 2, 3))
    first = sender.encode(frames[0], 0)
    receiver.decode(first.payload, 1, 0, 0)
    sender.sent(1)
    sender.answered(1)
    second = sender.encode(frames[1], 1)
    return receiver, second.payload, second.digest


RECEIVER, PAYLOAD, DIGEST = _prepared()


def _decoded_or_refused(payload: bytes) -> None:
    for reference, digest in ((1, DIGEST), (0, 0)):
        try:
            restored = RECEIVER.decode(payload, 2, reference, digest)
        except RemoteProtocolError:
            continue
        assert restored.shape == SHAPE
        assert set(np.unique(restored)) <= {-1.0, 1.0}


@given(body=st.binary(max_size=140), head=st.one_of(st.none(), st.integers(0, 255)))
def test_random_bytes_are_decoded_or_refused(body: bytes, head: int | None) -> None:
    _decoded_or_refused(body if head is None else bytes([head]) + body)


@given(place=st.integers(0, 8 * len(PAYLOAD) - 1))
def test_flipped_bits_are_decoded_or_refused(place: int) -> None:
    flipped = bytearray(PAYLOAD)
    flipped[place // 8] ^= 1 << place % 8
    _decoded_or_refused(bytes(flipped))


def test_truncated_and_lengthened_payloads_are_decoded_or_refused() -> None:
    for length in range(len(PAYLOAD)):
        _decoded_or_refused(PAYLOAD[:length])
    for count in range(40):
        _decoded_or_refused(PAYLOAD + bytes(count))
    with pytest.raises(RemoteProtocolError):
        RECEIVER.decode(PAYLOAD + bytes(40), 2, 1, DIGEST)


@pytest.mark.parametrize("age", [0, MOST_AGE + 1, 63])
def test_an_age_that_does_not_fit_the_reference_is_refused(age: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"age {age}; expected 1 to 16"):
        RECEIVER.decode(bytes([PAYLOAD[0] & 3 | age << 2]) + PAYLOAD[1:], 2, 1, DIGEST)


def test_a_reference_without_an_age_and_an_age_without_a_reference_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="age 1; expected 0"):
        RECEIVER.decode(PAYLOAD, 2, 0, 0)
    with pytest.raises(RemoteProtocolError, match="digest 5 and no reference"):
        RECEIVER.decode(b"\x02", 2, 0, 5)


def test_a_refused_payload_leaves_the_receiver_as_it_was() -> None:
    with pytest.raises(RemoteProtocolError):
        RECEIVER.decode(b"\x03", 1, 0, 0)
    with pytest.raises(UnknownReferenceError):
        RECEIVER.decode(PAYLOAD, 1, 1, DIGEST ^ 1)
    RECEIVER.decode(PAYLOAD, 2, 1, DIGEST)


def test_coded_signs_without_tables_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="kind 2; expected 0 or 1"):
        decode("signs", b"\x02", SHAPE)
    with pytest.raises(RemoteProtocolError, match="signs of 0 bytes"):
        decode("signs", b"", SHAPE)
    with pytest.raises(RemoteProtocolError, match=r"expected \(channels, h, w\)"):
        decode("signs", b"\x00\x00", (8,))


def test_tables_of_another_kind_are_refused_in_one_line() -> None:
    for name, table in (("near1", TABLES["6x11x14/near1"][:, 1:]), ("near2", TABLES["6x11x14/near2"] + np.uint8(200))):
        with pytest.raises(UsageError, match="fit"):
            Signs().sender(SHAPE, {**TABLES, f"6x11x14/{name}": table})
    with pytest.raises(UsageError, match="without '6x11x14/level1'"):
        Signs().sender(SHAPE, {name: table for name, table in TABLES.items() if not name.endswith("level1")})
    with pytest.raises(UsageError, match="two or more frames"):
        fit_tables(moving_levels(SHAPE, 1))
    with pytest.raises(UsageError, match="each at least 1"):
        Signs().sender((3, 0, 4), {})


def test_payloads_are_the_same_on_every_machine() -> None:
    """Device and MEC may be different processors. The tables here are integers, so that no fit hides a difference."""
    tables = {prefix(SHAPE) + name: np.zeros(size, np.uint8) for name, size in table_shapes(SHAPE).items()}
    for name, table in tables.items():
        number = np.arange(table.shape[-1])
        if "near" in name:
            table[:] = np.where(number % 2, 50, 20) + number // 64 % 8  # mostly as in the reference
        elif "level" in name:
            table[:] = np.where(number % 64 > 32, 128, 0) + 40 + number % 16
    flips = np.arange(6 * 6 * 11 * 14).reshape(6, *SHAPE) * 7919 % 50 == 0
    frames = signs_of((flips.cumsum(axis=0) % 2).astype(np.uint8))
    sender = Signs().sender(SHAPE, tables)
    payloads = []
    for number, frame in enumerate(frames, 1):
        payloads.append(sender.encode(frame, number).payload)
        sender.sent(number)
        sender.answered(number)
    assert [payload[0] & 3 for payload in payloads[1:]] == [2] * 5
    assert [zlib.crc32(payload) for payload in payloads[1:3]] == [2212419999, 2177524198]


def test_the_example_of_the_documentation_runs() -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    found = re.search(r"```python\n([^`]*import fit_tables.*?)```", text, re.DOTALL)
    assert found is not None
    exec(found[1], {})
