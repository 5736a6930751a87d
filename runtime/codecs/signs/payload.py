"""The bytes of one payload of signs, with or without a reference.

    head (1 byte: kind + 4 * age) | body

The age in frames of the reference chooses the tables; 0: the payload stands alone. Kinds: 0, levels stored as bits; 1,
levels as planes (`runtime.codecs.planes`); 2, levels coded with the tables of the stream. Kinds 0 and 1 hold the levels
themselves without a reference, else where they differ from it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs.base import Payload, check_size
from runtime.codecs.planes import decode_planes, encode_planes
from runtime.codecs.signs.coder import Decoder, Encoder, cumulative
from runtime.codecs.signs.contexts import Contexts, Memory, at_rest, remember
from runtime.codecs.signs.grid import Grid, Half
from runtime.codecs.signs.tables import Model, table_of
from runtime.codecs.streams import MOST_AGE

_STORED, _PLANES, _CODED = 0, 1, 2
#: In a half, exceptions are at most the places of both divided by this, which bounds the time of coding.
_LEAST_PER_EXCEPTION = 16
#: A coded payload with a reference that is smaller than one byte for so many places is taken without a look at planes.
_PLACES_PER_BYTE = 64

Bits = NDArray[np.bool_]


def encode(grid: Grid, model: Model | None, reference: Memory | None, age: int, levels: Bits) -> tuple[bytes, Memory]:
    """The smallest payload of levels (channels, h, w), and the memory that it leaves behind. Age 0: no reference."""
    coded, after = _encode_coded(grid, model, reference, age, levels) if model is not None else (None, None)
    bodies = {} if coded is None else {_CODED: coded}
    if coded is None or reference is None or _PLACES_PER_BYTE * len(coded) > levels.size:
        differences = levels if reference is None else levels ^ _levels_of(grid, reference)
        bodies[_PLANES] = encode_planes(differences.view(np.uint8), 1)
        bodies[_STORED] = np.packbits(differences).tobytes()
    kind = min(bodies, key=lambda kind: len(bodies[kind]))
    return bytes([kind + 4 * age]) + bodies[kind], after if after is not None else _after(
        grid, model, reference, levels
    )


def age_of(payload: Payload) -> int:
    """The age that a payload states; RemoteProtocolError for an empty payload."""
    if len(payload) == 0:
        raise RemoteProtocolError("signs of 0 bytes; expected at least 1")
    return payload[0] >> 2


def decode(grid: Grid, model: Model | None, reference: Memory | None, payload: Payload) -> tuple[Bits, Memory]:
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
        return _decode_coded(grid, model, reference, age, body)
    if kind == _PLANES:
        levels = decode_planes(body, grid.shape, 1).astype(bool)
    elif kind == _STORED:
        check_size("stored signs", len(body), (count + 7) // 8)
        levels = np.unpackbits(np.frombuffer(body, np.uint8), count=count).reshape(grid.shape).astype(bool)
    else:
        raise RemoteProtocolError(f"signs of kind {kind}; expected 0 or 1, or 2 where the bundle has tables for them")
    if reference is not None:
        levels = levels ^ _levels_of(grid, reference)
    return levels, _after(grid, model, reference, levels)


def to_signs(levels: NDArray[np.bool_]) -> NDArray[np.float32]:
    """-1 for level 0, +1 for level 1."""
    signs = levels.astype(np.float32)
    signs += signs
    signs -= 1
    return signs


def _levels_of(grid: Grid, memory: Memory) -> Bits:
    halves = [grid.inside(half) & np.uint8(1) for half in (memory.first, memory.second)]
    return grid.levels(*halves).astype(bool)


def _after(grid: Grid, model: Model | None, reference: Memory | None, levels: Bits) -> Memory:
    if reference is None:
        if model is None:
            return at_rest(grid, levels)
        reference = model.background
    return remember(reference, *grid.halves(levels))


def _encode_coded(
    grid: Grid, model: Model, reference: Memory | None, age: int, levels: Bits
) -> tuple[bytes | None, Memory]:
    before, coder = reference or model.background, Encoder()
    first, second = grid.halves(levels)
    contexts = Contexts(grid, before)
    for half in (False, True):
        found = contexts.of_second(first) if half else contexts.of_first()
        signed = model.predictions(half, table_of(age), *found)
        exceptions = np.flatnonzero((signed < 0) != grid.inside(second if half else first))
        if _LEAST_PER_EXCEPTION * len(exceptions) > levels.size:
            return None, remember(before, first, second)
        coder.encode(cumulative(np.abs(signed)), exceptions)
    return coder.finish(), remember(before, first, second)


def _decode_coded(grid: Grid, model: Model, reference: Memory | None, age: int, body: bytes) -> tuple[Bits, Memory]:
    before, coder = reference or model.background, Decoder(body)
    contexts, halves = Contexts(grid, before), list[Half]()
    for half in (False, True):
        found = contexts.of_second(halves[0]) if half else contexts.of_first()
        signed = model.predictions(half, table_of(age), *found)
        levels = (signed < 0).view(np.uint8)
        levels[coder.decode(cumulative(np.abs(signed)), math.prod(grid.shape) // _LEAST_PER_EXCEPTION)] ^= np.uint8(1)
        halves.append(grid.with_margin(levels))
    coder.finish()
    first, second = halves
    decoded = grid.levels(grid.inside(first), grid.inside(second)).astype(bool)
    return decoded, remember(before, first, second)
