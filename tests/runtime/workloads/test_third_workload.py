"""A workload that is not part of mecpilot goes the whole way: trained, profiled, served, answered, compared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.once import once
from support.shapes import Shapes, Wardrobe

import mecpilot
import runtime.cli.profile
from controller.errors import UsageError
from runtime.bundles.bundle import open_bundle, open_pair
from runtime.testbed.processes import running_mec
from runtime.workloads.registry import get_workload, register_workload

SHAPES = "support.shapes:Shapes"
FRAMES = 30


@pytest.fixture
def in_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current directory is a user's: it holds the module that SHAPES names."""
    folder = tmp_path / "users"
    (folder / "support").mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "support" / "shapes.py", folder / "support")
    monkeypatch.chdir(folder)


@pytest.fixture
def trained(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, in_users_folder: None) -> Path:
    """A bundle, with a profile beside it."""
    monkeypatch.setattr(runtime.cli.profile, "QUICK_BUDGET_S", 0.5)

    def make(folder: Path) -> None:
        assert mecpilot.main(["models", "train", "--workload", SHAPES, "--out", str(folder)]) == 0
        profile = ["profile", "--workload", SHAPES, "--bundle", str(folder), "--quick"]
        assert mecpilot.main([*profile, "--out", str(folder / "profile.json")]) == 0

    return once(tmp_path_factory, "shapes", make)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_device_and_mec_answer_a_workload_that_only_a_reference_names(trained: Path, tmp_path: Path) -> None:
    opened = ("--bundle", str(trained), "--profile", str(trained / "profile.json"))
    with running_mec(SHAPES, options=opened) as mec:
        decision = json.dumps({"partition_point": 1, "exit_branch": 1})
        command = ["device", "--workload", SHAPES, *opened, "--mec", mec.endpoint, "--frames", str(FRAMES)]
        command += ["--decision", decision, "--require-mec", "--fps", "20", "--deadline-ms", "5000"]
        command += ["--outcomes", str(tmp_path / "log"), "--video", str(tmp_path / "seen.png")]
        subprocess.run([sys.executable, "-m", "mecpilot", *command], check=True, timeout=200)
    outcomes = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(outcomes) == FRAMES
    sent = [outcome for outcome in outcomes if outcome["status"] == "ok"]
    assert len(sent) >= 0.3 * FRAMES  # the first frames may be answered before the MEC is met
    assert {outcome["decision"]["partition_point"] for outcome in sent} == {1}
    right = [outcome["prediction"] == Shapes().sample(outcome["source_index"])[1] for outcome in sent]
    assert sum(right) >= 0.9 * len(right)
    assert (tmp_path / "seen.png").stat().st_size > 0


@pytest.mark.timeout(400)
def test_a_registered_workload_names_its_own_bundle_for_the_twin(trained: Path, tmp_path: Path) -> None:
    class WithBundle(Shapes):
        name = "shapes-with-bundle"
        bundle = str(trained)

    register_workload("shapes-with-bundle", WithBundle)
    assert open_bundle("shapes-with-bundle").directory == trained
    command = ["evaluate", "--workload", "shapes-with-bundle", "--profile", str(trained / "profile.json")]
    command += ["--controllers", "greedy,random", "--seeds", "1", "--frames", "20"]
    assert mecpilot.main([*command, "--json", str(tmp_path / "found.json")]) == 0
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert found["workload"] == "shapes"
    assert {"greedy", "random"} <= set(found["controllers"])


def test_without_a_bundle_one_line_says_where_it_comes_from(in_users_folder: None) -> None:
    with pytest.raises(
        UsageError, match=r"mecpilot ships no bundle for the workload .shapes.; train one with .mecpilot models train"
    ):
        open_pair(None, SHAPES)


def test_a_bundle_and_a_workload_may_each_be_an_object_or_left_out() -> None:
    opened, work = open_pair("garments")
    assert (opened.workload, work.name) == ("garments", "garments")
    assert opened.work is work
    wardrobe = Wardrobe()
    again, same = open_pair(open_bundle("garments"), wardrobe)
    assert again.work is same is wardrobe
    assert open_pair(None, "campus")[0].workload == open_pair("campus", "campus")[0].workload == "campus"
    assert open_pair()[0].workload == "campus"


def test_the_workload_of_the_documentation_is_short_and_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "extending.md").read_text()
    source = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "class Shapes" in block)
    assert len(source.splitlines()) < 40
    (tmp_path / "shapes_of_the_docs.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    work = get_workload("shapes_of_the_docs:Shapes")
    task, model = work.training_task(0), work.build("tiny")
    groups = next(iter(task.steps(0)))
    loss, _ = task.loss(model.all_exits(groups[0].inputs), groups[0].targets)
    assert float(loss.detach()) > 0
    assert work.draw(*work.sample(1)).shape == (288, 288, 3)


def test_frames_of_ones_own_need_no_training_code_for_a_shipped_bundle() -> None:
    opened, work = open_pair(Path("garments"), "support.shapes:Wardrobe")
    assert (opened.workload, work.name) == ("garments", "wardrobe")
    model = opened.model("mobilenet")
    assert work.answers(model.whole(work.to_input(work.sample(3)[0][None]), 0).numpy(), 28)[0] in range(10)
    with pytest.raises(UsageError, match="campus is for workload 'campus'; expected 'wardrobe'"):
        open_pair(Path("campus"), "support.shapes:Wardrobe")
