"""Agents of stable-baselines3 as controllers of a comparison."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from support.synthetic import make_state

import mecpilot
from agents.compare.evaluation import Entrants, compare_live
from agents.compare.own import with_agents
from agents.compare.rollout import spread_scenarios
from agents.compare.sb3 import Sb3Controller, load_agent
from controller.errors import UsageError
from controller.features.fast import Features
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import ScenarioRange
from envs.setup import open_setup
from envs.wrappers import FactoredActions
from runtime.device.controllers import open_costs

FRAMES = 10
SCENARIO = {"frames": FRAMES}


def agent_of(algorithm: type[BaseAlgorithm], bundle: str = "garments", seed: int = 0) -> BaseAlgorithm:
    """An untrained agent: it decides as deterministically as a trained one."""
    return algorithm("MultiInputPolicy", mecpilot.make_env(bundle, scenario=SCENARIO), seed=seed, device="cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an agent of each kind, and files that are not agents of garments."""
    folder = tmp_path_factory.mktemp("agents")
    for algorithm in (PPO, A2C, DQN):
        agent_of(algorithm).save(folder / algorithm.__name__)
    agent_of(A2C, "campus").save(folder / "campus")
    A2C("MlpPolicy", "CartPole-v1", device="cpu").save(folder / "cartpole")
    (folder / "garbage.zip").write_bytes(b"no zip at all")
    (folder / "pickle.zip").write_bytes(pickle.dumps({"policy": 1}))
    with zipfile.ZipFile(folder / "empty.zip", "w") as archive:
        archive.writestr("readme", "nothing")
    with zipfile.ZipFile(folder / "list.zip", "w") as archive:
        archive.writestr("data", "[1, 2]")
    with zipfile.ZipFile(folder / "strange.zip", "w") as archive:
        archive.writestr("data", "{}")
    with zipfile.ZipFile(folder / "hollow.zip", "w") as archive:
        archive.writestr("data", '{"clip_range": 1}')
    return folder


def evaluate(*arguments: object) -> int:
    options = ("--workload", "garments", "--seeds", 1, "--frames", FRAMES, "--profile", "shipped")
    return mecpilot.main(["evaluate", *map(str, (*options, *arguments))])


def test_an_agent_is_one_more_controller_of_the_same_comparison(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [option for name in ("PPO", "DQN") for option in ("--sb3", saved / f"{name}.zip")]
    assert evaluate("--controllers", "greedy,ppo", *files, "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["controllers"]) == ["greedy", "ppo", "sb3-PPO", "sb3-DQN"]
    assert set(report["ppo_minus"]) == {"greedy", "sb3-PPO", "sb3-DQN"}
    assert any(note.startswith("sb3-DQN: DQN from") for note in report["provenance"]["notes"])


def test_tables_and_plots_show_an_agent_but_not_as_a_classical_controller(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--controllers", "random,ppo", "--sb3", saved / "A2C.zip", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "sb3-A2C" in shown
    assert "ppo minus random (best classical)" in shown
    assert (tmp_path / "out" / "timeline_typical_sb3-A2C.png").is_file()
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_the_algorithm_is_detected_or_given(saved: Path, algorithm: type[BaseAlgorithm]) -> None:
    path = saved / f"{algorithm.__name__}.zip"
    for name in (None, algorithm.__name__, f"stable_baselines3:{algorithm.__name__}"):
        assert type(load_agent(path, name)) is algorithm


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        ("garbage.zip", [], "File is not a zip file; expected a file that `agent.save(...)` wrote"),
        ("pickle.zip", [], "is not usable: File is not a zip file"),
        ("empty.zip", [], "There is no item named 'data' in the archive"),
        ("list.zip", [], "its data is not a JSON object"),
        ("strange.zip", [], "its algorithm is unknown; give --algorithm PPO, DQN, A2C or package.module:Class"),
        ("hollow.zip", [], "it cannot be loaded as PPO"),
        ("nowhere.zip", [], "No such file or directory"),
        ("campus.zip", [], "train it on an environment of the same bundle and profile"),
        ("cartpole.zip", [], "got observations Box (4,); expected"),
        ("PPO.zip", ["--algorithm", "DQN"], "it cannot be loaded as DQN"),
        ("PPO.zip", ["--algorithm", "SARSA"], "unknown algorithm 'SARSA'; expected one of: PPO, DQN, A2C"),
        (
            "PPO.zip",
            ["--algorithm", "nowhere:X"],
            "No module named 'nowhere'; install what has it: pip install nowhere",
        ),
        ("PPO.zip", ["--algorithm", "json:loads"], "is not an algorithm of stable-baselines3"),
        ("PPO.zip", ["--sb3", "PPO.zip"], "got two agents called sb3-PPO"),
    ],
)
def test_what_is_no_agent_for_this_bundle_is_one_line(
    saved: Path,
    file: str,
    options: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(saved)
    assert evaluate("--controllers", "greedy", "--sb3", file, *options) == 2
    streams = capsys.readouterr()
    assert (streams.out, streams.err.count("\n")) == ("", 1)
    assert expected in streams.err


def test_an_algorithm_without_an_agent_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--algorithm", "PPO") == 2
    assert "--algorithm without --sb3" in capsys.readouterr().err


def test_a_batch_is_decided_like_its_rows_one_by_one(saved: Path) -> None:
    costs = open_costs("garments", "shipped")
    for name in ("PPO", "DQN"):
        agent = load_agent(saved / f"{name}.zip")
        state = make_state(batch=6)
        batched = Sb3Controller(agent, costs)
        batched.reset(np.ones(6, bool))
        context, candidates = Features(costs, ScenarioRange().utility).of(state)
        alone = [
            int(agent.predict({"context": c, "candidates": f.ravel()}, deterministic=True)[0])
            for c, f in zip(context, candidates, strict=True)
        ]
        assert batched.decide(state).tolist() == alone


def test_an_agent_of_factored_actions_decides_legal_rows() -> None:
    costs = open_costs("garments", "shipped")
    env = FactoredActions(mecpilot.make_env("garments", scenario=SCENARIO, profile="shipped"))
    controller = Sb3Controller(A2C("MultiInputPolicy", env, seed=0, device="cpu"), costs)
    controller.reset(np.ones(5, bool))
    rows = controller.decide(make_state(batch=5))
    assert rows.shape == (5,)
    assert ((rows >= 0) & (rows < len(costs))).all()


@pytest.mark.realtime
def test_an_agent_takes_part_with_real_processes(saved: Path) -> None:
    quick = ScenarioRange(
        fps=(30.0, 30.0),
        deadline_s=(0.1, 0.2),
        device_slowdown=(5.0, 10.0),
        mec_slowdown=(2.0, 2.0),
        mec_load_frac=(0.0, 0.0),
        frames=FRAMES,
    )
    bank = TraceBank([Trace("flat/one", np.zeros(1), np.array([20e6]), 1.0)])
    setup = open_setup("garments", bank, "test", quick, Path("shipped"))
    entrants = with_agents(Entrants(("edgent",)), [saved / "A2C.zip"], None)
    comparison, episodes = compare_live(setup, entrants, ["flat"], spread_scenarios(setup, 1))
    assert list(comparison.runs) == ["edgent", "sb3-A2C"]
    assert [outcome.frame for outcome in episodes.outcomes["sb3-A2C"][0][0]] == list(range(FRAMES))


def test_controllers_of_ones_own_are_checked() -> None:
    class Wrong:
        def decide(self, state: mecpilot.SystemState) -> np.ndarray:
            return np.full(state.batch, 10_000)

    with pytest.raises(ValueError, match=r"expected .* row in"):
        mecpilot.compare("garments", [], {"wrong": Wrong()}, scenario=SCENARIO)
    with pytest.raises(UsageError, match="unknown controller 'magic'"):
        mecpilot.compare("garments", ["magic"], scenario=SCENARIO)
