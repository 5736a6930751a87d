"""A Ray cluster: pieces are Ray tasks, and Ray tries those of a dead worker or machine again.

``ray://HOST:10001`` works from any machine, ``HOST:6379`` and ``auto`` from one of the cluster's, ``local`` starts a
cluster on this machine for the time of the command. Ray pickles what travels, so a cluster must be your own.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agents.scale.cores import usable_cores
from agents.scale.pieces import Job, answer, code_digest, result_of
from agents.scale.runner import RETRIES
from agents.scale.worker import Throttle, search_path
from controller.errors import FailureError, UsageError

LOCAL, AUTO = "local", "auto"
#: Longest times to reach the address, and to hear from Ray there.
_CONNECT_S, _HEALTH_S = 3.0, 6.0
#: How often progress is shown.
_LOOK_EVERY_S = 0.5
_EXPECTED = "expected ray://HOST:10001, HOST:6379, auto, or local"

Told = Callable[[int, int], None]


class Cluster:
    """Owns the connection to a cluster, or the cluster if it was started here; at most ``jobs`` pieces run at a time.

    UsageError for an address that is none or does not answer, within ten seconds.
    """

    def __init__(self, address: str, jobs: int | None = None) -> None:
        self._ray = _ray()
        self._jobs = jobs
        if address == LOCAL:
            with _environment(PYTHONPATH=search_path()):
                self._init(num_cpus=jobs or usable_cores(), include_dashboard=False)
        else:
            _check_address(address)
            self._init(address=address)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def _init(self, **how: Any) -> None:
        address = how.get("address", LOCAL)
        try:
            self._ray.init(logging_level=logging.ERROR, log_to_driver=False, **how)
        except Exception as error:  # Ray raises many kinds
            raise UsageError(f"--ray {address}: {_first_line(error)}; {_EXPECTED}") from error

    def run(self, job: Job, pieces: Sequence[bytes], reached: Told) -> Iterator[tuple[int, bytes]]:
        """See ``agents.scale.runner.Runner``."""
        ray = self._ray
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_carry_out)
        progress = ray.remote(num_cpus=0)(_Progress).remote()
        common, code = ray.put(job.common), code_digest()
        waiting, running = iter(range(len(pieces))), dict[Any, int]()

        def start_next() -> None:
            for number in waiting:
                running[task.remote(job.function, common, pieces[number], code, progress, number)] = number
                return

        for _ in range(self._jobs or len(pieces)):
            start_next()
        while running:
            ready, _ = ray.wait(list(running), timeout=_LOOK_EVERY_S)
            for reference in ready:
                yield running.pop(reference), self._result(reference)
                start_next()
            for number, done in ray.get(progress.all.remote()).items():
                if number in running.values():
                    reached(number, done)

    def _result(self, reference: Any) -> bytes:
        try:
            return result_of(self._ray.get(reference), other_machines=True)
        except self._ray.exceptions.RayError as error:
            raise FailureError(
                f"Ray could not carry out a piece of work in {RETRIES + 1} tries ({_first_line(error)}); expected "
                "workers that last, with the same mecpilot and the same packages as here"
            ) from error


def _carry_out(function: str, common: bytes, own: bytes, code: str, progress: Any, number: int) -> bytes:
    """A Ray task."""
    report = Throttle(lambda done: progress.reached.remote(number, done))
    return answer(Job(function, common), own, code, report)


class _Progress:
    """A Ray actor: how much of each piece is done."""

    def __init__(self) -> None:
        self._done: dict[int, int] = {}

    def reached(self, number: int, done: int) -> None:
        self._done[number] = done

    def all(self) -> dict[int, int]:
        return self._done


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables for the processes that are started in the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ray() -> Any:
    """The package, which tells nobody about its use here. UsageError where it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UsageError(
            "--ray needs the package ray 2.60 or newer; run: pip install 'PATH_OF_THE_CHECKOUT[train,scale]'"
        ) from None
    return ray


def _check_address(address: str) -> None:
    """UsageError unless something answers at the address as Ray does: Ray itself would try for minutes."""
    if address == AUTO:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"got --ray {address}; {_EXPECTED}")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _silent(address, str(getattr(error, "strerror", None) or error)) from None
    if not address.startswith("ray://") and not _is_healthy(address):
        raise _silent(address, "what listens there is not Ray, or another version of it")


def _is_healthy(address: str) -> bool:
    """Whether a head node of our version of Ray is there. In a process of its own, which can be ended."""
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        return subprocess.run(check, capture_output=True, timeout=_HEALTH_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _silent(address: str, why: str) -> UsageError:
    return UsageError(
        f"--ray {address} does not answer ({why}); expected the address of a Ray cluster: start one with `ray start "
        "--head`, or use --ray local"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
