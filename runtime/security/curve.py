"""The keys of either end of a connection, as options of its ZeroMQ socket.

CURVE (RFC 26) encrypts every message with keys of the connection and proves both ends' long-term keys. The device knows
the MEC's public key beforehand, so another server cannot answer in its place. The MEC asks its list whether it knows
the device's (``runtime.security.admission``).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from runtime.security.allow_list import AllowList
from runtime.security.keys import KeyPair, fingerprint

#: Names the MEC's socket to the authenticator. Without a domain, ZeroMQ would admit everybody if none were running.
ZAP_DOMAIN = "mecpilot"
_ROUTING_ID_BYTES = 15
Options = Sequence[tuple[int, int | bytes]]


@dataclass(frozen=True)
class DeviceKeys:
    """A device's own pair, and the public key that it expects of one MEC."""

    own: KeyPair
    mec: str

    @property
    def options(self) -> Options:
        """Options of a socket that connects to that MEC, and never the same ones twice.

        Replies go to the routing id. Nobody else can guess this one, so nobody can take it over when it is free again.
        """
        return (
            (zmq.ROUTING_ID, b"\x01" + secrets.token_bytes(_ROUTING_ID_BYTES)),
            (zmq.CURVE_SERVERKEY, self.mec.encode()),
            (zmq.CURVE_PUBLICKEY, self.own.public.encode()),
            (zmq.CURVE_SECRETKEY, self.own.secret.encode()),
        )

    @property
    def fingerprint(self) -> str:
        """Of the device's own key, as the MEC's log names it."""
        return fingerprint(self.own.public)


@dataclass(frozen=True)
class MecKeys:
    """A MEC's own pair, and the list of those whom it admits."""

    own: KeyPair
    allowed: AllowList

    @property
    def options(self) -> Options:
        """Options of the socket that listens."""
        return (
            (zmq.CURVE_SERVER, 1),
            (zmq.CURVE_SECRETKEY, self.own.secret.encode()),
            (zmq.ZAP_DOMAIN, ZAP_DOMAIN.encode()),
            (zmq.ZAP_ENFORCE_DOMAIN, 1),
        )
