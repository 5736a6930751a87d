"""Classical controllers are tuned on training traces; what was found is stored, checked and used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import mecpilot
from agents.compare.evaluation import Entrants
from agents.compare.rollout import play, scenarios_on
from agents.compare.tuning import SEED, TUNABLE, tries, tune_controllers
from controller.controllers.registry import TUNABLE_KEYS
from controller.controllers.simple import FixedRow
from controller.errors import UsageError
from controller.metrics import per_episode
from controller.predict.transfer import TransferPredictor, default_predictor
from controller.predict.uplink import TraceBank
from controller.scenario import ScenarioRange
from envs.setup import Setup, open_setup
from runtime.files.tuning_file import load_tunings, save_tunings, tuning_of
from runtime.testbed.markov_traces import builtin_traces

NAMES = ("static-best", "greedy-oracle", "edgent-dynamic")


@pytest.fixture(scope="module")
def setup() -> Setup:
    few = TraceBank(builtin_traces("train").traces[::24])
    return open_setup("garments", few, "validation", ScenarioRange(frames=10))


def tune_quickly(out: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, dict[str, Any]]:
    """What ``mecpilot tune`` prints and what it writes."""
    options = ["--controllers", "static-best,greedy-oracle", "--episodes", "4", "--frames", "10", "--out", str(out)]
    assert mecpilot.main(["tune", "--workload", "garments", *options, *more]) == 0
    return capsys.readouterr().out, json.loads(out.read_text())


@pytest.fixture
def tuning_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A small one, as the command writes it."""
    tune_quickly(tmp_path / "t.json", capsys)
    return tmp_path / "t.json"


def test_tuning_never_makes_a_controller_worse_on_what_it_was_tuned_on(setup: Setup, tmp_path: Path) -> None:
    told: list[int] = []
    found = tune_controllers(setup, NAMES, ["few"], 4, told.append)
    assert found.default_utility.keys() == found.utility.keys() == found.controllers.keys() == set(NAMES)
    assert all(found.utility[name] >= found.default_utility[name] for name in ("static-best", "greedy-oracle"))
    assert all(set(tuning) <= set(TUNABLE_KEYS[name]) for name, tuning in found.controllers.items())
    assert all(done == 1 for done in told)
    assert sum(told) <= tries(setup, NAMES)
    save_tunings(tmp_path / "t.json", found)
    assert load_tunings("garments", tmp_path / "t.json") == found.controllers


def test_no_other_fixed_decision_does_better_than_the_tuned_one(setup: Setup) -> None:
    found = tune_controllers(setup, ["static-best"], ["few"], 4)
    scenarios = scenarios_on(setup, 4, SEED)
    every = [play(setup, FixedRow("any", row), scenarios, reward="expected") for row in range(len(setup.costs))]
    best = max(float(per_episode(played.frames)["utility"].mean()) for played in every)
    assert found.utility["static-best"] == pytest.approx(best)


def test_tuning_fugu_mpc_learns_its_transfer_times_first(setup: Setup, tmp_path: Path) -> None:
    found = tune_controllers(setup, ["fugu-mpc"], ["few"], 4)
    learned = TransferPredictor.from_tuning(found.controllers["fugu-mpc"]["predictor"])
    assert learned.as_tuning() != default_predictor().as_tuning()
    save_tunings(tmp_path / "t.json", found)
    assert Entrants(("fugu-mpc",), (), load_tunings("garments", tmp_path / "t.json")).make("fugu-mpc", setup, batch=2)


def test_the_table_and_the_file_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, stored = tune_quickly(tmp_path / "t.json", capsys)
    for name in ("static-best", "greedy-oracle"):
        assert f"{stored['utility'][name]:.4f}" in shown
        assert f"{stored['default_utility'][name]:.4f}" in shown
    as_json, again = tune_quickly(tmp_path / "t.json", capsys, "--json", "-")
    assert json.loads(as_json) == again == stored


def test_a_device_runs_with_a_tuned_decision(tuning_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--controller", "static-best", "--tuning", str(tuning_file), "--frames", "3", "--fps", "0"]
    options += ["--workload", "garments", "--mec", "tcp://127.0.0.1:9", "--json", "-"]
    assert mecpilot.main(["device", *options]) == 0
    assert json.loads(capsys.readouterr().out)["controller"] == "static-best"


def test_a_decision_that_is_no_more_spoils_no_controller(setup: Setup, tuning_file: Path) -> None:
    tunings = load_tunings("garments", tuning_file)
    tunings["static-best"] = {"decision": asdict(replace(setup.costs.space.decisions[0], model="gone"))}
    assert tuning_of("static-best", tunings, setup.costs) == {}
    assert tuning_of("greedy-oracle", tunings, setup.costs) == tunings["greedy-oracle"]
    for name in ("static-best", "greedy-oracle", "edgent"):
        assert Entrants((name,), (), tunings).make(name, setup, batch=1)


def test_the_shipped_tuning_is_legal(setup: Setup) -> None:
    tunings = load_tunings("garments")
    assert set(tunings) == set(TUNABLE)
    for name in tunings:
        assert Entrants((name,), (), tunings).make(name, setup, batch=2)


def _with(path: tuple[str, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def change(stored: dict[str, Any]) -> None:
        inner = stored
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_with(("controllers", "magic"), {}), "unknown controller 'magic'"),
        (_with(("controllers", "linucb"), {"forced": 0.5}), "got forced 0.5 for linucb, which this version does not"),
        (
            _with(("controllers", "edgent"), {"marign": 1.0}),
            "unknown tunable of edgent 'marign'; expected one of: kind",
        ),
        (_with(("controllers", "edgent"), {"margin": "wide"}), "Expected `float`, got `str`"),
        (_with(("controllers", "static-best"), {"decision": {"model": "vgg"}}), "missing required field"),
        (_with(("workload",), "campus"), "is for 'campus'; expected one for 'garments'"),
        (_with(("episodes",), "many"), "Expected `int`, got `str`"),
    ],
)
def test_a_malformed_tuning_file_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], expected: str, tuning_file: Path
) -> None:
    stored = json.loads(tuning_file.read_text())
    change(stored)
    tuning_file.write_text(json.dumps(stored))
    with pytest.raises(UsageError) as caught:
        load_tunings("garments", tuning_file)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tunable_that_is_gone_and_did_nothing_is_passed_over(tuning_file: Path) -> None:
    stored = json.loads(tuning_file.read_text())
    stored["controllers"]["linucb"] = {"alpha": 0.1, "forced": None}
    tuning_file.write_text(json.dumps(stored))
    assert load_tunings("garments", tuning_file)["linucb"] == {"alpha": 0.1}


def test_only_what_has_tunables_can_be_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    assert mecpilot.main(["tune", "--controllers", "edgent,mec-only"]) == 2
    assert "unknown controller with tunables 'mec-only'" in capsys.readouterr().err
