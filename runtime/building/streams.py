"""Run stream codecs over consecutive samples: bytes by the age of the reference, and what arrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError
from runtime.codecs.streams import AnsweredSender, StreamCodec, Tables


class AgedSizes:
    """Bytes of each sample standing alone, and with references of several ages.

    For each age there are that many streams. Each of them sends every age-th sample, so that the one before is as old.
    """

    def __init__(self, codec: StreamCodec, shape: tuple[int, ...], tables: Tables, ages: Sequence[int]) -> None:
        self._alone = codec.sender(shape, tables)
        self._streams = [[AnsweredSender(codec.sender(shape, tables)) for _ in range(age)] for age in ages]
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
