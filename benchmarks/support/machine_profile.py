"""The profile of this machine for a benchmark.

A twin tells only of the machine that it was calibrated on, so benchmarks that set it against real processes need one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.cli.profile import profile


@contextmanager
def machine_profile(workload: str, given: Path | None) -> Iterator[Path]:
    """The given file, or one that is measured now and forgotten afterwards."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        profile(workload, out=path)
        yield path
