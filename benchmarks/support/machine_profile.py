"""Provides a profile of this machine to benchmarks that compare the twin with real processes.

A twin is valid only for the machine that it was calibrated on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.cli.profile import profile


@contextmanager
def machine_profile(workload: str, given: Path | None, bundle: str | Path | None = None) -> Iterator[Path]:
    """The given file, or a temporary one that is measured now, of a bundle's directory or else the shipped bundle."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        profile(workload, None if bundle is None else Path(bundle), out=path)
        yield path
