"""Parses and checks endpoints, ``tcp://HOST:PORT``, before a socket uses them.

ZeroMQ takes port 99999 modulo 65,536 and reads ``80x`` as 80, so it cannot check what a user typed.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from controller.errors import UsageError

_SCHEME = "tcp://"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?")
_MOST_NAME_CHARS = 253
#: A bracketed IPv6 address or a host without a colon; then the port.
_HOST_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*):([^:]*)")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (name or address, IPv6 without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return _written(self.host, self.port)

    @property
    def is_ipv6(self) -> bool:
        return _is_ipv6(self.host)

    @property
    def is_numeric(self) -> bool:
        """Whether the host is an address, which needs no lookup."""
        return self.is_ipv6 or _is_ipv4(self.host)


@dataclass(frozen=True, slots=True)
class BindEndpoint:
    """Where a MEC listens: the host may be ``*`` (every address) or an interface, the port ``*`` (any free one)."""

    host: str
    port: str

    def __str__(self) -> str:
        return _written(self.host, self.port)

    @property
    def is_ipv6(self) -> bool:
        return _is_ipv6(self.host)


def _is_ipv6(host: str) -> bool:
    return ":" in host


def _written(host: str, port: int | str) -> str:
    """The endpoint as a user writes it, with an IPv6 address in brackets."""
    return f"{_SCHEME}[{host}]:{port}" if _is_ipv6(host) else f"{_SCHEME}{host}:{port}"


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint of a MEC, for a device. UsageError if the text is not one."""
    host, port = _split(text)
    if host == "*":
        raise UsageError(f"endpoint {text!r} has no host; expected the name or address of the MEC")
    return Endpoint(_checked_host(text, host), int(_checked_port(text, port)))


def parse_bind(text: str) -> BindEndpoint:
    """The endpoint at which a MEC listens. UsageError if the text is not one."""
    host, port = _split(text)
    host = host if host == "*" else _checked_host(text, host)
    if port == "0":
        raise UsageError(f"endpoint {text!r}: port 0; expected a port from 1 to 65535, or * to let the system choose")
    return BindEndpoint(host, port if port == "*" else _checked_port(text, port))


def _split(text: str) -> tuple[str, str]:
    if not text.startswith(_SCHEME):
        hint = "" if "://" in text or ":" not in text else f", for example {_SCHEME}{text}"
        raise UsageError(f"endpoint {text!r} does not start with {_SCHEME}; expected tcp://HOST:PORT{hint}")
    rest = text.removeprefix(_SCHEME)
    if rest.count(":") > 1 and "[" not in rest:
        raise UsageError(f"endpoint {text!r}: an IPv6 address needs brackets; expected tcp://[ADDRESS]:PORT")
    match = _HOST_PORT.fullmatch(rest)
    if match is None:
        raise UsageError(f"endpoint {text!r} is not a host and a port; expected tcp://HOST:PORT")
    return match[1], match[2]


def _checked_host(text: str, host: str) -> str:
    """The host without brackets; international names in their ASCII form."""
    if host.startswith("["):
        return _checked_ipv6(text, host[1:-1])
    if re.fullmatch(r"[0-9.]+", host) and not _is_ipv4(host):
        raise UsageError(f"endpoint {text!r}: {host} is not an IPv4 address; expected four numbers from 0 to 255")
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if len(name) > _MOST_NAME_CHARS or not _NAME.fullmatch(name):
        raise UsageError(f"endpoint {text!r}: {host!r} is not a host name or address; expected tcp://HOST:PORT")
    return name


def _checked_ipv6(text: str, address: str) -> str:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise UsageError(
            f"endpoint {text!r}: {address!r} is not an IPv6 address; expected tcp://[ADDRESS]:PORT"
        ) from None
    return address


def _checked_port(text: str, port: str) -> str:
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise UsageError(f"endpoint {text!r}: port {port!r}; expected tcp://HOST:PORT with a port from 1 to 65535")
    return str(int(port))


def _is_ipv4(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return False
    return True
