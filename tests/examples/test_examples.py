"""Every example runs, small, and says in two lines what it shows and how to run it."""

from __future__ import annotations

import ast
import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import mecpilot

FOLDER = Path(mecpilot.__file__).parent / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def example(name: str) -> ModuleType:
    """The module of an example, without running what it does as a program."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def outcome_lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What ``mecpilot device --outcomes`` writes."""
    path = tmp_path_factory.mktemp("outcomes") / "outcomes.jsonl"
    options = ["--mec", "tcp://127.0.0.1:9", "--controller", "device-only", "--fps", "0", "--deadline-ms", "1000"]
    arguments = ["device", "--workload", "garments", "--frames", "6", "--quiet", "--outcomes", str(path), *options]
    assert mecpilot.main(arguments) == 0
    return path.read_text().splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_begins_with_what_it_shows_and_how_to_run_it(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    shows, how = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    assert shows.endswith(".")
    assert how.startswith("Run: ")
    assert f"{name}.py" in how
    assert len(text.splitlines()) < 40


def test_answer_frames() -> None:
    module, outcomes = example("answer_frames"), list[mecpilot.Outcome]()
    module.answer(module.scene(6), outcomes.append, frames=6)
    assert sorted(outcome.frame for outcome in outcomes) == list(range(6))
    module.show(outcomes[0])


def test_gym_rollout() -> None:
    total, endings = example("gym_rollout").rollout("mecpilot/Garments-v0", scenario={"frames": 20})
    assert isinstance(endings, Counter)
    assert 0 < sum(endings.values()) <= 20
    assert total <= 20


def test_train_sb3(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    utility = example("train_sb3").train("DQN", 150, path, frames=10)
    assert set(utility) == {"DQN", "greedy"}
    options = ["--workload", "campus", "--controllers", "random", "--seeds", "1", "--frames", "5"]
    assert mecpilot.main(["evaluate", "--sb3", str(path), *options, "--json", str(tmp_path / "report.json")]) == 0


def test_own_controller() -> None:
    module = example("own_controller")
    utility = module.compare("garments", frames=10)
    assert set(utility) == {"fastest-link", "greedy", "device-only"}
    with mecpilot.Device("garments", module.FastestLink, mec="tcp://127.0.0.1:9", fps=0, deadline_s=1.0) as device:
        assert len(list(device.run(frames=4))) == 4


def test_outcomes_to_pandas(outcome_lines: list[str]) -> None:
    module = example("outcomes_to_pandas")
    rows = [module.row(line) for line in outcome_lines]
    assert [row["frame"] for row in rows] == list(range(6))
    assert all(np.isfinite([row["latency_ms"], row["head_ms"], row["resolution_px"]]).all() for row in rows)
    pytest.importorskip("pandas")
    assert len(module.table(outcome_lines)) == 6


def test_mqtt_bridge(outcome_lines: list[str]) -> None:
    """The bridge's own part; what a broker does with it is paho's."""
    published: list[tuple[Any, ...]] = []

    class Client:
        def publish(self, *message: Any) -> None:
            published.append(message)

    assert example("mqtt_bridge").bridge(outcome_lines, Client()) == 6
    assert {topic.split("/")[0] for topic, _ in published} == {"mecpilot"}
    assert [payload for _, payload in published] == outcome_lines
