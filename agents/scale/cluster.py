"""A Ray cluster: pieces are Ray tasks, and Ray tries those of a dead worker or machine again.

``ray://HOST:10001`` works from any machine, ``HOST:6379`` and ``auto`` from one of the cluster's, ``local`` starts a
cluster on this machine for the time of the command. Ray pickles what travels, so a cluster must be your own.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from agents.scale.pieces import Job, answer, code_digest, result_of
from agents.scale.runner import RETRIES, Told
from agents.scale.worker import Throttle, search_path
from controller.errors import FailureError, UsageError
from runtime.cores import usable_cores

LOCAL, AUTO = "local", "auto"
#: Longest times to reach the address, and to hear from Ray there.
_CONNECT_S, _HEALTH_S = 3.0, 6.0
#: How often progress is shown.
_LOOK_EVERY_S = 0.5
_NOT_RAY = "what listens there is not Ray, or another version of it"
_EXPECTED = "expected ray://HOST:10001, HOST:6379, auto, or local"

Name = tuple[int, int]  # of a piece: number of the run, number in it


class Cluster:
    """Owns the connection to a cluster, or the cluster if it was started here; at most ``jobs`` pieces run at a time.

    UsageError for an address that is none or does not answer, within ten seconds.
    """

    def __init__(self, address: str, jobs: int | None = None) -> None:
        self._ray = _ray()
        self._jobs = jobs
        self._runs = 0
        if address == LOCAL:
            # With a token of its own Ray writes none into the user's home.
            token = {} if "RAY_AUTH_MODE" in os.environ else {"RAY_AUTH_TOKEN": secrets.token_hex()}
            with _environment(PYTHONPATH=search_path(), **token):
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
        ray, progress = self._ray, self._progress
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_carry_out)
        common, code = ray.put(job.common), code_digest()
        self._runs += 1
        waiting, running = iter(range(len(pieces))), dict[Any, int]()

        def start_next() -> None:
            number = next(waiting, None)
            if number is not None:
                name = (self._runs, number)
                running[task.remote(job.function, common, pieces[number], code, progress, name)] = number

        for _ in range(self._jobs or len(pieces)):
            start_next()
        looked_s = time.monotonic()
        while running:
            ready, _ = ray.wait(list(running), timeout=_LOOK_EVERY_S)
            for reference in ready:
                yield running.pop(reference), self._result(reference)
                start_next()
            if time.monotonic() - looked_s > _LOOK_EVERY_S:
                looked_s, busy = time.monotonic(), set(running.values())
                for (run, number), done in ray.get(progress.all.remote()).items():
                    if run == self._runs and number in busy:
                        reached(number, done)

    @cached_property
    def _progress(self) -> Any:
        return self._ray.remote(num_cpus=0)(_Progress).remote()

    def _result(self, reference: Any) -> bytes:
        try:
            return result_of(self._ray.get(reference), other_machines=True)
        except self._ray.exceptions.RayError as error:
            raise FailureError(
                f"Ray could not carry out a piece of work in {RETRIES + 1} tries ({_first_line(error)}); expected "
                "workers that last, with the same mecpilot and the same packages as here"
            ) from error


def _carry_out(function: str, common: bytes, own: bytes, code: str, progress: Any, name: Name) -> bytes:
    """A Ray task."""
    report = Throttle(lambda done: progress.reached.remote(name, done))
    return answer(Job(function, common), own, code, report)


class _Progress:
    """A Ray actor: how much of each piece is done."""

    def __init__(self) -> None:
        self._done: dict[Name, int] = {}

    def reached(self, name: Name, done: int) -> None:
        self._done[name] = done

    def all(self) -> dict[Name, int]:
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
    if why := _obstacle(host, int(port)):
        raise _silent(address, why)
    if why := _no_ray(address):
        raise _silent(address, why)


def _obstacle(host: str, port: int) -> str:
    """Why no connection is possible; "" if one is. In a thread, because the name's server may not answer either."""
    found = ["timed out"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=_CONNECT_S).close()
            found[0] = ""
        except (OSError, OverflowError) as error:
            found[0] = str(getattr(error, "strerror", None) or error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_S)
    return found[0]


def _no_ray(address: str) -> str:
    """Why Ray does not take us there; "" if it does. In a process of its own, which can be ended."""
    if address.startswith("ray://"):
        check = [sys.executable, "-c", _CALL, address.removeprefix("ray://")]
    else:
        check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(check, capture_output=True, text=True, timeout=_HEALTH_S, check=False)
    except subprocess.TimeoutExpired:
        return _NOT_RAY
    if "authentication" in done.stderr.lower() and os.environ.get("RAY_AUTH_MODE") != "token":
        return "it wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
    return "" if done.returncode == 0 else _NOT_RAY


#: Calls a Ray client server. It refuses the call, or fails in it: both show that it is there.
_CALL = f"""
import sys, grpc
try:
    grpc.insecure_channel(sys.argv[1]).unary_unary("/ray.rpc.RayletDriver/ClusterInfo")(b"", timeout={_HEALTH_S - 2})
except grpc.RpcError as error:
    print(error.details(), file=sys.stderr)
    sys.exit(error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED))
"""


def _silent(address: str, why: str) -> UsageError:
    return UsageError(
        f"--ray {address} does not answer ({why}); expected the address of a Ray cluster: start one with `ray start "
        "--head`, or use --ray local"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
