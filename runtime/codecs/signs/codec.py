"""The codec `signs`: tensors of -1 and +1, one bit each, against a reference that the MEC has answered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs.base import TENSOR, Payload
from runtime.codecs.signs.fitting import fit_tables
from runtime.codecs.signs.payload import decode, encode, to_signs
from runtime.codecs.signs.stream import SignsReceiver, SignsSender
from runtime.codecs.signs.tables import Model, Shape, has_tables, prefix, table_shapes
from runtime.codecs.streams import Receiver, Sender, StreamCodec, Tables


class Signs(StreamCodec):
    """Sends whether each value is above 0; decodes to -1 and +1, float32.

    Tables (`signs.fitting.fit_tables`) belong to one shape. A stream of another shape, or without tables, sends planes:
    of all levels, or of those that differ from the reference.
    """

    name = "signs"
    kind = TENSOR
    lossless = True  # of what it is for
    chained = False

    def prepare(self) -> None:
        """Encode and decode a tensor of one place, which compiles or loads the passes of device and MEC."""
        shape = (1, 1, 1)
        tables = {prefix(shape) + name: np.zeros(size, np.uint8) for name, size in table_shapes(shape).items()}
        model = Model(shape, tables)
        coded, _ = encode(model, None, 0, np.zeros(shape, np.float32))
        stored = bytes(2)
        for payload in (coded, stored):
            decode(shape, model, None, payload)

    def encode(self, array: NDArray[Any]) -> bytes:
        _shape(array.shape)
        return encode(None, None, 0, array)[0]

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if len(shape) != 3:
            raise RemoteProtocolError(f"a tensor payload of shape {shape}; expected (channels, h, w)")
        return to_signs(decode(_shape(shape), None, None, payload)[0])

    def roundtrip(self, arrays: NDArray[Any]) -> NDArray[np.float32]:
        return to_signs(arrays > 0)

    def fit(self, arrays: NDArray[Any]) -> Tables:
        return fit_tables((arrays > 0).astype(np.uint8))

    def sender(self, shape: tuple[int, ...], tables: Tables) -> Sender:
        size = _shape(shape)
        return SignsSender(size, _model(size, tables))

    def receiver(self, shape: tuple[int, ...], tables: Tables) -> Receiver:
        size = _shape(shape)
        return SignsReceiver(size, _model(size, tables))


def _shape(shape: tuple[int, ...]) -> Shape:
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"signs of shape {shape}; expected (channels, h, w), each at least 1")
    return shape[0], shape[1], shape[2]


def _model(shape: Shape, tables: Tables) -> Model | None:
    return Model(shape, tables) if has_tables(shape, tables) else None
