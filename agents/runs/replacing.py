"""Replaces a run in a folder so that a crash leaves either the old run or the new one complete.

The new entries are written to one hidden folder. Then, in this order: the old entries move to a second one; a marker
file shows that all of them are there; the new entries move to their final places; the second folder is renamed, which
commits the replacement; the old entries are removed. ``recover`` cleans up after a crash: before the commit it restores
the old run. Only the named entries are touched; other files in the folder stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from runtime.files.atomic import sync_folder

NEW, _REPLACED, _DISCARDED = ".mecpilot-new", ".mecpilot-replaced", ".mecpilot-discarded"
_MARKER = ".all"


def replace_entries(root: Path, names: Sequence[str]) -> None:
    """Replace all named entries of ``root`` by those in its folder ``NEW``."""
    replaced = root / _REPLACED
    replaced.mkdir()
    _move(root, replaced, names)
    (replaced / _MARKER).touch()
    sync_folder(root)
    _move(root / NEW, root, names)
    sync_folder(root)
    replaced.rename(root / _DISCARDED)
    sync_folder(root)
    recover(root, names)


def was_cut_off(root: Path) -> bool:
    """Whether a crash interrupted a replacement here."""
    return any((root / name).exists() for name in (NEW, _REPLACED, _DISCARDED))


def recover(root: Path, names: Sequence[str]) -> None:
    """Undo a replacement that was interrupted before its commit; finish one that was interrupted after it."""
    replaced = root / _REPLACED
    if replaced.is_dir():
        if (replaced / _MARKER).exists():  # all entries now in ``root`` are new
            for name in names:
                _remove(root / name)
            (replaced / _MARKER).unlink()
        _move(replaced, root, names)
        sync_folder(root)
        replaced.rmdir()
    for leftover in (NEW, _DISCARDED):
        _remove(root / leftover)


def _move(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).exists():
            (source / name).rename(target / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
