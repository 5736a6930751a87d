"""Bytes on the wire: how much more than its payload a message sends up.

A message of the device is a header of ours and a buffer. ZeroMQ puts a flag and a length before each of them (ZMTP 3.1,
RFC 37), TCP cuts the stream into segments, and each segment gets the headers of IPv4 and TCP. What the MEC answers is
acknowledged on the uplink, with at least one more packet.

Counted is IP and what lies above, as data plans and rate limits count it. Where messages are encrypted (CURVE, ZMTP RFC
26), each part is sealed, which makes it larger. Not counted are the layers below (Ethernet, PDCP, RLC, MAC),
retransmissions, tunnels, and header compression, which would save some. ``python -m benchmarks.bench_packets`` counts
real packets and compares them, ``python -m benchmarks.bench_curve`` the bytes of sealed messages.

The functions take numbers or arrays, and compiled code calls them too.
"""

from __future__ import annotations

from typing import TypeVar

from controller.records import Floats

#: A number, or an array of them.
Bytes = TypeVar("Bytes", int, float, Floats)

#: The header of a typical request that names a reference, and of a ping (``benchmarks.bench_wire``): their numbers take
#: fewer bytes when small. Every request is counted with this header. One whose payload stands alone has four bytes
#: less, which matters little: such payloads are larger.
REQUEST_HEADER_BYTES = 19
PING_HEADER_BYTES = 8
#: Before each part of a message: a flag, and its length in one byte, or in eight from 256 bytes on.
_SHORT_FRAME_BYTES = 2
_LONG_FRAME_MORE_BYTES = 7
_LONGEST_SHORT_BYTES = 255
#: A sealed part has a command's name of 8, a nonce of 8, an authenticator of 16 and a flag of 1 beside its content.
SEAL_BYTES = 33
#: Headers of a segment: IPv4 20, TCP 20, and its time stamps 12. With them an Ethernet frame of 1,500 bytes carries
#: 1,448 bytes of the stream.
SEGMENT_HEADER_BYTES = 52
SEGMENT_BYTES = 1500 - SEGMENT_HEADER_BYTES
#: An answer fits into two segments, and one packet without data acknowledges it. Measured at ten messages a second: one
#: such packet per answer, and fewer only when the uplink is saturated.
ACKNOWLEDGEMENT_BYTES = SEGMENT_HEADER_BYTES


def wire_bytes(payload_bytes: Bytes, sealed: bool = False) -> Bytes:
    """Bytes on the uplink for a request with this payload, the acknowledgement of its reply included."""
    return _message_bytes(REQUEST_HEADER_BYTES, payload_bytes, SEAL_BYTES * sealed)


def ping_bytes(padding_bytes: Bytes, sealed: bool = False) -> Bytes:
    """Bytes on the uplink for a ping with this padding, the acknowledgement of its echo included."""
    return _message_bytes(PING_HEADER_BYTES, padding_bytes, SEAL_BYTES * sealed)


def segments_bytes(stream_bytes: int) -> int:
    """Bytes on the uplink for so many bytes of a TCP stream."""
    return stream_bytes + -(-stream_bytes // SEGMENT_BYTES) * SEGMENT_HEADER_BYTES


def _message_bytes(header_bytes: int, buffer_bytes: Bytes, seal_bytes: int) -> Bytes:
    """Bytes on the uplink for a message that is answered; a message without a buffer has one part."""
    long, parts = buffer_bytes + seal_bytes > _LONGEST_SHORT_BYTES, 1 + (buffer_bytes > 0)
    framed_bytes = (_SHORT_FRAME_BYTES + seal_bytes) * parts + _LONG_FRAME_MORE_BYTES * long
    stream_bytes = header_bytes + buffer_bytes + framed_bytes
    segments = -(-stream_bytes // SEGMENT_BYTES)
    return stream_bytes + segments * SEGMENT_HEADER_BYTES + ACKNOWLEDGEMENT_BYTES
