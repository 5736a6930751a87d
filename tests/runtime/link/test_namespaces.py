"""The link over a real network: a namespace whose cable is pulled, whose packets vanish, whose address moves."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.live import ROOT
from support.peers import Keeper

pytestmark = pytest.mark.root

BACK_S = 5.0
SOON_S = 30.0
PORT = 5591
SPACE = f"mecpilot{os.getpid()}"
#: A hardware address that no interface has: what is sent there vanishes, and nobody is told.
NOBODY = "02:00:00:00:00:99"
HERE, THERE, MOVED = "10.213.7.1", "10.213.7.2", "10.213.7.3"

#: The MEC's end, in the namespace: greets and echoes until it is killed.
_MEC = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tests")!r})
from support.peers import Greeter
with Greeter("tcp://*:{PORT}"):
    print("ready", flush=True)
    time.sleep(600)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def inside(*words: str) -> None:
    ip("netns", "exec", SPACE, *words)


@pytest.fixture
def network() -> Iterator[str]:
    """A device here and a MEC in a namespace, over a pair of interfaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("namespaces need root and ip")
    ours, theirs = f"mp{os.getpid() % 100000}a", f"mp{os.getpid() % 100000}b"
    try:
        ip("netns", "add", SPACE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no namespace can be made here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", SPACE)
        ip("addr", "add", f"{HERE}/24", "dev", ours)
        ip("link", "set", ours, "up")
        inside("ip", "addr", "add", f"{THERE}/24", "dev", theirs)
        inside("ip", "link", "set", theirs, "up")
        with running_inside():
            yield theirs
    finally:
        subprocess.run(["ip", "link", "del", ours], check=False, capture_output=True)
        ip("netns", "del", SPACE)


@contextlib.contextmanager
def running_inside() -> Iterator[None]:
    command = ["ip", "netns", "exec", SPACE, sys.executable, "-c", _MEC]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True) as mec:
        try:
            assert mec.stdout is not None
            assert mec.stdout.readline() == "ready\n"
            yield
        finally:
            mec.kill()


@pytest.mark.parametrize("hole_s", [2.0, 8.0])
def test_the_link_is_back_soon_after_packets_vanished(network: str, hole_s: float) -> None:
    with Keeper(f"tcp://{THERE}:{PORT}") as device:
        assert device.until(lambda: device.up, SOON_S) < SOON_S
        inside("ip", "neigh", "replace", HERE, "lladdr", NOBODY, "dev", network, "nud", "permanent")
        device.until(lambda: not device.up, SOON_S)
        device.for_(hole_s)
        inside("ip", "neigh", "del", HERE, "dev", network)
        assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S


def test_the_link_is_back_soon_after_the_cable_was_pulled(network: str) -> None:
    with Keeper(f"tcp://{THERE}:{PORT}") as device:
        assert device.until(lambda: device.up, SOON_S) < SOON_S
        inside("ip", "link", "set", network, "down")
        device.until(lambda: not device.up, SOON_S)
        device.for_(2.0)
        inside("ip", "link", "set", network, "up")
        assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S


def test_a_name_that_moved_to_another_address_is_followed(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address, real = THERE, socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **named: real(address, *rest, **named))
    with Keeper(f"tcp://mec.example:{PORT}") as device:
        assert device.until(lambda: device.up, SOON_S) < SOON_S
        inside("ip", "addr", "del", f"{THERE}/24", "dev", network)
        inside("ip", "addr", "add", f"{MOVED}/24", "dev", network)
        address = MOVED
        device.until(lambda: not device.up, SOON_S)
        assert device.until(lambda: device.up, 2 * BACK_S) < BACK_S
