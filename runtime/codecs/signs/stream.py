"""Sender and receiver of a stream of signs.

The reference of a payload is the newest request that the MEC has answered. When a request gets no answer, its
reference is not used again either: perhaps the MEC has lost it, and then each payload that refers to it would be
refused. The next newest one takes its place. Requests are ordered by when they were sent, not by number, so numbers
may wrap around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.codecs.base import Payload
from runtime.codecs.signs.contexts import Memory
from runtime.codecs.signs.payload import decode, encode, to_signs
from runtime.codecs.signs.tables import Model, Shape
from runtime.codecs.streams import KEPT_REFERENCES, MOST_AGE, Encoded, UnknownReferenceError


@dataclass
class _Sent:
    """A request that the sender remembers."""

    memory: Memory
    frame: int
    reference_id: int
    answered: bool = False


class SignsSender:
    """Owns the memories of the last requests of a stream, at most `KEPT_REFERENCES`."""

    def __init__(self, shape: Shape, model: Model | None) -> None:
        self._shape, self._model = shape, model
        self._sent: dict[int, _Sent] = {}  # by request, the oldest first
        self._encoded: _Sent | None = None

    @property
    def reference_id(self) -> int:
        return next((number for number in reversed(self._sent) if self._sent[number].answered), 0)

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        """Encode the signs of a tensor of the stream's shape; UsageError for another shape."""
        if array.shape != self._shape:
            raise UsageError(f"signs of shape {array.shape} in a stream of {self._shape}; open a sender for each")
        reference_id = self.reference_id
        if reference_id == 0:
            payload, memory = encode(self._model, None, 0, array)
            self._encoded = _Sent(memory, frame, 0)
            return Encoded(payload)
        reference = self._sent[reference_id]
        age = min(max(frame - reference.frame, 1), MOST_AGE)
        payload, memory = encode(self._model, reference.memory, age, array)
        self._encoded = _Sent(memory, frame, reference_id)
        return Encoded(payload, reference_id, reference.memory.digest)

    def sent(self, request_id: int) -> None:
        """What was encoded last is this request. It can be a reference once it is answered; request 0 cannot."""
        if self._encoded is None:
            raise UsageError(f"request {request_id} was sent, but nothing was encoded for it; call encode first")
        self._sent.pop(request_id, None)
        if request_id:
            self._sent[request_id] = self._encoded
        self._encoded = None
        _drop_oldest(self._sent)

    def answered(self, request_id: int) -> None:
        """The request may be a reference from now on. Unknown numbers are ignored: they are too old."""
        if request_id in self._sent:
            self._sent[request_id].answered = True

    def unanswered(self, request_id: int) -> None:
        """Neither the request nor its reference is used again."""
        lost = self._sent.pop(request_id, None)
        if lost is not None:
            self._sent.pop(lost.reference_id, None)

    def forget(self) -> None:
        self._sent.clear()


class SignsReceiver:
    """Owns the memories of the last decoded requests of a stream, at most `KEPT_REFERENCES`."""

    def __init__(self, shape: Shape, model: Model | None) -> None:
        self._shape, self._model = shape, model
        self._kept: dict[int, Memory] = {}  # by request, the oldest first

    def decode(self, payload: Payload, request_id: int, reference_id: int, digest: int) -> NDArray[np.float32]:
        """The signs, float32 (channels, h, w). Request 0 is not kept."""
        reference = self._reference(reference_id, digest)
        if reference is None and digest:
            raise RemoteProtocolError(f"signs with digest {digest} and no reference; expected digest 0")
        levels, memory = decode(self._shape, self._model, reference, payload)
        self._kept.pop(request_id, None)
        if request_id:
            self._kept[request_id] = memory
        _drop_oldest(self._kept)
        return to_signs(levels)

    def _reference(self, reference_id: int, digest: int) -> Memory | None:
        if reference_id == 0:
            return None
        memory = self._kept.get(reference_id)
        if memory is None:
            raise UnknownReferenceError(f"signs refer to request {reference_id}, which is not held; send them whole")
        if digest != memory.digest:
            raise UnknownReferenceError(f"signs refer to another request {reference_id} than is held; send them whole")
        return memory


def _drop_oldest(requests: dict[int, Any]) -> None:
    while len(requests) > KEPT_REFERENCES:
        del requests[next(iter(requests))]
