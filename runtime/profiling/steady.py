"""Streams in the steady state, for the profiler: each payload is answered before the next one is encoded.

The head and tail of a codec whose payloads refer to earlier ones are timed with a reference, because nearly every frame
has one. A payload that stands alone comes only at the start of a stream and after a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from controller.records import Decision
from runtime.codecs.streams import Encoded, Receiver, Sender
from runtime.inference.segments import Segments

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call to be timed, and what must be done before it and is not timed."""

    prepare: Call
    call: Call

    def __call__(self) -> Any:
        return self.call()


class SteadyStream:
    """Owns the two ends of one stream, which hear each other at once."""

    def __init__(self, sender: Sender, receiver: Receiver) -> None:
        self._sender, self._receiver = sender, receiver
        self._number = 0  # of the newest request, and of its frame
        self._encoded = Encoded(b"")

    def encode(self, array: NDArray[Any]) -> bytes:
        """What a device does for one frame: encode it, and hear that it was answered."""
        self._number += 1
        self._encoded = self._sender.encode(array, self._number)
        self._sender.sent(self._number)
        self._sender.answered(self._number)
        return self._encoded.payload

    def decode(self, _: bytes | memoryview = b"") -> NDArray[Any]:
        """What a MEC does for one frame: decode the payload that was encoded last."""
        encoded = self._encoded
        return self._receiver.decode(encoded.payload, self._number, encoded.reference_id, encoded.digest)


def steady_stream(segments: Segments, decision: Decision) -> SteadyStream | None:
    """A new stream of the decision's payloads; None if they have no references."""
    sender, receiver = segments.sender(decision), segments.receiver(decision)
    return None if sender is None or receiver is None else SteadyStream(sender, receiver)
