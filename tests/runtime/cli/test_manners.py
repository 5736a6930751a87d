"""Manners at the door: standard streams, signals, options and errors, as a user or a service manager meets them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.live import ROOT, WORKLOAD, device, wait_for_library
from support.waiting import PATIENCE_S

import mecpilot
from controller.errors import UsageError
from controller.records import BreakdownMs, Decision, Outcome, Status
from runtime.cli import main as front
from runtime.cli.console import Log
from runtime.cli.option_checks import check_numbers
from runtime.cli.signals import stop_on_signal
from runtime.files.fetch import cache_dir
from runtime.observe.status_line import StatusLine

NOBODY = "tcp://127.0.0.1:9"
#: A process that is asked to end has ended after this on any machine; what it is in the middle of takes minutes.
ENDED_S = 30.0
SHELL_MECPILOT = f"{sys.executable} -m mecpilot"


def in_shell(command: str) -> subprocess.CompletedProcess[str]:
    """A line of bash; its exit code is that of the first command of a pipe."""
    line = f"{command}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT, check=False
    )


class TestStreams:
    @pytest.mark.parametrize("unbuffered", ["", "PYTHONUNBUFFERED=1 "])
    @pytest.mark.parametrize(
        ("command", "code", "message"),
        [
            ("--help > /dev/full", 1, "mecpilot: cannot write standard output: No space left on device\n"),
            ("--help | head -1", 0, ""),
            ("--help >&-", 0, ""),
            ("nothing 2>&-", 2, ""),
            ("nothing 2> /dev/full", 2, ""),
            ("--version <&- >&- 2>&-", 0, ""),
        ],
    )
    def test_a_stream_that_is_closed_full_or_not_read_ends_in_a_line_or_quietly(
        self, unbuffered: str, command: str, code: int, message: str
    ) -> None:
        done = in_shell(f"{unbuffered}{SHELL_MECPILOT} {command}")
        assert (done.returncode, done.stderr) == (code, message)

    def test_a_log_without_a_stderr_stops_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", buffering=1, closefd=False) as stderr:
            monkeypatch.setattr(sys, "stderr", stderr)
            Log("mecpilot test: ")("nobody reads this")
            monkeypatch.undo()
            os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # for what the stream still holds
        os.close(writing)

    def test_a_log_that_is_not_read_holds_nobody_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
        with os.fdopen(writing, "w") as stderr:
            monkeypatch.setattr(sys, "stderr", stderr)
            Log("mecpilot test: ")("the pipe is full")  # would never return
            monkeypatch.undo()
        os.close(reading)


def attach(terminal: str) -> str:
    """A line of Python that gives a process of a new session its controlling terminal."""
    return f"os.open({terminal!r}, os.O_RDWR)\n"


class TestSignals:
    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mecpilot", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    @pytest.mark.parametrize("delay_s", [0.0, 0.4])
    @pytest.mark.parametrize(
        ("number", "code", "message"),
        [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "mecpilot: interrupted\n"), (signal.SIGHUP, 129, "")],
    )
    def test_a_signal_during_imports_ends_at_once_and_quietly(
        self, number: signal.Signals, code: int, message: str, delay_s: float
    ) -> None:
        with self.start("device", "--mec", NOBODY, "--workload", WORKLOAD) as process:
            wait_for_library(process, "_multiarray_umath")
            time.sleep(delay_s)
            process.send_signal(number)
            began_s = time.monotonic()
            _, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, err) == (code, message)
        assert time.monotonic() - began_s < ENDED_S

    @pytest.mark.slow
    def test_sighup_reopens_the_log_of_a_device(self, tmp_path: Path) -> None:
        log, moved = tmp_path / "log", tmp_path / "log.1"
        began_s = time.time()
        with device(NOBODY, log, frames=100_000, fps=50) as running:
            running.wait_for_outcomes(10)
            log.rename(moved)
            running.process.send_signal(signal.SIGHUP)
            running.wait_for_outcomes(10)
            done = running.stop()
        assert done.code == 0
        outcomes = [json.loads(line) for line in moved.read_text().splitlines()] + done.outcomes
        assert sorted(o["frame"] for o in outcomes) == list(range(len(outcomes)))
        captured = [o["captured_at"] for o in sorted(outcomes, key=lambda o: o["frame"])]
        assert captured == sorted(captured)
        assert began_s < captured[0] < captured[-1] < time.time()

    @pytest.mark.slow
    def test_sigterm_ends_a_device_that_takes_minutes_for_a_frame(self, tmp_path: Path) -> None:
        with device(NOBODY, tmp_path / "log", frames=100_000, fps=20, slowdown=10_000) as running:
            running.wait_for_outcomes(2)  # dropped ones
            began_s = time.monotonic()
            done = running.stop()
        assert time.monotonic() - began_s < ENDED_S
        assert done.code == 0
        done.check_no_frame_lost()

    @pytest.mark.parametrize(
        ("terminal", "has_log", "expected"),
        [
            ("none", False, "reload"),  # a service: nothing else can be meant
            ("none", True, "reload"),
            ("open", False, "end"),
            ("open", True, "reload"),
            ("closed", False, "end"),
            ("closed", True, "end"),
        ],
    )
    def test_sighup_is_a_reload_or_the_end(self, terminal: str, has_log: bool, expected: str) -> None:
        """Each case is a process of its own session, whose terminal is a real one."""
        hang_up = "while not stop.asked(): time.sleep(0.01)" if terminal == "closed" else "signal.raise_signal(1)"
        main, other = pty.openpty()
        script = (
            f"import os, signal, time\n{attach(os.ttyname(other)) if terminal != 'none' else ''}"
            "from runtime.cli.signals import stop_on_signal\n"
            "with stop_on_signal() as stop:\n"
            f"    {'stop.on_reload(lambda: None)' if has_log else ''}\n"
            "    os.write(1, b'.')\n"
            "    os.read(0, 1)\n"
            f"    {hang_up}\n"
            "    os.write(1, b'end' if stop.asked() else b'reload')\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if terminal == "none" else other,
            cwd=ROOT,
            start_new_session=True,
        ) as process:
            os.close(other)
            assert process.stdout is not None
            assert process.stdout.read(1) == b"."
            if terminal == "closed":
                os.close(main)
            out, _ = process.communicate(b"x", timeout=PATIENCE_S)
            if terminal != "closed":
                os.close(main)
        assert out.decode() == expected

    def test_a_signal_that_is_repeated_at_once_is_one_wish(self) -> None:
        """``timeout`` sends two, a terminal that closes too; a service manager may send SIGTERM and SIGHUP."""
        with stop_on_signal() as stop:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.raise_signal(number)
            assert stop.asked()

    def test_a_second_wish_ends_the_process(self) -> None:
        script = (
            "import signal, time\nfrom runtime.cli.signals import SAME_WISH_S, stop_on_signal\n"
            "with stop_on_signal():\n    signal.raise_signal(signal.SIGTERM)\n    time.sleep(SAME_WISH_S)\n"
            "    signal.raise_signal(signal.SIGTERM)\n    time.sleep(20)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
        assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")

    def test_a_lost_end_is_asked_for_again(self) -> None:
        """An exception in a destructor goes nowhere; the process ends all the same, and quietly."""
        script = (
            "import signal, time\nfrom runtime.cli.signals import end_on_signals\nend_on_signals()\n"
            "class Dying:\n    def __del__(self): signal.raise_signal(signal.SIGTERM); time.sleep(0)\n"
            "dying = Dying()\ndel dying\ntime.sleep(20)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
        assert (done.returncode, done.stderr) == (143, "")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--slowdown", "inf"], "--slowdown"),
        (["--slowdown", "nan"], "--slowdown"),
        (["--slowdown", "1e300"], "--slowdown"),
        (["--fps", "1e9"], "--fps"),
        (["--fps", "nan"], "--fps"),
        (["--fps", "1e-30"], "--fps 1e-30; expected 0, or at least 0.001"),
        (["--deadline-ms", "inf"], "--deadline-ms"),
        (["--rtt-ms", "inf"], "--rtt-ms"),
        (["--uplink-start-s", "inf"], "--uplink-start-s inf; expected a number from 0 to 1000000000"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "1" + "0" * 30], "--seed"),
        (["--frames", "1" + "0" * 30], "--frames"),
        (["--start", "99999999"], "--start 99999999; expected at most"),
        (["--data", "/nowhere"], "--data /nowhere is not a directory"),
        (["--data", "/"], "--data / holds no data of garments; expected t10k-images-idx3-ubyte.gz or"),
        (["--json", "/nowhere/x"], "--json /nowhere/x: No such file or directory"),
        (["--json", "/"], "--json /: Is a directory"),
        (["--video", "/nowhere/x.mp4"], "--video /nowhere/x.mp4"),
        (["--outcomes", "/"], "--outcomes /: Is a directory"),
        (["--outcomes", "-", "--json", "-"], "--outcomes and --json both name -"),
        (["--profile", "/dev/zero"], "/dev/zero"),
        (["--policy", "/"], "policy file / is not a file"),
        (["--tuning", "/"], "tuning file /"),
        (["--bundle", "/"], "unknown bundle '/'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_device_cannot_do_is_refused_before_it_begins(
    options: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = [] if "--outcomes" in options else ["--outcomes", str(tmp_path / "log")]
    assert mecpilot.main(["device", "--workload", WORKLOAD, "--frames", "1", *options, *log]) == 2
    streams = capsys.readouterr()
    assert (streams.out, streams.err.count("\n")) == ("", 1)
    assert expected in streams.err
    assert os.listdir(tmp_path) == []  # the log was not touched


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"seed": -1}, "--seed -1"),
        ({"max_samples": 2**40}, "--max-samples"),
        ({"load": float("nan")}, "--load nan"),
        ({"many": [1.0, float("-inf")]}, "--many -inf"),
        ({"rate": 1e30}, "--rate"),
    ],
)
def test_no_option_of_any_command_takes_such_a_number(options: dict[str, Any], refused: str) -> None:
    with pytest.raises(UsageError, match=refused):
        check_numbers(options)


def test_common_numbers_pass() -> None:
    check_numbers({"a": 0, "b": 1e-9, "c": None, "d": "x", "e": True, "f": [1, 2], "g": -0.5})


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), 1, "/x: No such file or directory"),
        (MemoryError(), 1, "more memory"),
        (ImportError("libx.so: failed to map segment from shared object"), 1, "cannot load a library"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), 1, "more memory"),
        (UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range"), 1, "cannot be encoded"),
        (RecursionError("deep"), 1, "nested too deeply"),
        (ModuleNotFoundError("no gymnasium", name="gymnasium"), 1, "run: pip install 'PATH_OF_THE_CHECKOUT[train]'"),
        (ModuleNotFoundError("No module named 'zmq'", name="zmq"), 1, "pip install 'PATH_OF_THE_CHECKOUT'"),
        (ZeroDivisionError("by zero"), 70, "a bug in mecpilot: ZeroDivisionError: by zero at test_manners.py"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("debug", [False, True])
def test_any_error_ends_in_one_line_and_debugging_adds_the_traceback(
    error: Exception,
    code: int,
    expected: str,
    debug: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr(front, "_load", fail)
    monkeypatch.setenv("MECPILOT_DEBUG", "1" if debug else "")
    assert mecpilot.main(["device"]) == code
    err = capsys.readouterr().err
    assert expected in err.splitlines()[-1]
    assert ("Traceback" in err) == debug
    assert debug or err.count("\n") == 1


def test_a_misspelt_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert mecpilot.main(["trian"]) == 2
    assert capsys.readouterr().err == "mecpilot: unknown command 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize("asked", ["-v", "-V", "--version", "version"])
def test_the_version_is_told_however_it_is_asked_for(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mecpilot.main([asked]) == 0
    assert capsys.readouterr().out == f"mecpilot {mecpilot.__version__}\n"


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MECPILOT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert cache_dir() == tmp_path / f"mecpilot-{os.getuid()}"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == Path("/somewhere/mecpilot")


def test_a_status_line_says_once_a_minute_where_frames_were_answered() -> None:
    now_s, said = [0.0], list[str]()
    line = StatusLine(said.append, lambda: now_s[0])
    local, cut, remote = (Decision("m", 28, 0, point, codec) for point, codec in ((3, "none"), (1, "u8"), (0, "png")))
    ends: list[tuple[Status, Decision | None]] = [
        (Status.OK, local), (Status.OK, local), (Status.OK, cut), (Status.OK, remote), (Status.FALLBACK, remote),
        (Status.LATE, remote), (Status.SKIPPED, None), (Status.DROPPED, None), (Status.OK, local), (Status.OK, local),
    ]  # fmt: skip
    for i in range(600):
        now_s[0] = i / 9.983
        status, decision = ends[i % 10]
        line.add(Outcome(i, i, status, 1.0, 100.0, 0, 0.0, None, decision, BreakdownMs(), None, None, None))
    assert said == [
        "600 frames in 60 s: device 40%, split 10%, MEC 10%, fallback 10%, dropped 10%, late 10%, skipped 10%"
    ]


def test_wrapping_a_command_twice_checks_it_once() -> None:
    calls = []

    def command(seed: int = 0) -> None:
        calls.append(seed)

    wrapped: Callable[..., Any] = front._checked(front._checked(command))
    wrapped(seed=3)
    assert calls == [3]
    assert wrapped.__mecpilot_command__ is command  # type: ignore[attr-defined]
