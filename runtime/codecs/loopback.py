"""Streams whose two ends are in one process, for measurements: every payload arrives and is answered at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.codecs.base import Payload
from runtime.codecs.streams import Encoded, Receiver, Sender, StreamCodec, Tables

#: Payloads of a stream that are decoded in turn. One of them stands alone, so the median time is of those that do not.
REPLAYED = 32


class AnsweredSender:
    """Owns a sender whose payloads are answered at once, so that each may refer to the one before."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.newest_id = 0  # of the requests

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        """Encode and send what frame number ``frame`` sends."""
        encoded = self._sender.encode(array, frame)
        self.newest_id += 1
        self._sender.sent(self.newest_id)
        self._sender.answered(self.newest_id)
        return encoded

    def payload(self, array: NDArray[Any]) -> bytes:
        """Encode and send the next frame."""
        return self.encode(array, self.newest_id).payload


class RoundTrip:
    """Owns both ends of one stream."""

    def __init__(self, codec: StreamCodec, shape: tuple[int, ...], tables: Tables) -> None:
        self._sender = AnsweredSender(codec.sender(shape, tables))
        self._receiver = codec.receiver(shape, tables)

    def roundtrip(self, arrays: NDArray[Any]) -> NDArray[Any]:
        """What the MEC computes with, for the next samples (n, ...) of the stream."""
        return np.stack([self._one(array) for array in arrays])

    def _one(self, array: NDArray[Any]) -> NDArray[Any]:
        sent = self._sender.encode(array, self._sender.newest_id)
        return self._receiver.decode(sent.payload, self._sender.newest_id, sent.reference_id, sent.digest)


class Replay:
    """Owns a receiver, and decodes the payloads of one stream over and over; the first of them stands alone."""

    def __init__(self, sender: Sender, receiver: Receiver, arrays: Iterable[NDArray[Any]]) -> None:
        answered = AnsweredSender(sender)
        self._receiver = receiver
        self._encoded = [answered.encode(array, number) for number, array in enumerate(arrays)]
        self._next = 0

    def decode(self, _: Payload = b"") -> NDArray[Any]:
        """Decode the next payload. The argument, for callers that have one, is ignored."""
        number = self._next
        self._next = (number + 1) % len(self._encoded)
        sent = self._encoded[number]
        return self._receiver.decode(sent.payload, number + 1, sent.reference_id, sent.digest)
