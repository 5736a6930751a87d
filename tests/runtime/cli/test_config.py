"""``mecpilot config``, ``--config``, and what a device says about its configuration before it begins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.live import ROOT, WORKLOAD, run_device_here, wait_for_file
from support.waiting import PATIENCE_S

import mecpilot
from runtime.config.load import load_config
from runtime.config.tree import DEFAULTS

NOBODY = "tcp://127.0.0.1:9"


def test_show_prints_a_file_that_check_accepts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mecpilot.toml"
    assert mecpilot.main(["config", "show"]) == 0
    file.write_text(capsys.readouterr().out)
    assert mecpilot.main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file} is valid; files that it names were not opened\n"
    assert load_config(file) == DEFAULTS


def test_show_prints_the_values_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mecpilot.toml"
    file.write_text("[device]\ndeadline_ms = 250\n")
    assert mecpilot.main(["config", "show", "--config", str(file)]) == 0
    assert "\ndeadline_ms = 250.0\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["config", "check"], ["config", "show", "--config"], ["mec", "--config"]])
def test_a_wrong_file_is_one_line_and_exit_code_2(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mecpilot.toml"
    file.write_text("[mec]\nqueue_limits = 3\n")
    assert mecpilot.main([*command, str(file)]) == 2
    streams = capsys.readouterr()
    expected = "unknown key 'queue_limits' in [mec]; did you mean 'queue_limit'?"
    assert (streams.out, streams.err) == ("", f"mecpilot: config file {file}: {expected}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[controller]\nname = "gredy"', "unknown controller 'gredy'; expected one of: ppo"),
        ('[workload]\nname = "campsu"', "unknown workload 'campsu' (did you mean 'campus'?)"),
    ],
)
def test_check_knows_the_names(text: str, expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mecpilot.toml"
    file.write_text(text)
    assert mecpilot.main(["config", "check", str(file)]) == 2
    assert f"config file {file}: {expected}" in capsys.readouterr().err
    file.write_text('[workload]\nname = "mine:Mine"')
    assert mecpilot.main(["config", "check", str(file)]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["device", "--fps", "banana"], "--fps 'banana'; expected a number from 0 to 1000"),
        (["device", "--frames", "1.5"], "--frames '1.5'; expected a whole number from 1 to 2147483647"),
        (["device", "--slowdown", "inf"], "--slowdown inf; expected a number from 1 to 10000"),
        (["evaluate", "--seeds", "x"], "--seeds x; expected a whole number of 1 or more; see"),
        (["train", "--out", "r", "--threads", "5000"], "--threads 5000; expected a whole number from 1 to 1024; see"),
    ],
)
def test_what_is_no_such_number_is_refused_in_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"mecpilot: {expected}")


def test_help_shows_whole_defaults_and_no_type_of_a_switch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert mecpilot.main(["device", "--help"]) == 0
    shown = capsys.readouterr().out
    assert DEFAULTS.device.mec in shown
    assert "bool" not in shown
    assert "…" not in shown


def test_a_device_takes_its_file_and_flags_win(tmp_path: Path) -> None:
    file, log = tmp_path / "mecpilot.toml", tmp_path / "log"
    file.write_text(
        f'[source]\nfps = 50\nframes = 1000\n[device]\ndeadline_ms = 5000\n[outputs]\njson = "-"\n'
        f'[controller]\nname = "device-only"\n[objective]\nenergy_weight_per_j = 0\n[workload]\nname = "{WORKLOAD}"\n'
    )
    done = run_device_here(NOBODY, log, config=file, frames=5)
    assert (done.code, len(done.outcomes)) == (0, 5)
    assert {outcome["deadline_ms"] for outcome in done.outcomes} == {5000.0}
    assert json.loads(done.out)["controller"] == "device-only"
    for outcome in done.only("ok").outcomes:
        assert outcome["energy_j"] > 0
        assert outcome["utility"] == outcome["score"]  # energy has no weight


def test_a_mec_takes_its_file_and_flags_win(tmp_path: Path) -> None:
    file, ready = tmp_path / "mecpilot.toml", tmp_path / "ready"
    file.write_text(
        f'[workload]\nname = "{WORKLOAD}"\n[mec]\nbind = "tcp://127.0.0.1:*"\nready_file = "{ready}"\nslowdown = 2\n'
    )
    command = [sys.executable, "-m", "mecpilot", "mec", "--config", str(file), "--slowdown", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            wait_for_file(process, ready)
        finally:
            process.terminate()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert f"workload {WORKLOAD}, slowdown 3" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["device", "--uplink", ""],
        ["device", "--source="],
        ["device", "--source", ""],
        ["evaluate", "--traces", ""],
        ["mec", "--config", ""],
    ],
    ids=" ".join,
)
def test_an_empty_value_is_refused_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert mecpilot.main(arguments) == 2
    option = arguments[1].removesuffix("=")
    assert capsys.readouterr().err == f'mecpilot: got {option} ""; expected a value, or leave it out\n'


@pytest.mark.parametrize(("deadline_ms", "warned"), [(20, True), (5000, False)])
def test_a_device_that_cannot_be_in_time_alone_says_so_first(deadline_ms: int, warned: bool, tmp_path: Path) -> None:
    options = {"controller": "device-only", "profile": "shipped", "slowdown": 1000, "frames": 2, "fps": 5}
    done = run_device_here(NOBODY, tmp_path / "log", deadline_ms=deadline_ms, **options)
    first = done.err.splitlines()[0] if done.err else ""
    expected = f"warning: no local decision can meet the deadline of {deadline_ms} ms; the fastest, "
    assert (expected in first) == warned
    assert not warned or " ms; only the MEC can be in time" in first
