"""From start to end of a MEC: ready at once, ended at once, and nobody waits for the dead or outlives the parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live import ROOT, WORKLOAD, is_running, wait_for_library
from support.waiting import PATIENCE_S, wait_until

from controller.errors import FailureError
from runtime.cli.child import say_ready, withdraw_ready
from runtime.testbed import processes
from runtime.testbed.processes import running_mec

MEC = [sys.executable, "-m", "mecpilot", "mec", "--workload", WORKLOAD, "--bind", "tcp://127.0.0.1:*"]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test started; none is left behind."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after_s", [0.0, 0.8])
def test_a_signal_while_a_mec_starts_ends_it_at_once_and_no_ready_file_is_written(
    number: int, after_s: float, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    ready = tmp_path / "ready"
    process = subprocess.Popen([*MEC, "--ready-file", str(ready)], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    started.append(process)
    wait_for_library(process, "_multiarray_umath")
    time.sleep(after_s)  # somewhere in the imports; where, differs from machine to machine
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, 128 + number)
    assert "Traceback" not in err
    assert not ready.exists()


def test_a_ready_file_is_there_while_a_mec_is_ready_and_an_old_one_is_replaced(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    ready = tmp_path / "ready"
    ready.write_text("tcp://127.0.0.1:1\n")
    process = subprocess.Popen([*MEC, "--ready-file", str(ready)], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    started.append(process)
    wait_until(lambda: ready.exists() and ready.read_text() != "tcp://127.0.0.1:1\n", "the MEC's ready file")
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+\n", ready.read_text())
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, ready.exists()) == (0, False)
    assert "served 0" in err


def test_a_ready_file_of_somebody_else_and_a_device_are_left_alone(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    say_ready(ready, "theirs")
    withdraw_ready(ready, "ours")
    assert ready.read_text() == "theirs\n"
    withdraw_ready(Path(os.devnull))
    assert Path(os.devnull).exists()
    withdraw_ready(tmp_path / "never written")
    withdraw_ready(tmp_path)
    assert tmp_path.is_dir()


def test_a_mec_that_cannot_start_is_reported_with_its_exit_code_and_last_words() -> None:
    expected = r"ended with exit code 2 before it was ready.*expected tcp://HOST:PORT"
    with pytest.raises(FailureError, match=expected), running_mec(WORKLOAD, bind="http://here"):
        pytest.fail("it is not ready")


def child(code: str) -> tuple[str, ...]:
    return ("-c", textwrap.dedent(code))


def test_a_child_that_is_slow_is_waited_for_and_the_user_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "_LOG_AFTER_S", 0.2)
    monkeypatch.setattr(processes, "_LOG_EVERY_S", 0.2)
    monkeypatch.setattr(processes, "_LOOK_EVERY_S", 0.1)
    code = """
        import sys, time
        print("still loading", file=sys.stderr, flush=True)
        end_s = time.monotonic() + 1.0
        while time.monotonic() < end_s:
            pass
        open(sys.argv[2], "w").write("here")
        sys.stdin.read()
    """
    with processes._child("the slow one", child(code), "--ready-file") as (_, line):
        assert line == "here"
    err = capfd.readouterr().err
    assert "waiting for the slow one to be ready" in err
    assert "still loading" in err


def test_a_child_that_died_is_not_waited_for() -> None:
    code = """
        import os, sys
        print("no such thing", file=sys.stderr)
        os._exit(7)
    """
    dead = processes._child("the dead one", child(code), "--ready-file")
    with pytest.raises(FailureError, match=r"the dead one ended with exit code 7 .* no such thing"), dead:
        pytest.fail("it is not ready")


def test_a_child_that_does_nothing_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STALL_S", 0.5)
    monkeypatch.setattr(processes, "_LOOK_EVERY_S", 0.1)
    lazy = processes._child("the lazy one", child("import time; time.sleep(60)"), "--ready-file")
    with pytest.raises(FailureError, match="has done nothing for"), lazy:
        pytest.fail("it is not ready")


PARENT = f"""
import time
from runtime.testbed.processes import running_mec
with running_mec({WORKLOAD!r}) as mec:
    print(mec.process.pid, flush=True)
    time.sleep(60)
"""


def test_a_mec_ends_with_a_parent_that_was_killed(started: list[subprocess.Popen[str]]) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    started.append(parent)
    assert parent.stdout is not None
    mec = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_running(mec), "the end of the MEC")
