"""The files of a description, which a bundle carries."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from runtime.bundles.manifest import FileInfo
from runtime.workloads.adopted.description import ADOPTION_FILE
from runtime.workloads.adopted.workload import Adopted


def carried(work: object, directory: Path) -> tuple[FileInfo | None, FileInfo | None]:
    """``adoption`` and ``truth`` of a manifest, for the bundle that is written to a directory; None: not adopted.

    The files are copied there from the bundle of the workload.
    """
    if not isinstance(work, Adopted):
        return None, None
    names = (ADOPTION_FILE, work.adoption.truth.file)
    if work.directory.resolve() != directory.resolve():
        for name in names:
            shutil.copyfile(work.directory / name, directory / name)
    return _info(directory / names[0]), _info(directory / names[1])


def _info(path: Path) -> FileInfo:
    data = path.read_bytes()
    return FileInfo(path.name, hashlib.sha256(data).hexdigest(), len(data))
