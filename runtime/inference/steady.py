"""Streams in the steady state: each payload is answered before the next one is encoded.

The profiler times the head and tail of a codec whose payloads refer to earlier ones with a reference, because nearly
every frame has one. A payload that stands alone comes only at the start of a stream and after a loss; warm-ups
run both.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from controller.records import Decision
from runtime.bundles.bundle import Bundle
from runtime.codecs.streams import AnsweredSender, Encoded, Receiver, Sender
from runtime.inference.streams import receiver_of, sender_of


class SteadyStream:
    """Owns the two ends of one stream, which hear each other at once."""

    def __init__(self, bundle: Bundle, decision: Decision, sender: Sender) -> None:
        self._bundle, self._decision, self._sender = bundle, decision, AnsweredSender(sender)
        self._receiver: Receiver | None = None  # from the first ``decode`` on
        self.encoded = Encoded(b"")

    def encode(self, array: NDArray[Any]) -> bytes:
        """What a device does for one frame: encode it, and hear that it was answered."""
        self.encoded = self._sender.encode(array, self._sender.newest_id + 1)
        return self.encoded.payload

    def decode(self, _: bytes | memoryview = b"") -> NDArray[Any]:
        """What a MEC does for one frame: decode the payload that was encoded last."""
        if self._receiver is None:
            self._receiver = receiver_of(self._bundle, self._decision)
            assert self._receiver is not None
        encoded = self.encoded
        return self._receiver.decode(encoded.payload, self._sender.newest_id, encoded.reference_id, encoded.digest)


def steady_stream(bundle: Bundle, decision: Decision) -> SteadyStream | None:
    """A new stream of the decision's payloads; None if they have no references."""
    sender = sender_of(bundle, decision)
    return None if sender is None else SteadyStream(bundle, decision, sender)
