"""Network namespaces: made, entered by one thread, and removed, also those that a killed lab left behind.

A name holds the process that made it, as its number and the time of its start. So the namespaces of a lab that ended by
``kill -9`` are known by their name, and the next lab removes them, with what still runs in them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from controller.errors import FailureError, UsageError

_PREFIX = "mecpilotlab"
_OURS = re.compile(rf"{_PREFIX}-(?P<pid>\d+)-(?P<born>\d+)-\w+")
_NAMED = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def check_possible() -> None:
    """UsageError without root, or without the tools of the kernel's network."""
    if os.geteuid() != 0:
        raise UsageError("a lab makes network namespaces, which takes root; run it as root, or use the twin")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise UsageError(f"a lab needs the command {tool}, which is not here; install iproute2")
    if not Path("/dev/net/tun").exists():
        raise UsageError("a lab needs /dev/net/tun, which is not here; load the kernel's module tun")


def name_of(role: str) -> str:
    """Name of a namespace of this process: ``role`` is one word."""
    return f"{_PREFIX}-{os.getpid()}-{_born(os.getpid())}-{role}"


@contextlib.contextmanager
def namespace(role: str) -> Iterator[str]:
    """A namespace during a block, with its loopback up. FailureError if the system gives none."""
    name = name_of(role)
    run("ip", "netns", "add", name)
    try:
        for scope in ("all", "default"):  # no packets but those of the experiment
            with contextlib.suppress(FailureError):  # a kernel without IPv6
                set_kernel(name, f"ipv6/conf/{scope}/disable_ipv6", "1")
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        remove(name)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread is in a namespace during a block: sockets, threads and processes that it makes there are too."""
    with open("/proc/thread-self/ns/net") as home, (_NAMED / name).open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def set_kernel(name: str, setting: str, value: str) -> None:
    """Set one of the network settings of a namespace (below ``/proc/sys/net``); FailureError if it is refused."""
    with inside(name):
        try:
            Path("/proc/sys/net", setting).write_text(value)
        except OSError as error:
            raise FailureError(f"cannot set net/{setting} to {value}: {error.strerror}") from None


def run(*words: str) -> None:
    """A command of iproute2; FailureError with its first line if it fails."""
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        said = next(iter(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        raise FailureError(f"`{' '.join(words)}` failed: {said}")


def remove_stale() -> list[str]:
    """Remove the namespaces of labs whose process has ended; returns their names."""
    names = sorted(path.name for path in _NAMED.iterdir()) if _NAMED.is_dir() else []
    stale = [name for name in names if _is_stale(name)]
    for name in stale:
        remove(name)
    return stale


def remove(name: str) -> None:
    """End what runs in a namespace, and remove it with its interfaces; nothing if it is gone."""
    found = subprocess.run(("ip", "netns", "pids", name), check=False, capture_output=True, text=True)
    for pid in map(int, found.stdout.split()):
        if pid != os.getpid():  # this process may have a thread inside
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)


def _is_stale(name: str) -> bool:
    ours = _OURS.fullmatch(name)
    return ours is not None and _born(int(ours["pid"])) != int(ours["born"])


def _born(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise FailureError(f"cannot enter a network namespace: {os.strerror(error)}")
