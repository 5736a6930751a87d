"""train, tune and evaluate with a bundle of one's own, and a training of a single update of PPO."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.once import once
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mecpilot
from agents.runs.run_folder import RunFolder
from runtime.bundles.bundle import SHIPPED_DIR


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that does not ship, under no name that is known."""
    folder = tmp_path_factory.mktemp("bundles") / "mine"
    return Path(shutil.copytree(SHIPPED_DIR / "garments", folder))


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenarios") / "short.json"
    path.write_text('{"frames": 10}')
    return path


@pytest.fixture
def trained(
    bundle: Path, scenario: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> tuple[RunFolder, str]:
    """A training that is shorter than one rollout of PPO, and what it said."""

    def make(folder: Path) -> None:
        arguments = ["--bundle", bundle, "--scenario", scenario, "--steps", 100, "--profile", "shipped"]
        assert mecpilot.main(["train", "--out", str(folder), *map(str, arguments)]) == 0
        (folder / "stderr").write_text(capsys.readouterr().err)

    folder = once(tmp_path_factory, "own-bundle", make)
    return RunFolder(folder), (folder / "stderr").read_text()


def test_steps_past_the_goal_are_said_in_one_line(trained: tuple[RunFolder, str]) -> None:
    """PPO plays whole episodes, so one update takes more steps than the training was to have."""
    folder, err = trained
    line = next(line for line in err.splitlines() if line.startswith("PPO plays 32 whole episodes, at most "))
    most = int(line.split("at most ")[1].split(" steps")[0].replace(",", ""))
    assert 100 < folder.reached().steps <= most


def test_a_training_of_one_update_learns(trained: tuple[RunFolder, str]) -> None:
    events = EventAccumulator(str(trained[0].tensorboard), {"scalars": 0})
    events.Reload()
    assert [event.value > 0 for event in events.Scalars("train/learning_rate")] == [True]


def test_a_run_remembers_its_bundle(
    trained: tuple[RunFolder, str], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trained[0].config()
    assert (config.workload, Path(config.bundle)) == ("garments", bundle.resolve())
    assert mecpilot.main(["train", "--out", str(trained[0].root), "--resume", "--bundle", str(bundle)]) == 2
    assert "--overwrite, --hardware-encoder and --no-raw-upload belong to a new run" in capsys.readouterr().err
    policy = tmp_path / "policy.safetensors"
    assert mecpilot.main(["export", str(trained[0].root), "--out", str(policy)]) == 0
    capsys.readouterr()
    options = ["--bundle", str(bundle), "--controllers", "ppo", "--policy", str(policy), "--profile", "shipped"]
    assert mecpilot.main(["evaluate", *options, "--seeds", "1", "--frames", "5", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["workload"] == "garments"


def test_tune_takes_a_bundle(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tuning.json"
    options = ["--bundle", bundle, "--controllers", "device-only", "--episodes", 2, "--frames", 5, "--out", out]
    assert mecpilot.main(["tune", *map(str, options), "--profile", "shipped"]) == 0
    assert json.loads(out.read_text())["workload"] == "garments"


@pytest.mark.parametrize("command", ["train", "tune", "evaluate"])
def test_a_bundle_of_another_workload_is_one_line(
    command: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bundle", str(bundle), "--workload", "campus", "--out", str(tmp_path / "out")]
    assert mecpilot.main([command, *options]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "is for workload 'garments'; expected 'campus'" in err


@pytest.mark.parametrize("command", ["tune", "evaluate"])
def test_a_workload_by_reference_is_taken(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped bundle serves a class that extends its workload."""
    (tmp_path / "mine.py").write_text(
        "from runtime.workloads.garments.workload import Garments\n\n\n"
        "class Mine(Garments):\n    name = 'mine'\n    bundle = 'garments'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--workload", "mine:Mine", "--controllers", "device-only", "--frames", "5", "--profile", "shipped"]
    options += ["--episodes", "2"] if command == "tune" else ["--seeds", "1"]
    assert mecpilot.main([command, *options, "--json", str(tmp_path / "found.json")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "found.json").read_text())["workload"] == "garments"
    assert ("mine, on the recordings of bundle garments, twin: " in shown) == (command == "evaluate")
    assert "the twin replays the recorded answers of bundle garments, not the frames of mine" in shown


def test_a_policy_of_another_workload_cannot_be_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campus = SHIPPED_DIR.parent / "policies" / "campus.safetensors"
    assert mecpilot.main(["train", "--workload", "garments", "--from", str(campus), "--out", str(tmp_path / "r")]) == 2
    assert "trained for workload campus, expected garments" in capsys.readouterr().err
