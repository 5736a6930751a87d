"""Bytes of payloads by the age of their reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from controller.errors import FailureError
from runtime.codecs.loopback import AnsweredSender
from runtime.codecs.streams import StreamCodec, Tables


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
