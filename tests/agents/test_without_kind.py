"""A kind of decision can be left out of the candidates, in this process, in a worker and in a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.scale.setups import opened, plain_setup
from agents.training.training import Options, setup_of, train
from controller.errors import UsageError
from envs.setup import Setup, open_setup
from runtime.testbed.markov_traces import builtin_traces


def kinds(setup: Setup) -> set[str]:
    return {decision.kind for decision in setup.costs.space.decisions}


def campus(without: str = "") -> Setup:
    return open_setup("campus", builtin_traces("test"), "test", profile=Path("shipped"), without=without)


def test_other_kinds_are_left_and_other_devices_load_the_mec_as_before() -> None:
    whole, splitless = campus(), campus("split")
    assert kinds(whole) == {"device-only", "split", "offload"}
    assert kinds(splitless) == {"device-only", "offload"}
    assert splitless.costs.neighbour_mec_s == whole.costs.neighbour_mec_s


def test_an_unknown_kind_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="unknown kind of decision 'cloud'; expected one of: device-only, split"):
        campus("cloud")


def test_a_worker_opens_the_same_candidates() -> None:
    plain = plain_setup(campus("split"))
    again = opened({**plain, "digest": "opened anew, not looked up"})
    assert again.costs.space.digest == campus("split").costs.space.digest


def test_a_training_has_no_such_candidate() -> None:
    config = TrainingConfig("campus", 100, 0, without="split")
    bank = builtin_traces("train")
    assert kinds(setup_of(config, bank, Path("shipped"))) == {"device-only", "offload"}
    assert "split" in kinds(setup_of(replace(config, without=""), bank, Path("shipped")))


def test_a_live_training_is_refused_instead_of_having_all_kinds(tmp_path: Path) -> None:
    config = TrainingConfig("campus", 100, 0, without="split")
    with pytest.raises(UsageError, match="training without split runs in the twin; leave out --live"):
        train(config, RunFolder(tmp_path / "run"), Options(Path("shipped"), live=True))
