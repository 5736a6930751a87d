"""What a service manager hears: readiness, reloads, the end, and a watchdog that a loop which hangs does not feed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live import ROOT, WORKLOAD
from support.waiting import PATIENCE_S, wait_until

from runtime.cli.notify import PINGS, Notifier

NOBODY = "tcp://127.0.0.1:9"
WATCHDOG_S = 1.0
DEVICE = ["device", "--mec", NOBODY, "--controller", "device-only", "--frames", "100000", "--fps", "20", "--quiet"]
MEC = ["mec", "--bind", "tcp://127.0.0.1:*"]


class Manager:
    """The end of the socket at which a service manager listens."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def close(self) -> None:
        self._socket.close()

    def heard(self, wait_s: float) -> str | None:
        """The next message; None if none comes in time."""
        self._socket.settimeout(wait_s)
        with contextlib.suppress(TimeoutError):
            return self._socket.recv(4096).decode()
        return None

    def wait_for(self, wanted: str) -> str:
        """The first message that holds this text."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if wanted in (message := self.heard(PATIENCE_S) or ""):
                return message
        raise AssertionError(f"{wanted} was not heard within {PATIENCE_S:.0f} s")

    def drain(self) -> list[str]:
        """What was sent so far."""
        return list(iter(lambda: self.heard(0.01), None))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(str(tmp_path / "notify"))) as listening:
        yield listening


@contextlib.contextmanager
def service(folder: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A mecpilot that runs as a service does: without a terminal, with a socket to its manager and a watchdog."""
    environment = os.environ | {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    process = subprocess.Popen(
        [sys.executable, "-m", "mecpilot", *command, "--workload", WORKLOAD],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", [DEVICE, MEC], ids=["device", "mec"])
def test_a_daemon_says_how_it_is_and_pings_only_while_its_loop_turns(
    command: list[str], manager: Manager, tmp_path: Path
) -> None:
    with service(tmp_path, command) as process:
        ready = manager.heard(PATIENCE_S) or ""
        assert ready.startswith("READY=1\nSTATUS=")
        for _ in range(2 * PINGS):
            assert manager.heard(PATIENCE_S) == "WATCHDOG=1"

        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: ") T " in Path(f"/proc/{process.pid}/stat").read_text(), "the stop")
        manager.drain()
        assert manager.heard(WATCHDOG_S) is None
        process.send_signal(signal.SIGCONT)
        assert manager.heard(PATIENCE_S) == "WATCHDOG=1"

        process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in manager.wait_for("RELOADING=1")
        assert manager.wait_for("READY=1") == ready

        process.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert process.wait(PATIENCE_S) == 0


def test_a_reload_before_the_mec_serves_sends_nothing(manager: Manager, tmp_path: Path) -> None:
    """logrotate may come at any time. READY=1 would end the start, and the watchdog then waits for pings."""
    log, rotated = tmp_path / "requests.jsonl", tmp_path / "requests.jsonl.1"
    with service(tmp_path, [*MEC, "--requests", str(log)]) as process:
        wait_until(log.exists, "the log")  # SIGHUP is ignored until it is open
        log.rename(rotated)
        first = None
        while first is None and process.poll() is None:
            process.send_signal(signal.SIGHUP)
            first = manager.heard(0.05)
        assert (first or "").startswith("READY=1\nSTATUS=serving")
        wait_until(log.exists, "the new log")


def test_a_device_whose_source_ends_says_that_it_stops(manager: Manager, tmp_path: Path) -> None:
    with service(tmp_path, [*DEVICE, "--frames", "5"]) as process:
        assert (manager.heard(PATIENCE_S) or "").startswith("READY=1")
        assert manager.wait_for("STOPPING=1") == "STOPPING=1\nSTATUS=stopping"
        assert process.wait(PATIENCE_S) == 0


def test_a_device_that_ends_with_a_video_asks_for_the_time_to_encode_it(manager: Manager, tmp_path: Path) -> None:
    video = tmp_path / "run.mp4"
    with service(tmp_path, [*DEVICE, "--frames", "5", "--video", str(video)]) as process:
        assert int(manager.wait_for("STOPPING=1").partition("EXTEND_TIMEOUT_USEC=")[2]) > 60e6
        process.send_signal(signal.SIGHUP)  # no reload any more
        assert process.wait(PATIENCE_S) == 0
    assert video.exists()
    assert not [message for message in manager.drain() if "READY=1" in message]


def test_an_abstract_socket_is_spoken_to() -> None:
    name = f"mecpilot-test-{os.getpid()}"
    with contextlib.closing(Manager(f"\0{name}")) as manager:
        Notifier(f"@{name}").ready("at work")
        assert manager.drain() == ["READY=1\nSTATUS=at work"]


def test_a_ping_is_sent_only_when_one_is_due(manager: Manager, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"), watchdog_s=3600.0)
    for _ in range(1000):
        notifier.alive()
    assert manager.drain() == ["WATCHDOG=1"]


def test_a_manager_that_does_not_read_or_is_gone_holds_nobody_up(manager: Manager, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    began_s = time.monotonic()
    for number in range(10_000):
        notifier.status(str(number))
    manager.close()
    notifier.status("to nobody")
    assert time.monotonic() - began_s < PATIENCE_S


def test_a_reload_waits_for_no_manager_and_its_end_is_sent_as_soon_as_there_is_room(
    manager: Manager, tmp_path: Path
) -> None:
    """It runs in a signal handler, which interrupts the loop."""
    notifier = Notifier(str(tmp_path / "notify"), watchdog_s=3600.0)
    notifier.ready("at work")
    for number in range(10_000):  # more than any queue takes
        notifier.status(str(number))
    notifier.status("at work")
    began_s = time.monotonic()
    for _ in range(100):
        with notifier.reload():
            pass
        notifier.alive()
    assert time.monotonic() - began_s < PATIENCE_S / 4
    manager.drain()
    for _ in range(3):
        notifier.alive()
    assert manager.drain() == ["READY=1\nSTATUS=at work"]


def test_before_it_is_ready_and_after_its_end_a_daemon_does_not_reload(manager: Manager, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    with notifier.reload():
        pass
    notifier.alive()
    assert manager.drain() == []
    notifier.ready("at work")
    with notifier.reload():
        assert [message.partition("\n")[0] for message in manager.drain()] == ["READY=1", "RELOADING=1"]
    assert manager.drain() == []
    notifier.alive()
    notifier.stopping()
    with notifier.reload():
        pass
    notifier.alive()
    assert manager.drain() == ["READY=1\nSTATUS=at work", "STOPPING=1\nSTATUS=stopping"]


def test_without_a_manager_nothing_is_sent() -> None:
    with Notifier.of({}).reload():
        Notifier.of({}).ready("at work")


def test_the_variables_are_taken_and_the_watchdog_of_another_process_is_left_alone(
    manager: Manager, tmp_path: Path
) -> None:
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier.of(variables).alive()
    assert variables == {"HOME": "/"}
    assert manager.drain() == []
