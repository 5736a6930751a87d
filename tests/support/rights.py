"""Tests of files that may not be read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Not root, who may read everything."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
