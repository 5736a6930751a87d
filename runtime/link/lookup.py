"""Looks up a host's addresses, and finds out why no MEC answers there.

Both block, so they run in ``runtime.link.background``.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from runtime.link.endpoint import Endpoint
from runtime.link.greeting import Mechanism, exchange_greetings
from runtime.security.curve import DeviceKeys
from runtime.security.handshake import trouble_of_handshake

#: At most this many addresses of a name are tried.
MOST_ADDRESSES = 4
_CONNECT_WAIT_S = 1.0
#: All that can be found out from outside; a MEC that is still starting looks like this too.
ZEROMQ_LISTENS = "a ZeroMQ socket listens there, but it is not a MEC or speaks another protocol version"
_OTHER_LISTENS = "a server accepts connections there but does not answer as a MEC would"
_ENCRYPTED_LISTENS = "what listens there speaks encrypted, this device plain: give --key and --mec-key"
_PLAIN_LISTENS = "what listens there speaks plain, this device encrypted: start the MEC with --key"


@dataclass(frozen=True, slots=True)
class Found:
    """The addresses of a host, or the reason for having none."""

    addresses: tuple[Endpoint, ...]
    failure: str = ""


@dataclass(frozen=True, slots=True)
class _Trouble:
    why: str
    reached: bool = False  # something listens there: more is known than at an address where nothing does


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


def trouble_at(endpoint: Endpoint, keys: DeviceKeys | None = None) -> str:
    """Why no MEC answers at an endpoint; found by connecting once to each address, with ``keys`` once more to shake
    hands."""
    found = addresses_of(endpoint)
    if not found.addresses:
        return found.failure or f"the name {endpoint.host} has no address"
    troubles = [_trouble_at_address(address, keys) for address in found.addresses]
    return next((trouble for trouble in troubles if trouble.reached), troubles[0]).why


def _trouble_at_address(address: Endpoint, keys: DeviceKeys | None) -> _Trouble:
    try:
        connection = socket.create_connection((address.host, address.port), _CONNECT_WAIT_S)
    except TimeoutError:
        return _Trouble("connecting there timed out")
    except OSError as error:
        return _Trouble(_reason(error))
    with connection:
        spoken = exchange_greetings(connection)
    return _Trouble(_trouble_of_mechanism(spoken, address, keys), reached=True)


def _trouble_of_mechanism(spoken: Mechanism, address: Endpoint, keys: DeviceKeys | None) -> str:
    if spoken is Mechanism.OTHER:
        return _OTHER_LISTENS
    if keys is None:
        return _ENCRYPTED_LISTENS if spoken is Mechanism.CURVE else ZEROMQ_LISTENS
    if spoken is Mechanism.CURVE:
        return trouble_of_handshake(str(address), keys) or ZEROMQ_LISTENS
    return _PLAIN_LISTENS if spoken is Mechanism.NULL else ZEROMQ_LISTENS


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
