"""The MEC's half of every stream: what payloads may refer to, apart for each connection (``runtime.codecs.streams``).

A payload can only refer to what the same connection has sent, so one device can never change another's answer. Memory
is bounded whatever peers do. A connection keeps at most ``MOST_STREAMS`` receivers, all connections together at most
``MOST_BYTES`` by what the codecs state. The receiver that was used longest ago is dropped first. Its device then gets
one rejection, and sends one payload that stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial

from controller.records import Decision, PayloadKey
from runtime.bundles.bundle import Bundle
from runtime.codecs.streams import MOST_STREAMS, Receiver, UnknownReferenceError, stream_key
from runtime.inference.segments import Decode
from runtime.inference.streams import receiver_bytes, receiver_of
from runtime.protocol import wire

MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class _Kept:
    receiver: Receiver
    most_bytes: int  # that it may keep


class Receivers:
    """Owns the receivers of all connections."""

    def __init__(self, bundle: Bundle, most_bytes: int = MOST_BYTES) -> None:
        self._bundle, self._most_bytes = bundle, most_bytes
        self._kept: dict[tuple[bytes, PayloadKey], _Kept] = {}  # the one that was used longest ago first
        self._bytes = 0  # sum of ``most_bytes``

    @property
    def kept_bytes(self) -> int:
        """Upper bound of the memory of all receivers."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)

    def decode_as(self, peer: bytes, request: wire.InferRequest, decision: Decision) -> Decode | None:
        """How the payload of a request is decoded; None if it is one of a codec without references.

        UnknownReferenceError if the request refers to another one and its codec has no references.
        """
        key = stream_key(decision)
        if key is None:
            if request.reference_back:
                raise UnknownReferenceError(f"payload codec {decision.payload!r} has no references")
            return None
        receiver = self._receiver(peer, key, decision)
        return partial(
            receiver.decode,
            request_id=request.request_id,
            reference_id=request.reference_id,
            digest=request.reference_digest,
        )

    def drop(self, peer: bytes) -> None:
        """A connection begins anew or ends."""
        self._drop_where(lambda other: other == peer)

    def keep_only(self, peers: Container[bytes]) -> None:
        """Drop the receivers of all other connections."""
        self._drop_where(lambda peer: peer not in peers)

    def _receiver(self, peer: bytes, key: PayloadKey, decision: Decision) -> Receiver:
        kept = self._take(peer, key)
        if kept is None:
            receiver = receiver_of(self._bundle, decision)
            assert receiver is not None  # the key says that the codec has references
            kept = _Kept(receiver, receiver_bytes(self._bundle, decision))
            if kept.most_bytes > self._most_bytes:
                return receiver  # for this payload only
            self._make_room(peer, kept.most_bytes)
        self._kept[peer, key] = kept
        self._bytes += kept.most_bytes
        return kept.receiver

    def _make_room(self, peer: bytes, most_bytes: int) -> None:
        """Drop the oldest receivers until one more of this connection, with so many bytes, fits."""
        own = [name for name in self._kept if name[0] == peer]
        for name in own[: max(len(own) + 1 - MOST_STREAMS, 0)]:
            self._take(*name)
        while self._bytes + most_bytes > self._most_bytes:
            self._take(*next(iter(self._kept)))

    def _take(self, peer: bytes, key: PayloadKey) -> _Kept | None:
        kept = self._kept.pop((peer, key), None)
        self._bytes -= 0 if kept is None else kept.most_bytes
        return kept

    def _drop_where(self, is_dropped: Callable[[bytes], bool]) -> None:
        for name in [name for name in self._kept if is_dropped(name[0])]:
            self._take(*name)
