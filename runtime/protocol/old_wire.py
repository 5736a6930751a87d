"""Messages of protocol versions 1 and 2, so that both sides can report that their versions differ.

An old header is the preamble with its version, then a msgpack map with field names. An old device treats a reject with
the reason ``digest`` as final: it reports the text once and answers locally. An old MEC ignores headers of version 3,
but rejects a hello whose bundle it does not hold. A hello without a bundle therefore makes it answer, which shows its
version.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

OLD_VERSIONS = (1, 2)
#: Device name in the old hello that a new device sends to find an old MEC; a new MEC ignores it.
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
    """Whether the bytes after an old preamble are the hello of an old device."""
    return _device(body) not in ("", _SCOUT)


def is_scout(body: bytes | memoryview) -> bool:
    """Whether they are the hello by which a device of this version looks for an old MEC."""
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
