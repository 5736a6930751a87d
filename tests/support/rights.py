"""Drops root rights for tests of files that must not be readable."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Run the block as another user, because root may read everything."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
