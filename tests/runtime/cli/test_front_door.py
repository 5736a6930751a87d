"""The front door: lazy imports, one-line errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mecpilot
from runtime.cli.main import COMMANDS


def modules_after(statement: str) -> set[str]:
    """Top-level modules loaded by a fresh interpreter after one statement."""
    code = f"import sys\n{statement}\nprint(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_the_decision_core_loads_numpy_and_nothing_heavy() -> None:
    folder = Path(mecpilot.__file__).parent / "controller"
    names = [".".join(path.relative_to(folder.parent).with_suffix("").parts) for path in folder.rglob("*.py")]
    loaded = modules_after("import " + ", ".join(sorted(names)))
    assert "numpy" in loaded
    assert not loaded & {"torch", "zmq", "gymnasium", "stable_baselines3", "scipy", "cv2", "runtime"}


@pytest.mark.parametrize(
    "module",
    [
        "runtime.cli.mec",
        "runtime.cli.device",
        "runtime.cli.profile",
        "runtime.cli.models",
        "runtime.sources.footage_source",
        "runtime.observe.exit_sheet",
    ],
)
def test_the_runtime_never_loads_the_training_stack(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert not loaded & {"stable_baselines3", "gymnasium", "tensorboard", "matplotlib", "agents", "envs"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fly"], "unknown command 'fly'"),
        (["device", "--wings", "2"], "No such option: --wings"),
        (["models", "show", "zebras"], "unknown bundle 'zebras'"),
        (["device", "--workload", "zebras"], "unknown workload 'zebras'"),
        (["device", "--workload", "garments", "--controller", "magic"], "unknown controller 'magic'"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert expected in streams.err
    assert streams.err.count("\n") == 1


def test_help_and_version_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert mecpilot.main(["--help"]) == 0
    assert mecpilot.main(["--version"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
