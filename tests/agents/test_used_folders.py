"""Which folders a training may not write into, and that this is said before torch is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.runs.run_lock import SEVERAL, locked
from agents.runs.seed_folders import PIECE, folder_of

#: The command without what takes seconds to load: whoever imports it fails.
QUICK = (
    "import sys; sys.modules.update(dict.fromkeys(('torch', 'numba', 'stable_baselines3')))\n"
    "import mecpilot; sys.exit(mecpilot.main(sys.argv[1:]))"
)


def refused(*arguments: object) -> str:
    """The line with which ``train`` refuses, before it has loaded anything slow."""
    command = [sys.executable, "-c", QUICK, "train", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    return line


def a_run(root: Path, steps: int = 64, **facts: str) -> RunFolder:
    """A run of 64 steps that has come to ``steps``."""
    folder = RunFolder(root)
    checkpoint = save({"weights": np.zeros(1)}, {"steps": str(steps), "goal": "64", "rounds_left": "0"})
    folder.start(TrainingConfig("garments", 64, 0), facts, checkpoint)
    return folder


def test_a_folder_that_holds_a_run_is_refused_at_once(tmp_path: Path) -> None:
    a_run(tmp_path / "done")
    assert "holds a finished training run of garments (64 steps); replace it with --overwrite" in refused(
        "--out", tmp_path / "done"
    )
    a_run(tmp_path / "begun", steps=8)
    assert "holds an interrupted training run of garments (8 of 64 steps)" in refused("--out", tmp_path / "begun")


def test_a_folder_with_other_files_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "exists and is not a training run" in refused("--out", tmp_path, "--overwrite")
    assert "holds no training run" in refused("--out", tmp_path, "--resume")
    (tmp_path / "seed-1").mkdir()
    (tmp_path / "seed-1" / "notes.txt").touch()
    assert "seed-1 exists and is not a training run" in refused("--out", tmp_path, "--seeds", "0-1", "--overwrite")


def test_a_run_that_several_seeds_would_replace_is_refused_at_once(tmp_path: Path) -> None:
    a_run(folder_of(tmp_path, 0).root, **{PIECE: "of other inputs, perhaps"})
    a_run(folder_of(tmp_path, 1).root)
    assert "seed-1 holds a finished training run" in refused("--out", tmp_path, "--seeds", "0-1")
    assert "seed-0 holds a training run; expected" in refused("--out", tmp_path / "seed-0", "--seeds", "0-1")


@pytest.mark.parametrize("options", [["--seed", "3"], ["--seeds", "0-1"], ["--overwrite"]])
def test_a_folder_in_which_another_process_trains_is_refused_at_once(options: list[str], tmp_path: Path) -> None:
    with locked(tmp_path):
        assert f"is training in {tmp_path}; wait until it ends" in refused("--out", tmp_path, *options)


@pytest.mark.parametrize("options", [["--seed", "0"], ["--overwrite"], ["--resume"]])
def test_a_folder_below_that_of_several_seeds_in_training_is_refused_at_once(
    options: list[str], tmp_path: Path
) -> None:
    a_run(folder_of(tmp_path, 0).root, steps=8)
    with locked(tmp_path, SEVERAL):
        line = refused("--out", tmp_path / "seed-0", *options)
    assert f"is training several seeds in {tmp_path}; wait until it ends, or choose another --out" in line


def test_other_work_in_the_folder_above_does_not_matter(tmp_path: Path) -> None:
    below = a_run(folder_of(tmp_path, 0).root)
    with locked(tmp_path, "evaluating"):
        below.check(resume=False, overwrite=True)
    other = a_run(tmp_path / "mine")
    with locked(tmp_path, SEVERAL):
        other.check(resume=False, overwrite=True)
    below.check(resume=False, overwrite=True)
