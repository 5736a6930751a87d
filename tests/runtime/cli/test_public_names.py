"""``import mecpilot``: its names, its version, and what it loads."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mecpilot
from controller.errors import UsageError
from runtime.version import VERSION

ROOT = Path(mecpilot.__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PACKAGES = ("controller", "runtime", "envs", "agents")


def in_fresh_python(statement: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, ''); {statement}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=ENVIRONMENT, check=False)


def test_every_public_name_is_there_and_documented() -> None:
    assert set(mecpilot.__all__) <= set(dir(mecpilot))
    for name in mecpilot.__all__:
        value = getattr(mecpilot, name)
        assert name == "__version__" or inspect.getdoc(value), f"{name} has no docstring"


@pytest.mark.parametrize("name", ["compare", "make_env"])
def test_without_the_training_extra_one_line_says_how_to_install_it(name: str) -> None:
    done = in_fresh_python(f"sys.modules['gymnasium'] = None; import mecpilot; mecpilot.{name}")
    assert done.returncode == 1
    expected = (
        f"UsageError: mecpilot.{name} needs the package gymnasium; run: pip install 'PATH_OF_THE_CHECKOUT[train]'"
    )
    assert done.stderr.splitlines()[-1].endswith(expected)


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    tree = ast.parse((ROOT / "mecpilot.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {a.asname or a.name for node in block.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert seen - {"Any", "console", "main"} == set(mecpilot.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mecpilot' has no attribute 'Devise'"):
        mecpilot.Devise  # noqa: B018


def test_the_import_and_the_twin_load_no_torch() -> None:
    use = "mecpilot.make_controller('greedy', 'campus'); mecpilot.make_env('campus').reset(seed=0)"
    done = in_fresh_python(f"import mecpilot; {use}; print('torch' in sys.modules, 'stable_baselines3' in sys.modules)")
    assert (done.stdout, done.returncode) == ("False False\n", 0), done.stderr


def test_the_import_registers_the_environments() -> None:
    done = in_fresh_python("import mecpilot, gymnasium; print(gymnasium.make('mecpilot/Campus-v0').action_space)")
    assert done.stdout.startswith("Discrete("), done.stderr


def test_a_folder_of_the_user_that_hides_a_package_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").touch()
    done = in_fresh_python("import mecpilot", tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: mecpilot needs its own package 'envs'")
    assert last.endswith(f"Python finds {tmp_path / 'envs'}; rename that folder, or start Python in another one")
    command = [sys.executable, "-m", "mecpilot", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)


def test_the_version_is_written_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "runtime.version.VERSION"}
    assert "version" not in project["project"]
    assert mecpilot.__version__ == VERSION


def test_every_package_ships_its_types() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        assert "py.typed" in data[package]


def test_a_controller_is_made_by_name() -> None:
    policy, manifest = mecpilot.load_policy(str(ROOT / "runtime/shipped/policies/campus.safetensors"))
    assert manifest.workload == "campus"
    for controller in (
        mecpilot.make_controller("ppo", bundle="campus", profile="shipped"),
        mecpilot.make_controller("ppo", bundle=mecpilot.open_bundle("campus"), policy=policy),
        mecpilot.make_controller("greedy", "campus", tuning={"margin": 0.5}),
    ):
        assert isinstance(controller.name, str)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("magic", {}, "unknown controller 'magic'"),
        ("greedy", {"tuning": {"hope": 1}}, "tuning of greedy: got unknown key 'hope'"),
        ("greedy", {"policy": "x"}, "got a policy for controller 'greedy'"),
        ("ppo", {"bundle": "garments", "policy": ROOT / "runtime/shipped/policies/campus.safetensors"}, "trained for"),
        ("ppo", {"bundle": "shoes"}, "unknown bundle 'shoes'"),
    ],
)
def test_a_controller_that_cannot_be_made_says_why(name: str, options: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        mecpilot.make_controller(name, **options)  # type: ignore[arg-type]
