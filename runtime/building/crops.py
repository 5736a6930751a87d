"""Run `mecpilot models add --roi`: the same bundle, and beside its manifest what parts of pictures score.

The manifest does not change, so device, MEC and profile take the new folder for the bundle that it was.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from controller.errors import UsageError
from runtime.building.existing import check_same_samples
from runtime.bundles.bundle import Bundle
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.regions.costs import crops_of
from runtime.regions.recording import measure_crops, steps
from runtime.regions.scores import CROPS_FILE
from runtime.workloads.base import Workload

if TYPE_CHECKING:
    from rich.progress import Progress


def run_crops(base: Bundle, workload: Workload, out: Path, progress: Progress) -> None:
    """Write the bundle with the scores of crops into ``out``, another folder; UsageError for a workload without
    crops, and for other samples than those of the bundle."""
    crops_of(workload)
    check_same_samples(base, workload)
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() == base.directory.resolve():
        raise UsageError(f"--out {out} is the bundle itself; expected another folder")
    bar = progress.add_task("crops", total=steps(base, workload))
    measure_crops(base, workload, out, lambda what: progress.update(bar, advance=1, description=f"crops: {what}"))
    for name in (*base.file_names, MANIFEST_FILE):
        shutil.copyfile(base.directory / name, out / name)


def copy_crops(base: Bundle, out: Path) -> None:
    """Take the scores of crops along into a bundle with the same models."""
    path = base.directory / CROPS_FILE
    if path.is_file() and out.resolve() != base.directory.resolve():
        shutil.copyfile(path, out / CROPS_FILE)
