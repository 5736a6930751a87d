"""Senders, receivers and payloads that stand alone, for the decisions of a bundle.

A codec whose payloads have no references has neither a sender nor a receiver: it encodes and decodes itself.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from controller.records import Decision
from runtime.bundles.bundle import Bundle
from runtime.codecs.base import Payload
from runtime.codecs.streams import Receiver, Sender, stream_codec


def sender_of(bundle: Bundle, decision: Decision) -> Sender | None:
    """A new sender of the decision's stream; None if its payloads have no references."""
    codec = stream_codec(decision.payload)
    return None if codec is None else codec.sender(_shape(bundle, decision), _tables(bundle, decision))


def receiver_of(bundle: Bundle, decision: Decision) -> Receiver | None:
    """A new receiver of the decision's stream; None if its payloads have no references."""
    codec = stream_codec(decision.payload)
    return None if codec is None else codec.receiver(_shape(bundle, decision), _tables(bundle, decision))


def receiver_bytes(bundle: Bundle, decision: Decision) -> int:
    """Upper bound of what a receiver of the decision's stream keeps, in bytes; 0 if it has none."""
    codec = stream_codec(decision.payload)
    return 0 if codec is None else codec.kept_bytes(_shape(bundle, decision))


def encode_alone(bundle: Bundle, decision: Decision, array: NDArray[Any]) -> bytes:
    """Encode what the head of a decision computed, as a payload that stands alone."""
    sender = sender_of(bundle, decision)
    return bundle.codec(decision).encode(array) if sender is None else sender.encode(array, 0).payload


def decode_alone(bundle: Bundle, decision: Decision, payload: Payload) -> NDArray[Any]:
    """Decode a payload that stands alone; RemoteProtocolError for any other one."""
    receiver = receiver_of(bundle, decision)
    if receiver is None:
        return bundle.codec(decision).decode(payload, _shape(bundle, decision))
    return receiver.decode(payload, request_id=1, reference_id=0, digest=0)


def _shape(bundle: Bundle, d: Decision) -> tuple[int, ...]:
    return bundle.payload_shape(d.model, d.resolution_px, d.partition_point)


def _tables(bundle: Bundle, d: Decision) -> Any:
    return bundle.codec_tables(d.model, d.resolution_px)
