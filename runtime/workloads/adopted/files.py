"""The files of a description, which a bundle carries."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from runtime.bundles.manifest import FileInfo
from runtime.workloads.adopted.description import ADOPTION_FILE
from runtime.workloads.adopted.workload import Adopted


def carried(work: object, directory: Path) -> dict[str, FileInfo]:
    """``adoption`` and ``truth`` of a manifest, for the bundle that is written to a directory; {}: not adopted.

    Files that are not there yet are copied from the bundle of the workload.
    """
    if not isinstance(work, Adopted):
        return {}
    named = {"adoption": ADOPTION_FILE, "truth": work.adoption.truth.file}
    directory.mkdir(parents=True, exist_ok=True)
    for name in named.values():
        if work.directory.resolve() != directory.resolve():
            shutil.copyfile(work.directory / name, directory / name)
    return {field: _info(directory / name) for field, name in named.items()}


def _info(path: Path) -> FileInfo:
    data = path.read_bytes()
    return FileInfo(path.name, hashlib.sha256(data).hexdigest(), len(data))
