"""Find the footage of an adopted bundle on this machine, and check that it is the one that was adopted."""

from __future__ import annotations

import os
from pathlib import Path

from controller.errors import FailureError, UsageError
from runtime.files.masking import shown
from runtime.workloads.adopted.description import Footage
from runtime.workloads.adopted.pictures import digest_of, size_of


def find_footage(footage: Footage, workload: str, data: Path | None) -> Path:
    """Path of the footage: at ``data``, which is it or holds it, else where the adoption read it.

    FailureError when it is not there, UsageError when ``data`` is something else.
    """
    places = [Path(footage.path)] if data is None else [data / footage.file, data]
    found = next((place for place in places if _is_it(place, footage)), None)
    if found is None:
        _refuse(footage, workload, data)
    assert found is not None
    if digest_of(found) != footage.sha256:
        raise FailureError(
            f"{shown(found)} is not the footage {footage.file} that {workload!r} was adopted from: its SHA-256 "
            "differs; give the original with --data"
        )
    return found


def _is_it(place: Path, footage: Footage) -> bool:
    """Whether the place is a file or folder of as many bytes; a device, or a folder without pictures is not it."""
    try:
        return (os.path.isfile(place) or os.path.isdir(place)) and size_of(place) == footage.size_bytes
    except (OSError, UsageError):
        return False


def _refuse(footage: Footage, workload: str, data: Path | None) -> None:
    expected = f"{footage.file} ({footage.size_bytes} bytes)"
    if data is not None:
        raise UsageError(f"--data {shown(data)} is not the footage of {workload!r}; expected {expected}, or its folder")
    raise FailureError(
        f"the footage of {workload!r} is not at {shown(Path(footage.path))}; expected {expected}: give it, or its "
        "folder, with --data (a device with --source and a MEC need none)"
    )
