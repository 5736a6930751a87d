"""The bytes of one payload of signs, with or without a reference.

    head (1 byte: kind + 4 * age) | body

The age in frames of the reference chooses the tables; 0: the payload stands alone. Kinds: 0, levels stored as bits; 1,
levels as planes (`runtime.codecs.planes`); 2, levels coded with the tables of the stream. Kinds 0 and 1 hold the levels
themselves without a reference, else where they differ from it.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs.base import Payload, check_size
from runtime.codecs.planes import decode_planes, encode_planes
from runtime.codecs.signs.coder import Decoder, Encoder, cumulative
from runtime.codecs.signs.contexts import Contexts, Memory, at_rest
from runtime.codecs.signs.grid import Bytes, Grid
from runtime.codecs.signs.tables import Model, table_of
from runtime.codecs.streams import MOST_AGE

_STORED, _PLANES, _CODED = 0, 1, 2
#: Wrong predictions are at most the places divided by this, which bounds the time of coding.
_PLACES_PER_EXCEPTION = 8
#: A coded payload with a reference that is smaller than one byte for so many places is taken without a look at planes.
_PLACES_PER_BYTE = 64

Bits = NDArray[np.bool_]


def encode(
    grid: Grid, model: Model | None, reference: Memory | None, age: int, array: NDArray[Any]
) -> tuple[bytes, Memory]:
    """The smallest payload of whether values (channels, h, w) are above 0, and the memory that it leaves behind.

    Age 0: no reference.
    """
    halves = grid.halves(array)
    coded, values = _encode_coded(grid, model, reference, age, halves) if model is not None else (None, None)
    bodies = {} if coded is None else {_CODED: coded}
    if coded is None or reference is None or _PLACES_PER_BYTE * len(coded) > array.size:
        levels = array > 0
        differences = levels if reference is None else levels ^ _levels_of(grid, reference)
        bodies[_PLANES] = encode_planes(differences.view(np.uint8), 1)
        bodies[_STORED] = np.packbits(differences).tobytes()
    kind = min(bodies, key=lambda kind: len(bodies[kind]))
    payload = bytes([kind + 4 * age]) + bodies[kind]
    if values is None:
        values = _after(grid, model, reference, halves)
    return payload, Memory(values, _digest(model, reference, payload))


def age_of(payload: Payload) -> int:
    """The age that a payload states; RemoteProtocolError for an empty payload."""
    if len(payload) == 0:
        raise RemoteProtocolError("signs of 0 bytes; expected at least 1")
    return payload[0] >> 2


def decode(grid: Grid, model: Model | None, reference: Memory | None, payload: Payload) -> tuple[NDArray[Any], Memory]:
    """Levels (channels, h, w), and the memory that the payload leaves behind. RemoteProtocolError if malformed."""
    age, count = age_of(payload), math.prod(grid.shape)
    kind, body = payload[0] & 3, bytes(payload[1:])
    if (reference is None) != (age == 0) or age > MOST_AGE:
        raise RemoteProtocolError(
            f"signs of age {age}; expected {'0' if reference is None else f'1 to {MOST_AGE}'} for this request"
        )
    if len(body) > (count + 7) // 8:
        raise RemoteProtocolError(f"signs of {len(body)} bytes; expected at most {(count + 7) // 8}")
    if kind == _CODED and model is not None:
        levels, values = _decode_coded(grid, model, reference, age, body)
        return levels, Memory(values, _digest(model, reference, payload))
    if kind == _PLANES:
        levels = decode_planes(body, grid.shape, 1).astype(bool)
    elif kind == _STORED:
        check_size("stored signs", len(body), (count + 7) // 8)
        levels = np.unpackbits(np.frombuffer(body, np.uint8), count=count).reshape(grid.shape).astype(bool)
    else:
        raise RemoteProtocolError(f"signs of kind {kind}; expected 0 or 1, or 2 where the bundle has tables for them")
    if reference is not None:
        levels = levels ^ _levels_of(grid, reference)
    values = _after(grid, model, reference, grid.halves(levels))
    return levels, Memory(values, _digest(model, reference, payload))


def to_signs(levels: NDArray[Any]) -> NDArray[np.float32]:
    """-1 for level 0, +1 for level 1."""
    signs = levels.astype(np.float32)
    signs += signs
    signs -= 1
    return signs


def _levels_of(grid: Grid, memory: Memory) -> Bits:
    return grid.levels(grid.inside(memory.values) & np.uint8(1)).astype(bool)


def _digest(model: Model | None, reference: Memory | None, payload: Payload) -> int:
    """Of the memory that a payload leaves behind: this of its reference, or of the tables, continued."""
    before = reference or (model.background if model is not None else None)
    return zlib.crc32(payload, before.digest if before is not None else 0)


def _after(grid: Grid, model: Model | None, reference: Memory | None, halves: Bytes) -> Bytes:
    before = reference or (model.background if model is not None else None)
    if before is None:
        return at_rest(halves, 0).values
    contexts = Contexts(grid, before)
    return contexts.after(halves, halves ^ contexts.levels)


def _encode_coded(
    grid: Grid, model: Model, reference: Memory | None, age: int, halves: Bytes
) -> tuple[bytes | None, Bytes]:
    """Both halves at once, since the sender knows them: half as many steps, which are most of the time."""
    contexts = Contexts(grid, reference or model.background)
    changed = halves ^ contexts.levels
    after = contexts.after(halves, changed)
    near = contexts.near()
    near[1] += contexts.decoded(halves[0], changed[0])
    signed = model.predictions(table_of(age), contexts.indices(near), contexts.activity_of_both(changed[0]))
    exceptions = ((signed < 0) != grid.inside(halves).view(np.bool_)).reshape(-1).nonzero()[0]
    if len(exceptions) > _most_exceptions(grid):
        return None, after
    coder = Encoder()
    coder.encode(cumulative(np.abs(signed, out=signed).reshape(-1)), exceptions)
    return coder.finish(), after


def _decode_coded(grid: Grid, model: Model, reference: Memory | None, age: int, body: bytes) -> tuple[Bytes, Bytes]:
    contexts, coder, halves = Contexts(grid, reference or model.background), Decoder(body), grid.zeros()
    near, table, most = contexts.near(), table_of(age), _most_exceptions(grid)
    moved = contexts.moved()
    for half in (0, 1):
        signed = model.predictions(table, contexts.indices(near[half], half), contexts.activity(moved), half)
        levels = (signed < 0).view(np.uint8)
        wrong = coder.decode(cumulative(np.abs(signed)), most)
        levels[wrong] ^= np.uint8(1)
        most -= len(wrong)
        grid.inside(halves[half])[...] = levels
        if half == 0:
            changed = halves[0] ^ contexts.levels[0]
            near[1] += contexts.decoded(halves[0], changed)
            moved = grid.inside(changed).view(np.uint32)
    coder.finish()
    return grid.levels(grid.inside(halves)), contexts.after(halves, halves ^ contexts.levels)


def _most_exceptions(grid: Grid) -> int:
    return math.prod(grid.shape) // _PLACES_PER_EXCEPTION
