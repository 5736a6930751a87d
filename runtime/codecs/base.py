"""The contract of a payload codec, and the table of all codecs by name.

Device and MEC, the measurement of bundles and the profiler all look codecs up here. Add your own codec with
`register_codec`, or with an entry point of group ``mecpilot.codecs`` in an installed package; see docs/extending.md.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import groupby
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from controller.records import NO_PAYLOAD
from runtime.plug_ins import PlugIns

Kind = Literal["image", "tensor"]
IMAGE: Kind = "image"
TENSOR: Kind = "tensor"
Payload: TypeAlias = bytes | memoryview

GROUP = "mecpilot.codecs"

#: In recorded predictions this name stands for "without loss", so no codec may have it.
LOSSLESS = "exact"

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DTYPES: dict[Kind, np.dtype[Any]] = {IMAGE: np.dtype(np.uint8), TENSOR: np.dtype(np.float32)}
#: Error messages shorten a longer series of names to "jpeg1..jpeg100".
_MOST_NAMES = 4


class Codec(ABC):
    """Converts an array to a payload and back.

    An image codec encodes the resized picture at partition point 0: u8, (h, w) grey or (h, w, 3) colour. A tensor codec
    encodes the tensor at a later partition point: float32, (channels, h, w). Codecs keep no state between calls;
    the senders and receivers of a `runtime.codecs.streams.StreamCodec` do.
    """

    kind: ClassVar[Kind]
    lossless: ClassVar[bool] = False  # True: `decode` returns exactly the array that was encoded

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in decisions and bundles."""

    @property
    def missing(self) -> str:
        """What must be installed before this process can use the codec, in one line; "" if nothing."""
        return ""

    def prepare(self) -> None:
        """Compile or load now what the first call would otherwise wait for. UsageError where that is impossible."""
        return

    @abstractmethod
    def encode(self, array: NDArray[Any]) -> bytes:
        """Encode one array."""

    @abstractmethod
    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        """Decode an array of that shape. The payload comes from the network and may hold anything.

        Check every size that the payload states against `shape` before memory is allocated for it. Raise
        RemoteProtocolError for any malformed payload.
        """

    def roundtrip(self, arrays: NDArray[Any]) -> NDArray[Any]:
        """Encode and decode each array of a batch (n, ...); returns what the MEC computes with."""
        return np.stack([self.decode(self.encode(array), array.shape) for array in arrays])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded array: u8 for an image codec, float32 for a tensor codec."""
        return _DTYPES[self.kind]


_table: dict[str, Codec] = {}
_plug_ins = PlugIns(GROUP, "payload codec")
_plugged: set[str] = set()  # names in the table that came from installed packages


def register_codec(codec: Codec) -> None:
    """Add a codec to the table of this process; UsageError when its name is taken or not allowed.

    Every process that uses a bundle (device, MEC, profiler) needs the codecs that the bundle names. An entry point of
    group ``mecpilot.codecs`` registers a codec in all of them.
    """
    if not _NAME.fullmatch(codec.name) or codec.name in (NO_PAYLOAD, LOSSLESS):
        raise UsageError(
            f"codec name {codec.name!r}; expected lower-case letters, digits and _, "
            f"and neither {NO_PAYLOAD!r} nor {LOSSLESS!r}"
        )
    if codec.name in _table:
        raise UsageError(f"codec {codec.name!r} is already registered; choose another name")
    _table[codec.name] = codec


def get_codec(name: str) -> Codec:
    """The registered or installed codec of that name; UsageError when there is none."""
    if name not in _table:
        _register_installed(name)
    if name not in _table:
        raise UsageError(f"unknown payload codec {name!r}; expected one of: {_known()}; register_codec adds others")
    return _table[name]


def check_codecs(names: Iterable[str], kind: Kind) -> None:
    """UsageError unless every name belongs to a codec of this kind."""
    _plug_ins.warn_if_unused(_table.keys() - _plugged)
    for name in names:
        if (found := get_codec(name).kind) != kind:
            raise UsageError(f"payload codec {name!r} is for {found}s; expected one for {kind}s")


def encode(name: str, array: NDArray[Any]) -> bytes:
    """Encode a u8 image (h, w[, 3]) or a float tensor (channels, h, w) with the codec of that name."""
    return get_codec(name).encode(array)


def decode(name: str, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
    """Decode an array of that shape, u8 or float32 depending on the kind; RemoteProtocolError for a bad payload."""
    array = get_codec(name).decode(payload, shape)
    check_decoded(name, array, shape)
    return array


def check_decoded(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    """RemoteProtocolError unless the codec of that name decoded an array of this shape and of its type."""
    expected = get_codec(name).dtype
    if array.shape != shape or array.dtype != expected:
        raise RemoteProtocolError(
            f"payload codec {name!r} decoded {array.dtype} {array.shape}; expected {expected} {shape}"
        )


def check_size(what: str, got_bytes: int, expected_bytes: int) -> None:
    """RemoteProtocolError unless both sizes are equal. ``what`` begins the message."""
    if got_bytes != expected_bytes:
        raise RemoteProtocolError(f"{what} of {got_bytes} bytes; expected {expected_bytes}")


def _register_installed(name: str) -> None:
    """Register the codec of the plug-in of that name, if there is one; FailureError when it fails or does not fit."""
    factory = _plug_ins.load(name)
    if factory is None:
        return
    with _plug_ins.told(name):
        codec = factory()
    _plug_ins.check(name, codec, expected="a runtime.codecs.Codec", fits=isinstance(codec, Codec))
    _plug_ins.check_name(name, codec.name)
    register_codec(codec)
    _plugged.add(name)


def _known() -> str:
    """All names, those of packages last; a numbered series is shortened to first..last."""
    shown: list[str] = []
    for _, group in groupby(dict.fromkeys((*_table, *_plug_ins.names())), key=lambda name: name.rstrip("0123456789")):
        names = list(group)
        shown += names if len(names) <= _MOST_NAMES else [f"{names[0]}..{names[-1]}"]
    return ", ".join(shown)
