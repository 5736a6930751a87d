"""A lab as it is: namespaces that come and go, and an uplink whose packets take as long as the trace says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.live import ROOT

from controller.errors import FailureError, UsageError
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import Scenario
from runtime.testbed.lab import namespaces
from runtime.testbed.lab.names import FAR_ADDRESS
from runtime.testbed.lab.namespaces import check_possible, inside, namespace, remove_stale, run
from runtime.testbed.lab.network import Lab, open_lab

PORT = 5000
#: A process with a lab, which it keeps until it is killed.
_OWNER = """
from runtime.testbed.lab.network import open_lab
with open_lab() as lab:
    print(lab.mec, flush=True)
    input()
"""
SOON_S = 30.0


def ours() -> set[str]:
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir() if str(os.getpid()) in path.name} if folder.is_dir() else set()


@pytest.fixture
def root() -> None:
    try:
        check_possible()
        with namespace("try"):
            pass
    except (UsageError, FailureError) as error:
        pytest.skip(str(error))


def test_without_root_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="takes root"):
        check_possible()


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces.shutil, "which", lambda tool: None if tool == "tc" else f"/sbin/{tool}")
    with pytest.raises(UsageError, match="command tc"):
        check_possible()


@pytest.mark.root
@pytest.mark.usefixtures("root")
def test_a_killed_lab_is_cleared_away_by_the_next_one() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        name = killed.stdout.readline().strip()
        with inside(name):  # something runs there that does not end by itself
            left = subprocess.Popen(["sleep", "600"])
        assert not remove_stale()
        killed.send_signal(signal.SIGKILL)
    removed = remove_stale()
    assert name in removed
    assert len(removed) == 3
    assert left.wait(SOON_S) == -signal.SIGKILL
    assert not any(str(killed.pid) in path.name for path in Path("/run/netns").iterdir())


@pytest.mark.root
@pytest.mark.usefixtures("root")
def test_a_thread_comes_home_and_a_failing_command_is_one_line() -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    with namespace("here") as name:
        with inside(name):
            assert os.readlink("/proc/thread-self/ns/net") != home
        assert os.readlink("/proc/thread-self/ns/net") == home
        with pytest.raises(FailureError, match="nothing0"):
            run("ip", "-n", name, "link", "set", "nothing0", "up")
    assert not ours()


@contextlib.contextmanager
def crossing(lab: Lab) -> Iterator[Callable[[int], float]]:
    """A function that sends so many bytes and returns the seconds until the last one has arrived."""
    with inside(lab.mec):
        listening = socket.create_server((FAR_ADDRESS, PORT))
    with inside(lab.devices[0]):
        device = socket.socket()
    device.settimeout(SOON_S)
    device.connect((FAR_ADDRESS, PORT))
    mec, _ = listening.accept()
    mec.settimeout(SOON_S)

    def send(size: int) -> float:
        began_s = time.perf_counter()
        device.sendall(bytes(size))
        while size > 0:
            size -= len(mec.recv(1 << 16))
        return time.perf_counter() - began_s

    with listening, device, mec:
        yield send


@pytest.mark.root
@pytest.mark.usefixtures("root")
def test_a_small_payload_feels_rate_and_round_trip() -> None:
    bank = TraceBank([Trace("t", np.array([0.0, 100.0]), np.array([1e3, 2e6]), 100.0)])
    with open_lab() as lab:
        lab.replay(bank, Scenario(rtt_s=0.1, trace_start_s=110.0, uplink_share_frac=0.1))
        with crossing(lab) as send:
            took_s = send(1000)
    assert not ours()
    assert took_s >= 1052 * 8 / 200e3 + 0.05  # rate and round trip are those of the scenario, not of another place
    assert took_s < 0.5


@pytest.mark.root
@pytest.mark.usefixtures("root")
def test_the_kernels_bucket_lets_go_of_a_packet_that_waited_for_the_end_of_an_outage() -> None:
    bank = TraceBank([Trace("t", np.array([0.0, 2.0]), np.array([0.0, 10e6]), 100.0)])
    with open_lab(shaper="kernel") as lab:
        lab.replay(bank, Scenario(rtt_s=0.0, trace_start_s=50.0))
        with crossing(lab) as send:
            lab.replay(bank, Scenario(rtt_s=0.0))
            lab.begin(time.perf_counter())
            took_s = send(10_000)  # at the rate of the outage 80 s, and the first packet alone 12 s
    assert 1.0 < took_s < 8.0


@pytest.mark.root
@pytest.mark.usefixtures("root")
def test_devices_share_one_uplink() -> None:
    bank = TraceBank([Trace("t", np.zeros(1), np.array([1e6]), 1.0)])
    with open_lab(2) as lab:
        lab.replay(bank, Scenario(rtt_s=0.01))
        assert len(lab.devices) == 2
        with inside(lab.mec):
            listening = socket.create_server((FAR_ADDRESS, PORT))
        peers = set()
        with listening:
            for name in lab.devices:
                with inside(name):
                    one = socket.create_connection((FAR_ADDRESS, PORT), SOON_S)
                accepted, (address, _) = listening.accept()
                peers.add(address)
                one.close()
                accepted.close()
    assert len(peers) == 2
