"""Several real devices and a MEC in a lab: each device a process of ``mecpilot device``, and what they report."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from controller.errors import FailureError
from controller.predict.uplink import TraceBank
from controller.scenario import Scenario, ScenarioRange
from runtime.decoders.given import given_options
from runtime.testbed.lab.namespaces import inside
from runtime.testbed.lab.network import Lab
from runtime.testbed.processes import running_mec, running_neighbours

_STOP_WAIT_S = 10.0


@dataclass(frozen=True)
class Played:
    """What every device of a lab plays, and with what."""

    scenario: Scenario
    range: ScenarioRange  # limits and utility
    bank: TraceBank
    workload: str
    bundle: Path  # its directory
    profile: Path | None
    controller: str | None  # None: the device's own default
    options: tuple[str, ...] = ()  # more of ``mecpilot device``, for every device
    outcomes: Path | None = None  # folder of the logs of outcomes, one file per device

    def device_options(self, number: int, endpoint: str) -> list[str]:
        """Options of one device: the same conditions, other samples and other random numbers for each."""
        scenario, range_ = self.scenario, self.range
        frames, step = scenario.frames, scenario.frames // 2
        given: dict[str, object] = {
            "--mec": endpoint,
            "--workload": self.workload,
            "--bundle": self.bundle,
            "--fps": scenario.fps,
            "--frames": frames,
            "--start": scenario.first_sample + number * step,
            "--deadline-ms": scenario.deadline_s * 1e3,
            "--slowdown": max(scenario.device_slowdown, 1.0),
            "--device-load": scenario.device_load_frac,
            "--seed": scenario.seed % 2**30 + number,
            "--queue-limit": range_.queue_limit,
            "--max-in-flight": range_.max_in_flight,
            "--json": "-",
        }
        given |= {f"--{name.replace('_', '-')}": value for name, value in msgspec.to_builtins(range_.utility).items()}
        given |= {"--profile": self.profile} if self.profile else {}
        given |= {"--controller": self.controller} if self.controller else {}
        given |= {"--outcomes": self.outcomes / f"device{number}.jsonl"} if self.outcomes else {}
        return [str(word) for pair in given.items() for word in pair] + ["--plain", *given_options(), *self.options]


def play(lab: Lab, played: Played) -> list[dict[str, Any]]:
    """Play until every device has answered its frames; returns their summaries (``mecpilot device --json``).

    FailureError if the MEC or a device fails.
    """
    # The lab's addresses are not loopback, but nobody else is on its network.
    scenario, options = played.scenario, ["--plain", "--bundle", str(played.bundle), *given_options()]
    options += ["--profile", str(played.profile)] if played.profile else []
    slowdown = max(scenario.mec_slowdown, 1.0)
    with contextlib.ExitStack() as stack:
        with inside(lab.mec):
            mec = running_mec(played.workload, slowdown=slowdown, bind=lab.bind, options=tuple(options))
            endpoint = stack.enter_context(mec).endpoint
            others = running_neighbours(endpoint, str(played.bundle), scenario, played.profile)
            neighbours = stack.enter_context(others)
        lab.replay(played.bank, scenario)
        devices = []
        for number, name in enumerate(lab.devices):
            with inside(name):
                devices.append(stack.enter_context(_device(played.device_options(number, endpoint))))
        neighbours.begin()
        return [_summary(number, process) for number, process in enumerate(devices)]


@contextlib.contextmanager
def _device(options: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A device process during a block."""
    words = [sys.executable, "-m", "mecpilot", "device", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _summary(number: int, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    written, _ = process.communicate()
    if process.returncode:
        raise FailureError(f"device {number} ended with exit code {process.returncode}; its lines are above")
    found: dict[str, Any] = msgspec.json.decode(written)
    return found


def jain_index(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all values are equal, 1/n if one has everything; 1 if all are 0.

    (Jain, Chiu, Hawe 1984: (sum x)^2 / (n * sum x^2).)
    """
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
