"""The contract of a payload codec, and the table of all codecs by name.

Device and MEC look a decision's codec up here, a bundle is measured through it, and the profiler times it. A codec of
your own takes part in all of that once `register_codec` has added it, or an installed package has named it in an entry
point of group ``mecpilot.codecs``; docs/extending.md shows how.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import groupby
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError, RemoteProtocolError, UsageError
from controller.records import NO_PAYLOAD

Kind = Literal["image", "tensor"]
IMAGE: Kind = "image"
TENSOR: Kind = "tensor"
Payload: TypeAlias = bytes | memoryview

GROUP = "mecpilot.codecs"

#: The name of "no loss at all" among the recorded answers of a bundle, so no codec may have it.
LOSSLESS = "exact"

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DTYPES: dict[Kind, np.dtype[Any]] = {IMAGE: np.dtype(np.uint8), TENSOR: np.dtype(np.float32)}
#: Error messages write a longer series of names as "jpeg1..jpeg100".
_MOST_NAMES = 4


class Codec(ABC):
    """One way to turn an array into a payload and back.

    An image codec gets the resized picture at partition point 0: u8, (h, w) grey or (h, w, 3) colour. A tensor codec
    gets the tensor at a later partition point: float32, (channels, h, w). Codecs keep no state between two calls.
    """

    kind: ClassVar[Kind]
    lossless: ClassVar[bool] = False  # True: `decode` returns exactly what `encode` was given

    @property
    @abstractmethod
    def name(self) -> str:
        """What decisions and bundles call it."""

    @abstractmethod
    def encode(self, array: NDArray[Any]) -> bytes:
        """The payload of one array."""

    @abstractmethod
    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        """The array of that shape. The payload comes from the network and may hold anything.

        Check every size that the payload states against `shape` before memory is allocated for it. Raise
        RemoteProtocolError for whatever is wrong with the bytes.
        """

    def roundtrip(self, arrays: NDArray[Any]) -> NDArray[Any]:
        """What the MEC computes with instead of each array of a batch (n, ...)."""
        return np.stack([self.decode(self.encode(array), array.shape) for array in arrays])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what `decode` returns."""
        return _DTYPES[self.kind]


_table: dict[str, Codec] = {}


def register_codec(codec: Codec) -> None:
    """Add a codec to the table of this process; UsageError when its name is taken or not allowed.

    Every process that computes with a bundle (device, MEC, profiler) needs the codecs that the bundle names. An entry
    point of group ``mecpilot.codecs`` gives a codec to all of them.
    """
    if not _NAME.fullmatch(codec.name) or codec.name in (NO_PAYLOAD, LOSSLESS):
        raise UsageError(
            f"codec name {codec.name!r}; expected lower-case letters, digits and _, "
            f"and neither {NO_PAYLOAD!r} nor {LOSSLESS!r}"
        )
    if codec.name in _table:
        raise UsageError(f"there is a codec {codec.name!r} already; choose another name")
    _table[codec.name] = codec


def get_codec(name: str) -> Codec:
    """The codec of that name, registered or installed; UsageError when there is none."""
    if name not in _table:
        _register_installed(name)
    if name not in _table:
        raise UsageError(f"unknown payload codec {name!r}; expected one of: {_known()}; register_codec adds others")
    return _table[name]


def check_codecs(names: Iterable[str], kind: Kind) -> None:
    """UsageError unless every name is that of a registered codec of this kind."""
    for name in names:
        if (found := get_codec(name).kind) != kind:
            raise UsageError(f"payload codec {name!r} is for {found}s; expected one for {kind}s")


def encode(name: str, array: NDArray[Any]) -> bytes:
    """The payload of a u8 image (h, w[, 3]) or a float tensor (channels, h, w) by the codec of that name."""
    return get_codec(name).encode(array)


def decode(name: str, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array of that shape, u8 or float32 as the codec's kind has it; RemoteProtocolError for any other bytes."""
    codec = get_codec(name)
    array = codec.decode(payload, shape)
    if array.shape != shape or array.dtype != codec.dtype:
        raise RemoteProtocolError(
            f"payload codec {name!r} gave {array.dtype} of shape {array.shape}; expected {codec.dtype} of shape {shape}"
        )
    return array


def check_size(what: str, got_bytes: int, expected_bytes: int) -> None:
    """RemoteProtocolError unless both are equal."""
    if got_bytes != expected_bytes:
        raise RemoteProtocolError(f"{what} of {got_bytes} bytes; expected {expected_bytes}")


def _register_installed(name: str) -> None:
    """Register the codec of an installed package that has an entry point of that name."""
    from importlib.metadata import entry_points  # takes 10 ms, and built-in codecs do not need it

    for entry in entry_points(group=GROUP, name=name):
        try:
            codec = entry.load()()
            register_codec(codec)
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises is reported in one line
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise FailureError(f"the plug-in of payload codec {name!r} ({entry.value}) fails: {reason}") from None
        if codec.name != name:
            raise FailureError(f"the plug-in of payload codec {name!r} calls itself {codec.name!r}; expected one name")


def _known() -> str:
    """All names in the order of registration, a series that differs in its number as first..last."""
    shown: list[str] = []
    for _, group in groupby(_table, key=lambda name: name.rstrip("0123456789")):
        names = list(group)
        shown += names if len(names) <= _MOST_NAMES else [f"{names[0]}..{names[-1]}"]
    return ", ".join(shown)
