"""Where a MEC is: what a device must know to connect to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controller.errors import UsageError
from runtime.link.endpoint import Endpoint, parse_endpoint
from runtime.security.curve import DeviceKeys


@dataclass(frozen=True, slots=True)
class MecAddress:
    """One MEC. ``name`` is its endpoint as the user wrote it; logs and figures use it."""

    name: str
    endpoint: Endpoint
    keys: DeviceKeys | None = None  # of the device and that MEC; None on a plain connection


def addresses_of(given: str | Sequence[str]) -> tuple[MecAddress, ...]:
    """The MECs that a user names, the preferred one first. UsageError for none, for what is no endpoint, and for one
    that is named twice: the second would be taken for a spare."""
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        raise UsageError("got no MEC; expected the endpoint of one, tcp://HOST:PORT")
    found = tuple(MecAddress(name, parse_endpoint(name)) for name in names)
    for number, address in enumerate(found):
        if address.endpoint in (other.endpoint for other in found[:number]):
            raise UsageError(f"MEC {address.name} is given twice; expected each once")
    return found


def names_of(addresses: Iterable[MecAddress]) -> str:
    """The names in one line."""
    return ", ".join(address.name for address in addresses)
