"""Techniques and kinds of decision can be left out of the candidates, here, in a worker and in a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import mecpilot
from agents.compare.ablate import ALL, NONE, compare_techniques, report_of, table_of, variations
from agents.compare.evaluation import Entrants
from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.scale.setups import opened, plain_setup
from agents.training.training import Options, setup_of, train
from controller.errors import UsageError
from controller.predict.uplink import TraceBank
from controller.techniques import TECHNIQUES
from envs.setup import Setup, open_setup
from runtime.testbed.markov_traces import builtin_traces


def kinds(setup: Setup) -> set[str]:
    return {decision.kind for decision in setup.costs.space.decisions}


def campus(*without: str) -> Setup:
    return open_setup("campus", builtin_traces("test"), "test", profile=Path("shipped"), without=without)


def test_other_kinds_are_left_and_other_devices_load_the_mec_as_before() -> None:
    whole, splitless = campus(), campus("split")
    assert kinds(whole) == {"device-only", "split", "offload"}
    assert kinds(splitless) == {"device-only", "offload"}
    assert splitless.costs.neighbour_mec_s == whole.costs.neighbour_mec_s


def test_an_unknown_kind_is_refused_in_one_line() -> None:
    with pytest.raises(
        UsageError, match="unknown kind of decision or technique 'cloud'; expected one of: device-only, split"
    ):
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


class TestTechniques:
    def test_each_leaves_out_what_it_names(self) -> None:
        def column(name: str, field: str) -> set[object]:
            return set(campus(name).costs.space.column(field))

        assert "split" not in kinds(campus("partition"))
        assert len(column("selection", "model")) == 1
        assert len(column("application", "resolution_px")) == 1
        assert column("application", "frame_stride") == {1}
        exits = {(d.model, d.exit_branch) for d in campus("early-exit").costs.space.decisions}
        assert len(exits) == len({model for model, _ in exits})

    def test_all_of_them_can_be_left_out_and_the_device_still_answers_alone(self) -> None:
        bare = campus(*TECHNIQUES).costs.space
        assert bare.device_only.any()
        assert {(d.model, d.resolution_px, d.exit_branch, d.frame_stride) for d in bare.decisions} == {
            (bare.decisions[0].model, bare.decisions[0].resolution_px, bare.decisions[0].exit_branch, 1)
        }

    def test_what_a_setup_lacks_it_lacks_in_its_variations_too(self) -> None:
        assert kinds(campus("offload").less(("partition",))) == {"device-only"}

    def test_an_ablation_plays_every_variation_on_the_same_episodes(self) -> None:
        setup = open_setup("garments", TraceBank(builtin_traces("test").traces[:2]), "test", {"frames": 20}, "shipped")
        comparison = compare_techniques(setup, TECHNIQUES, Entrants(("expected-utility",)), ["built-in"], 2)
        assert list(comparison.runs) == [variation.name for variation in variations(TECHNIQUES)]
        assert len(comparison.runs) == 2 + 2 * len(TECHNIQUES)
        report = report_of(comparison, "expected-utility")
        assert report["less_all"][ALL]["utility"]["mean"] == 0.0
        assert report["less_all"][NONE]["utility"]["mean"] < 0.0
        assert table_of(report).row_count == len(comparison.runs)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--live"], "got --ablate with --live; expected one of them"),
        (
            ["--controllers", "greedy,edgent"],
            "got --ablate with the controllers greedy,edgent; expected one controller",
        ),
    ],
)
def test_an_ablation_takes_one_controller_and_the_twin(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main(["evaluate", "--ablate", "--workload", "garments", *options]) == 2
    assert told in capsys.readouterr().err
