"""Exchanges the first bytes of ZMTP 3 (RFC 23) with whatever listens: they tell whether it encrypts.

A greeting is 64 bytes: a signature of ten, the version, the name of the mechanism in 20, and padding. ZeroMQ sends the
signature at once, and the rest when it has seen our signature and version. We do not go on to name a mechanism: on
another one than its own ZeroMQ closes the connection, before its own greeting is out.
"""

from __future__ import annotations

import enum
import socket
import time

_WAIT_S = 0.5
_GREETING_BYTES = 64
_SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
_VERSION = b"\x03\x00"
_MECHANISM_BYTES = 20


class Mechanism(enum.Enum):
    """What a listener says that it speaks."""

    OTHER = "not ZeroMQ"
    UNKNOWN = "ZeroMQ, but it did not say how it protects messages"
    NULL = "NULL"
    CURVE = "CURVE"


def exchange_greetings(connection: socket.socket) -> Mechanism:
    """Begin a greeting, and return what the listener speaks; takes half a second at most."""
    received, end_s = b"", time.monotonic() + _WAIT_S
    try:
        connection.sendall(_SIGNATURE + _VERSION)
        while len(received) < _GREETING_BYTES and (left_s := end_s - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not (more := connection.recv(_GREETING_BYTES - len(received))):
                break
            received += more
    except OSError:  # also a timeout
        pass
    return _mechanism_of(received)


def _mechanism_of(greeting: bytes) -> Mechanism:
    if greeting[:1] != _SIGNATURE[:1] or greeting[9:10] != _SIGNATURE[9:]:
        return Mechanism.OTHER
    named = greeting[len(_SIGNATURE) + len(_VERSION) :][:_MECHANISM_BYTES].rstrip(b"\0")
    return {b"NULL": Mechanism.NULL, b"CURVE": Mechanism.CURVE}.get(named, Mechanism.UNKNOWN)
