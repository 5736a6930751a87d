"""With ``no_raw_upload`` no candidate sends an image: in training, tuning, comparison, environment and controllers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mecpilot
from agents.runs.run_folder import RunFolder
from controller.controllers.registry import CONTROLLER_NAMES
from controller.errors import UsageError
from envs.setup import open_setup
from runtime.config.sections.device import PrivacySection
from runtime.testbed.markov_traces import builtin_traces

QUICK = ("--workload", "garments", "--profile", "shipped", "--no-raw-upload")
SENDERS = {"mec-only", "jpeg-offload"}


def cuts(costs: mecpilot.CostTable) -> set[int]:
    return {decision.partition_point for decision in costs.space.decisions}


@pytest.mark.parametrize("bundle", ["garments", "campus"])
def test_no_candidate_of_partition_point_0_is_left(bundle: str) -> None:
    env = mecpilot.make_env(bundle, profile="shipped", no_raw_upload=True)
    setup = open_setup(
        bundle, builtin_traces("test"), "test", profile=Path("shipped"), privacy=PrivacySection(no_raw_upload=True)
    )
    private = mecpilot.open_costs(bundle, "shipped", no_raw_upload=True)
    for costs in (env.unwrapped.backend.costs, setup.costs, private):
        assert len(cuts(costs)) > 1
        assert 0 not in cuts(costs)
        assert costs.space.digest == private.space.digest
    assert 0 in cuts(mecpilot.open_costs(bundle, "shipped"))


def test_a_controller_chooses_from_what_is_left() -> None:
    state, _ = (env := mecpilot.make_env("garments", profile="shipped", no_raw_upload=True)).reset(seed=0)
    assert env.observation_space.contains(state)
    private = mecpilot.make_controller("static-best", "garments", profile="shipped", no_raw_upload=True)
    row = int(private.decide(env.backend.reset(env.scenario))[0])  # type: ignore[arg-type]
    assert env.decision(row).partition_point >= 1
    with pytest.raises(UsageError, match="controller mec-only only sends images, which --no-raw-upload forbids"):
        mecpilot.make_controller("mec-only", "garments", no_raw_upload=True)


@pytest.mark.parametrize("command", ["evaluate", "tune"])
def test_a_controller_that_only_sends_images_is_refused_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main([command, *QUICK, "--controllers", "greedy,jpeg-offload"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "controller jpeg-offload only sends images, which --no-raw-upload forbids; choose another one" in err


def test_an_evaluation_leaves_those_out_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert mecpilot.main(["evaluate", *QUICK, "--seeds", "1", "--frames", "5", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["controllers"]) == set(CONTROLLER_NAMES) - SENDERS
    assert "no_raw_upload: no decision sends an image" in report["provenance"]["notes"]


def test_compare_takes_the_switch() -> None:
    options = {"scenario": {"frames": 5}, "profile": "shipped", "no_raw_upload": True}
    report = mecpilot.compare("garments", ["static-best"], **options)
    assert "no_raw_upload: no decision sends an image" in report["provenance"]["notes"]
    with pytest.raises(UsageError, match="controller jpeg-offload only sends images"):
        mecpilot.compare("garments", ["jpeg-offload"], **options)


def test_a_tuning_file_says_what_it_was_made_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tuning.json"
    options = ("--controllers", "static-best", "--episodes", "2", "--frames", "5", "--out", str(out))
    assert mecpilot.main(["tune", *QUICK, *options]) == 0
    made = json.loads(out.read_text())
    assert set(made["controllers"]) == {"static-best"}
    assert "no_raw_upload: no decision sends an image" in made["made_with"]["notes"]
    assert made["made_with"]["profile"]["path"] == "garments.json"


def test_a_training_run_remembers_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.json").write_text('{"frames": 10}')
    out = ("--out", str(tmp_path / "run"))
    options = ("--scenario", str(tmp_path / "short.json"), "--steps", "100")
    assert mecpilot.main(["train", *QUICK, *out, *options]) == 0
    assert RunFolder(tmp_path / "run").config().no_raw_upload
    assert mecpilot.main(["train", *out, "--resume", "--steps", "100", "--profile", "shipped"]) == 0
    assert RunFolder(tmp_path / "run").config().no_raw_upload
    capsys.readouterr()
    assert mecpilot.main(["train", *out, "--resume", "--no-raw-upload"]) == 2
    assert "--no-raw-upload belong to a new run" in capsys.readouterr().err
