"""The live backend: a MEC process, a process that plays other devices, and this process as the device.

Nothing is emulated but what the scenario says (slowdowns, uplink). While a policy learns, its thinking is no part of
the device: the clock stands between two steps, so that an update drops no frames. In a comparison it runs on.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from typing import Any

import torch

from controller.errors import FailureError
from controller.records import Outcome, SystemState
from controller.scenario import Scenario
from envs.backend import Step
from envs.networks import NetworkName, network_of
from envs.setup import Setup
from runtime.config.sections.admission import OPEN_OPTIONS
from runtime.config.sections.device import LimitsSection
from runtime.decoders.given import given_options
from runtime.device.daemon import open_loop
from runtime.device.local_compute import LocalCompute
from runtime.device.loop import DeviceLoop
from runtime.link.mecs.address import addresses_of
from runtime.shortcuts.configured import shortcuts_of
from runtime.testbed.processes import RunningMec, RunningNeighbours, running_mec, running_neighbours
from runtime.workloads.base import forecaster_of
from runtime.workloads.registry import workload_reference


class LiveBackend:
    """Owns the processes: a MEC for as long as its slowdown fits, neighbours and device per episode."""

    deterministic = False

    def __init__(self, setup: Setup, *, learning: bool = True, network: NetworkName = "emulated") -> None:
        """``network``: see ``envs.networks``. UsageError where it cannot be made."""
        self.costs = setup.costs
        self._setup = setup
        self._compute = LocalCompute(setup.bundle, setup.bundle.work, setup.split, gates=setup.costs.gates)
        self._mec: RunningMec | None = None
        self._mec_slowdown = 0.0
        self._mec_stack, self._episode_stack = ExitStack(), ExitStack()
        self._device: DeviceLoop | None = None
        self._neighbours = RunningNeighbours(None)
        stopwatch = _Stopwatch()
        self._clock: Callable[[], float] = stopwatch if learning else time.perf_counter
        self._running: AbstractContextManager[None] = stopwatch if learning else nullcontext()
        self._state: SystemState | None = None
        self._warm = False
        self._network = network_of(network, setup.bank)  # last: nothing closes it if something here fails
        atexit.register(self.close)

    def reset(self, scenario: Scenario) -> SystemState:
        """Begin an episode, with a fresh MEC where the last one is dead or as slow as another scenario's."""
        self._episode_stack.close()
        self._warm_up()
        setup, mec = self._setup, self._mec_for(scenario)
        neighbours = running_neighbours(mec.endpoint, str(setup.bundle.directory), scenario, setup.profile)
        with self._network.at_mec():
            self._neighbours = self._episode_stack.enter_context(neighbours)
        self._episode_stack.enter_context(self._network.at_device(scenario))
        self._device = open_loop(
            addresses_of(mec.endpoint),
            self._compute,
            self.costs,
            scenario,
            setup.range.utility,
            self._network.emulated,
            LimitsSection(queue_limit=setup.range.queue_limit, max_in_flight=setup.range.max_in_flight),
            forecaster=forecaster_of(setup.bundle.work) if setup.techniques.forecast else None,
            shortcuts=shortcuts_of(
                setup.techniques.filter,
                setup.techniques.cache,
                setup.bundle.work,
                moves=bool(setup.techniques.forecast),
                seed=scenario.seed,
            ),
            clock=self._clock,
            on_start=self._network.begin,
        )
        self._episode_stack.callback(self._leave)
        state = self._next_state(self._device)
        assert state is not None, "an episode has at least one frame"
        self._neighbours.begin()  # together with the first frame, as in the twin
        return state

    def step(self, row: int) -> Step:
        """Decide the frame at hand; the reward is the utility of all frames that ended since the last step."""
        device, last = self._device, self._state
        if device is None or last is None:
            raise FailureError("the live backend has no episode under way; call reset() first")
        self._check_processes()
        with self._running:
            device.execute(row)
        state = self._next_state(device)
        info = _info(device.take_outcomes())
        return Step(state or last, info["utility"], state is None, info)

    def close(self) -> None:
        """Stop device, neighbours and MEC; may be called twice."""
        self._episode_stack.close()
        self._mec_stack.close()
        self._mec = None
        self._network.close()

    def _next_state(self, device: DeviceLoop) -> SystemState | None:
        with self._running:
            self._state = device.next_decision()
        return self._state

    def _mec_for(self, scenario: Scenario) -> RunningMec:
        alive = self._mec is not None and self._mec.process.poll() is None
        if self._mec is None or not alive or scenario.mec_slowdown != self._mec_slowdown:
            self._mec_stack.close()
            self._mec = None
            bundle, profile = self._setup.bundle, self._setup.profile
            # A lab's addresses are not loopback, but nobody else is on its network.
            options = ["--plain", "--bundle", str(bundle.directory), *(["--profile", str(profile)] if profile else [])]
            slowdown = max(scenario.mec_slowdown, 1.0)
            # A MEC needs no repeated samples, and a workload that repeats them has no name of its own.
            repeats = self._setup.repetition is not None
            reference = workload_reference(bundle.workload) if repeats else bundle.reference
            bind = self._network.bind
            with self._network.at_mec():
                # The load of other devices comes over one connection, and the twin's MEC serves in order of arrival.
                mec = running_mec(
                    reference, slowdown=slowdown, bind=bind, options=(*options, *given_options(), *OPEN_OPTIONS)
                )
                self._mec = self._mec_stack.enter_context(mec)
            self._mec_slowdown = scenario.mec_slowdown
        return self._mec

    def _check_processes(self) -> None:
        """Fail if a process died: without the MEC the results are meaningless."""
        mec = None if self._mec is None else self._mec.process
        for what, process in (("MEC", mec), ("load generator", self._neighbours.process)):
            if process is not None and (code := process.poll()) not in (None, 0):
                raise FailureError(f"the {what} process ended with exit code {code}; reset() starts another one")

    def _leave(self) -> None:
        if self._device is not None:
            self._device.close()
        self._device, self._neighbours = None, RunningNeighbours(None)

    def _warm_up(self) -> None:
        if not self._warm:
            torch.set_num_threads(1)
            self._compute.prepare()
            self._compute.warm_up(self.costs.space.decisions)
            self._warm = True


class _Stopwatch:
    """A clock that runs inside ``with`` blocks only. Owns how long it stood."""

    def __init__(self) -> None:
        self._stood_s = 0.0
        self._stopped_at_s: float | None = time.perf_counter()

    def __call__(self) -> float:
        running = time.perf_counter() if self._stopped_at_s is None else self._stopped_at_s
        return running - self._stood_s

    def __enter__(self) -> None:
        assert self._stopped_at_s is not None
        self._stood_s += time.perf_counter() - self._stopped_at_s
        self._stopped_at_s = None

    def __exit__(self, *_: object) -> None:
        self._stopped_at_s = time.perf_counter()


def _info(outcomes: list[Outcome]) -> dict[str, Any]:
    """The raw terms of every frame that ended, and their sums."""
    return {
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "dropped": sum(outcome.status.dropped for outcome in outcomes),
        "on_time": sum(outcome.status.on_time for outcome in outcomes),
        "reused": sum(outcome.status.reused for outcome in outcomes),
        "energy_j": sum(outcome.energy_j for outcome in outcomes),
        "payload_bytes": sum(outcome.payload_bytes for outcome in outcomes),
        "utility": sum(outcome.utility or 0.0 for outcome in outcomes),  # their own samples all have a truth
    }
