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
from runtime.codecs.signs.coder import TOO_LONG, WINDOW_BYTES
from runtime.codecs.signs.compiled import compiled_passes
from runtime.codecs.signs.contexts import Memory, Values, at_rest
from runtime.codecs.signs.passes import room_for_a_cell
from runtime.codecs.signs.space import rows_of, space_of
from runtime.codecs.signs.tables import Model, Shape
from runtime.codecs.streams import MOST_AGE

_STORED, _PLANES, _CODED = 0, 1, 2
#: A coded payload with a reference that is smaller than one byte for so many places is taken without a look at planes.
_PLACES_PER_BYTE = 64

Bits = NDArray[np.bool_]


def encode(model: Model | None, reference: Memory | None, age: int, array: NDArray[Any]) -> tuple[bytes, Memory]:
    """The smallest payload of whether values (channels, h, w) are above 0, and the memory that it leaves behind.

    Age 0: no reference.
    """
    bodies, values = _encoded_coded(model, reference, age, array)
    coded = bodies.get(_CODED)
    if coded is None or reference is None or _PLACES_PER_BYTE * len(coded) > array.size:
        levels = array > 0
        differences = levels if reference is None else levels ^ reference.levels
        bodies[_PLANES] = encode_planes(differences.view(np.uint8), 1)
        bodies[_STORED] = np.packbits(differences).tobytes()
    kind = min(bodies, key=lambda kind: len(bodies[kind]))
    payload = bytes([kind + 4 * age]) + bodies[kind]
    return payload, Memory(values, _digest(model, reference, payload))


def age_of(payload: Payload) -> int:
    """The age that a payload states; RemoteProtocolError for an empty payload."""
    if len(payload) == 0:
        raise RemoteProtocolError("signs of 0 bytes; expected at least 1")
    return payload[0] >> 2


def decode(
    shape: Shape, model: Model | None, reference: Memory | None, payload: Payload
) -> tuple[NDArray[Any], Memory]:
    """Levels (channels, h, w), and the memory that the payload leaves behind. RemoteProtocolError if malformed."""
    age, count = age_of(payload), math.prod(shape)
    kind, body = payload[0] & 3, bytes(payload[1:])
    if (reference is None) != (age == 0) or age > MOST_AGE:
        raise RemoteProtocolError(
            f"signs of age {age}; expected {'0' if reference is None else f'1 to {MOST_AGE}'} for this request"
        )
    if len(body) > (count + 7) // 8:
        raise RemoteProtocolError(f"signs of {len(body)} bytes; expected at most {(count + 7) // 8}")
    if kind == _CODED and model is not None:
        values = _decoded_coded(model, reference, age, body)
    elif kind in (_PLANES, _STORED):
        values = _values_after(model, reference, _decoded_plain(shape, reference, kind, body))
    else:
        raise RemoteProtocolError(f"signs of kind {kind}; expected 0 or 1, or 2 where the bundle has tables for them")
    memory = Memory(values, _digest(model, reference, payload))
    return memory.levels, memory


def to_signs(levels: NDArray[Any]) -> NDArray[np.float32]:
    """-1 for level 0, +1 for level 1."""
    signs = levels.astype(np.float32)
    signs += signs
    signs -= 1
    return signs


def _decoded_plain(shape: Shape, reference: Memory | None, kind: int, body: bytes) -> Bits:
    """Levels that were sent without the tables."""
    count = math.prod(shape)
    if kind == _PLANES:
        levels = decode_planes(body, shape, 1).astype(bool)
    else:
        check_size("stored signs", len(body), (count + 7) // 8)
        levels = np.unpackbits(np.frombuffer(body, np.uint8), count=count).reshape(shape).astype(bool)
    return levels if reference is None else levels ^ reference.levels


def _before(model: Model | None, reference: Memory | None) -> Memory | None:
    """The memory that a payload is coded against."""
    return reference or (model.background if model is not None else None)


def _digest(model: Model | None, reference: Memory | None, payload: Payload) -> int:
    """Of the memory that a payload leaves behind: this of its reference, or of the tables, continued."""
    before = _before(model, reference)
    return zlib.crc32(payload, before.digest if before is not None else 0)


def _values_after(model: Model | None, reference: Memory | None, array: NDArray[Any]) -> Values:
    """The memory that values (channels, h, w) leave behind if they are not coded with tables."""
    before = _before(model, reference)
    if before is None:
        return at_rest(array > 0, 0).values
    space = space_of(before.values)
    compiled_passes().remember(space, rows_of(array))
    return space.after.reshape(before.values.shape)


def _encoded_coded(
    model: Model | None, reference: Memory | None, age: int, array: NDArray[Any]
) -> tuple[dict[int, bytes], Values]:
    """The coded payload by its kind, if there are tables and it is not longer than the levels; and the memory after."""
    if model is None:
        return {}, _values_after(model, reference, array)
    before = (reference or model.background).values
    space, out = space_of(before), np.empty(array.size // 8 + room_for_a_cell(array.shape[0]), np.uint8)
    length = compiled_passes().encode(model.predictions(age), space, rows_of(array), out)
    return ({} if length == TOO_LONG else {_CODED: out[:length].tobytes()}), space.after.reshape(before.shape)


def _decoded_coded(model: Model, reference: Memory | None, age: int, body: bytes) -> Values:
    before = (reference or model.background).values
    space = space_of(before)
    read = compiled_passes().decode(model.predictions(age), space, np.frombuffer(body, np.uint8))
    if read > len(body):
        raise RemoteProtocolError(f"signs end after {len(body)} bytes; expected {read} or more")
    if len(body) > read + WINDOW_BYTES:
        raise RemoteProtocolError(f"signs of {len(body)} bytes; expected at most {read + WINDOW_BYTES}")
    return space.after.reshape(before.shape)
