"""Looks up a host's addresses, and finds out why no MEC answers there.

Both block, so they run in ``runtime.link.background``.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from runtime.link.endpoint import Endpoint

#: At most this many addresses of a name are tried.
MOST_ADDRESSES = 4
_CONNECT_WAIT_S = 1.0
_GREETING_WAIT_S = 0.5
_GREETING_BYTES = 10
_ZEROMQ_LISTENS = "a ZeroMQ socket listens there, but it is not a MEC or speaks another protocol version"
_OTHER_LISTENS = "a server accepts connections there but does not answer as a MEC would"


@dataclass(frozen=True, slots=True)
class Found:
    """The addresses of a host, or the reason for having none."""

    addresses: tuple[Endpoint, ...]
    failure: str = ""


def addresses_of(endpoint: Endpoint) -> Found:
    """The addresses behind an endpoint, in the order of the system's preference."""
    if endpoint.is_numeric:
        return Found((endpoint,))
    try:
        rows = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Found((), f"the name {endpoint.host} cannot be resolved: {_reason(error)}")
    hosts = dict.fromkeys(str(row[4][0]) for row in rows)
    return Found(tuple(Endpoint(host, endpoint.port) for host in hosts)[:MOST_ADDRESSES])


def trouble_at(endpoint: Endpoint) -> str:
    """Why no MEC answers at an endpoint; found by connecting once to each address."""
    found = addresses_of(endpoint)
    if not found.addresses:
        return found.failure or f"the name {endpoint.host} has no address"
    reasons = [_trouble_at_address(address) for address in found.addresses]
    return next((reason for reason in reasons if reason in (_ZEROMQ_LISTENS, _OTHER_LISTENS)), reasons[0])


def _trouble_at_address(address: Endpoint) -> str:
    try:
        connection = socket.create_connection((address.host, address.port), _CONNECT_WAIT_S)
    except TimeoutError:
        return "connecting there timed out"
    except OSError as error:
        return _reason(error)
    with connection:
        return _trouble_of_greeting(_greeting(connection))


def _greeting(connection: socket.socket) -> bytes:
    connection.settimeout(_GREETING_WAIT_S)
    try:
        return connection.recv(_GREETING_BYTES)
    except OSError:
        return b""


def _trouble_of_greeting(greeting: bytes) -> str:
    """The reason that a server's first bytes show. ZeroMQ sends ten, with a known first and last one."""
    if greeting[:1] == b"\xff" and greeting[9:10] == b"\x7f":
        return _ZEROMQ_LISTENS
    return _OTHER_LISTENS


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
