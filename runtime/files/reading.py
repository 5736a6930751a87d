"""Read a file that a user names, up to a size limit, because it may be a video or /dev/zero."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

#: Larger than any profile, tuning file, manifest or scenario.
MAX_BYTES = 64 << 20


def read_bounded(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The whole content; OSError when it cannot be read or is larger than ``limit``."""
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except ValueError as error:  # a NUL character in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"{os.strerror(errno.EFBIG)} (more than {limit >> 20} MiB)", str(path))
    return data


class _Versioned(msgspec.Struct, frozen=True):
    """The only field that every format version has."""

    format_version: int


def format_version(data: bytes) -> int:
    """The format version that a JSON document states; MsgspecError when it states none."""
    return msgspec.json.decode(data, type=_Versioned).format_version
