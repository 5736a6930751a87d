"""What can be said to a peer that still speaks version 1 or 2 of the protocol? That it does, in its own format.

Old headers are the preamble with their version, then a msgpack map with field names. An old device takes a reject with
the reason ``digest`` for final: it reports the text, once, and answers locally. An old MEC rejects a hello whose bundle
it does not hold, so a hello without one makes it speak, which tells its version; it ignores headers of version 3.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

OLD_VERSIONS = (1, 2)
#: Who says an old hello only to hear whether an old MEC is there; a new MEC passes over it.
_SCOUT = "mecpilot-scout"


class _Hello(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="hello"):
    device: Annotated[str, Meta(min_length=1, max_length=64)]
    bundle_digest: Annotated[str, Meta(max_length=128)]


class _Reject(Struct, frozen=True, tag_field="type", tag="reject"):
    request_id: int
    reason: str
    text: str


_DECODER = msgspec.msgpack.Decoder(_Hello)


def is_old_hello(body: bytes | memoryview) -> bool:
    """Whether what follows an old preamble is the hello of an old device."""
    return _device(body) not in ("", _SCOUT)


def is_scout(body: bytes | memoryview) -> bool:
    """Whether it is what a device of this version says to find out about an old MEC."""
    return _device(body) == _SCOUT


def _device(body: bytes | memoryview) -> str:
    try:
        return _DECODER.decode(body).device
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def old_hello(version: int) -> bytes:
    """Header of a hello that an old MEC rejects."""
    return _header(version, _Hello(_SCOUT, ""))


def old_reject(version: int, text: str) -> bytes:
    """Header of a reject that an old device reports."""
    return _header(version, _Reject(0, "digest", text))


def _header(version: int, message: Struct) -> bytes:
    return b"MP" + bytes([version]) + msgspec.msgpack.encode(message)
