"""Messages of protocol versions 1 to 3, so that both sides can report that their versions differ.

A header of version 1 or 2 is the preamble with its version, then a msgpack map with field names; one of version 3 has
an array without names, as today. An old device treats a reject with the reason ``digest`` as final: it reports the text
once and answers locally. An old MEC ignores headers of newer versions, but rejects a hello whose bundle it does not
hold. A hello that names no real bundle therefore makes it answer, which shows its version.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

OLD_VERSIONS = (1, 2, 3)
#: Version from which headers have no field names.
_NAMELESS = 3
#: Device name in the old hello that a new device sends to find an old MEC; a new MEC ignores it.
_SCOUT = "mecpilot-scout"

_Device = Annotated[str, Meta(min_length=1, max_length=64)]
_Digest = Annotated[str, Meta(max_length=128)]


class _NamedHello(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="hello"):
    device: _Device
    bundle_digest: _Digest


class _NamedReject(Struct, frozen=True, tag_field="type", tag="reject"):
    request_id: int
    reason: str
    text: str


class _Held(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    workload: _Device
    bundle_digest: _Digest
    space_digest: _Digest


class _Hello(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    device: _Device
    held: _Held


class _Reject(Struct, frozen=True, array_like=True, tag=5):
    request_id: int
    reason: int
    text: str
    queue_us: int


_NAMED_DECODER = msgspec.msgpack.Decoder(_NamedHello)
_DECODER = msgspec.msgpack.Decoder(_Hello)
#: The reason ``digest`` of version 3.
_DIGEST = 1


def is_old_hello(version: int, body: bytes | memoryview) -> bool:
    """Whether the bytes after an old preamble are the hello of an old device."""
    return _device(version, body) not in ("", _SCOUT)


def is_scout(version: int, body: bytes | memoryview) -> bool:
    """Whether they are the hello by which a device of this version looks for an old MEC."""
    return _device(version, body) == _SCOUT


def _device(version: int, body: bytes | memoryview) -> str:
    decoder: msgspec.msgpack.Decoder[_NamedHello] | msgspec.msgpack.Decoder[_Hello]
    decoder = _DECODER if version >= _NAMELESS else _NAMED_DECODER
    try:
        return decoder.decode(body).device
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def old_hello(version: int) -> bytes:
    """Header of a hello that an old MEC rejects."""
    if version >= _NAMELESS:
        return _header(version, _Hello(_SCOUT, _Held(_SCOUT, "", "")))
    return _header(version, _NamedHello(_SCOUT, ""))


def old_reject(version: int, text: str) -> bytes:
    """Header of a reject that an old device reports."""
    if version >= _NAMELESS:
        return _header(version, _Reject(0, _DIGEST, text, 0))
    return _header(version, _NamedReject(0, "digest", text))


def _header(version: int, message: Struct) -> bytes:
    return b"MP" + bytes([version]) + msgspec.msgpack.encode(message)
