"""A policy is trained with techniques beside the decisions, and its run and its file say with which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import mecpilot
from agents.compare.trained_on import trained_with
from agents.learn.config import BranchConfig, FitConfig, PpoConfig, WarmStartConfig
from agents.runs.export import export
from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.training.training import Options, train
from controller.scenario import ScenarioRange
from envs.techniques import Techniques
from runtime.config.sections.shortcuts import FilterSection
from runtime.files.policy_file import load_policy

TECHNIQUES = Techniques(forecast=False, gates=(0.9,), filter=FilterSection(mode="auto"))
CONFIG = TrainingConfig(
    "campus",
    steps=48,
    seed=1,
    environments=4,
    warm_start=WarmStartConfig(branches=BranchConfig(rounds=1, every=1, candidates=2, frames=3, fit=FitConfig(1))),
    ppo=PpoConfig(rollout_steps=4, minibatch=16, epochs=1, siblings=1),
    scenario=ScenarioRange(frames=12),
    techniques=TECHNIQUES,
)


def test_run_folder_policy_file_and_a_resumed_training_have_the_techniques(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    train(CONFIG, folder, Options(Path("shipped")))
    assert folder.config().techniques == TECHNIQUES
    train(replace(folder.config(), steps=16), folder, Options(Path("shipped"), resume=True))
    assert folder.reached().steps > 48
    export(folder, tmp_path / "policy.safetensors")
    _, manifest = load_policy(tmp_path / "policy.safetensors", "campus")
    gate, filter_ = trained_with("ppo", manifest.training)
    assert gate.startswith("ppo was trained with gate: ")
    assert "target" in filter_


def test_of_a_policy_without_techniques_or_with_unreadable_ones() -> None:
    assert trained_with("ppo", {}) == []
    assert trained_with("ppo", {"techniques": {"gates": "high"}}) == [
        "ppo: unknown which techniques it was trained with"
    ]


@pytest.mark.parametrize("command", ["train", "tune"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--workload", "garments", "--forecast"],
            "got forecasts with the workload 'garments', whose answers do not move",
        ),
        (["--workload", "garments", "--filter", "auto"], "got --filter auto for garments, whose samples are no stream"),
        (["--workload", "campus", "--gate", "2"], "gate 2.0; expected a confidence from 0.5 to 0.9999"),
        (["--workload", "campus", "--filter", "on"], "--filter on; expected off, auto, or a threshold above 0"),
    ],
)
def test_what_cannot_be_switched_on_is_refused_in_one_line(
    command: str, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main([command, *options, "--profile", "shipped", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_they_belong_to_a_new_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--forecast"], ["--no-forecast"], ["--gate", "0.9"], ["--filter", "auto"]):
        assert mecpilot.main(["train", "--out", str(tmp_path / "run"), "--resume", *option]) == 2
        assert "belong to a new run" in capsys.readouterr().err
