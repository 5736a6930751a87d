"""Run stream codecs over consecutive samples: what arrives, and bytes by the age of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError
from runtime.codecs.streams import Encoded, Sender, StreamCodec, Tables


class RoundTrip:
    """One stream from sender to receiver, in which every payload is answered before the next is encoded."""

    def __init__(self, codec: StreamCodec, shape: tuple[int, ...], tables: Tables) -> None:
        self._sender = _Answered(codec, shape, tables)
        self._receiver = codec.receiver(shape, tables)

    def roundtrip(self, arrays: NDArray[Any]) -> NDArray[Any]:
        """What the MEC computes with, for the next samples (n, ...) of the stream."""
        return np.stack([self._one(array) for array in arrays])

    def _one(self, array: NDArray[Any]) -> NDArray[Any]:
        sent = self._sender.encode(array, self._sender.count)
        return self._receiver.decode(sent.payload, self._sender.count, sent.reference_id, sent.digest)


class AgedSizes:
    """Bytes of each sample standing alone, and with references of several ages.

    For each age there are that many streams. Each of them sends every age-th sample, so that the one before is as old.
    """

    def __init__(self, codec: StreamCodec, shape: tuple[int, ...], tables: Tables, ages: Sequence[int]) -> None:
        self._alone = codec.sender(shape, tables)
        self._streams = [[_Answered(codec, shape, tables) for _ in range(age)] for age in ages]
        self._most_age = max(ages)

    def add(self, index: int, array: NDArray[Any]) -> list[int]:
        """(1 + ages) sizes of the next sample; a stream's first payload stands alone.

        Samples follow each other. The first ``index`` is minus the largest age, so that sample 0 has all references.
        """
        frame = index + self._most_age
        self._alone.forget()
        alone = self._alone.encode(array, frame)
        if alone.reference_id:
            raise FailureError("a sender refers to a request after `forget`; expected a payload that stands alone")
        aged = [streams[index % len(streams)].encode(array, frame) for streams in self._streams]
        return [len(sent.payload) for sent in (alone, *aged)]


class _Answered:
    """A sender whose payloads are answered at once."""

    def __init__(self, codec: StreamCodec, shape: tuple[int, ...], tables: Tables) -> None:
        self._sender: Sender = codec.sender(shape, tables)
        self.count = 0  # of requests; also the number of the newest

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        sent = self._sender.encode(array, frame)
        self.count += 1
        self._sender.sent(self.count)
        self._sender.answered(self.count)
        return sent
