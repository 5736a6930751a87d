"""The run folders of a training of several seeds. Nothing here loads torch, so that what cannot be used is refused at
once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agents.runs.run_folder import RunFolder
from agents.runs.run_lock import refuse_if_locked
from controller.errors import UsageError

#: Name in a run's description of what its training depended on, so that it is not repeated.
PIECE = "piece"


def folder_of(out: Path, seed: int) -> RunFolder:
    """The run folder of a seed."""
    return RunFolder(out / f"seed-{seed}")


def piece_of(folder: RunFolder) -> str:
    """Key of the piece whose finished training the folder holds; empty if there is none."""
    try:
        return str(folder.description().get(PIECE, ""))
    except UsageError:
        return ""


def check_seeds(out: Path, seeds: Iterable[int], overwrite: bool) -> None:
    """UsageError if ``out`` or the folder of a seed is in use, or holds something that must not be replaced.

    A finished training of several seeds passes: whether it is the one that is asked for is known once all inputs are
    open (``agents.training.seeds``).
    """
    if RunFolder(out).config_file.exists():
        raise UsageError(f"{out} holds a training run; expected an --out for a folder of runs")
    refuse_if_locked(out)
    for seed in seeds:
        folder = folder_of(out, seed)
        folder.refuse_if_used()
        if not piece_of(folder):
            folder.refuse_existing(overwrite, resumable=False)
