"""The calibrated emulation: thousands of devices without a socket, a clock or a network.

``Twin`` owns the world of every environment of the batch and the generator that draws their scenarios; what one
decision leads to is the pure function ``envs.transition.transition``. Given scenarios run exactly as given, with the
same noise for every controller, so that controllers can be compared frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.records import Bools, Ints, SystemState
from controller.scenario import LOAD_STEP_S, Scenario, ScenarioRange
from controller.uplink import TraceBank
from envs.conditions import Conditions, conditions_of, load_steps, with_rows
from envs.flight import Moment, moment_of, true_latency_s
from envs.rules import RecordedScores, TwinCalibration, make_rules
from envs.transition import StepRecord, transition
from envs.world import World, new_world, observe

Reward = Literal["replayed", "expected"]
DEFAULT_CALIBRATION = TwinCalibration()


class Twin:
    """A batch of emulated devices. Owns their conditions, their worlds and the generator of their scenarios.

    ``reward="expected"`` pays the table's accuracy where ``"replayed"`` pays the recorded score of the sample:
    the same mean with less variance. ``oracle`` fills ``SystemState.true_latency_s``.
    """

    def __init__(
        self,
        costs: CostTable,
        bank: TraceBank,
        recorded: RecordedScores,
        range: ScenarioRange,
        batch: int = 1,
        seed: int = 0,
        *,
        reward: Reward = "replayed",
        oracle: bool = False,
        calibration: TwinCalibration = DEFAULT_CALIBRATION,
    ) -> None:
        if reward not in ("replayed", "expected"):
            raise UsageError(f"unknown reward {reward!r}; expected 'replayed' or 'expected'")
        self.costs = costs
        self.range = range
        self.batch = batch
        self.oracle = oracle
        self.scenarios: list[Scenario] = []
        self._rng = np.random.default_rng(seed)
        self._rules = make_rules(
            costs,
            bank,
            recorded,
            range.utility,
            calibration,
            queue_limit=range.queue_limit,
            max_in_flight=range.max_in_flight,
            replayed=reward == "replayed",
        )
        self._conditions: Conditions
        self._world: World
        self._moment: Moment

    def seed(self, seed: int) -> None:
        """Draw the scenarios to come from this seed."""
        self._rng = np.random.default_rng(seed)

    def reset(self, rows: Bools | None = None, scenarios: Sequence[Scenario] | None = None) -> SystemState:
        """Begin an episode in the given rows (B,) (all of them by default), with the given scenarios or drawn ones."""
        chosen = np.flatnonzero(rows) if rows is not None else np.arange(self.batch)
        if scenarios is None:
            scenarios = [self._draw() for _ in chosen]
        if len(scenarios) != len(chosen):
            raise UsageError(f"got {len(scenarios)} scenarios; expected one for each of {len(chosen)} rows")
        if rows is None:
            self.scenarios = list(scenarios)
            seconds = max(self._seconds_of_range(), load_steps(scenarios))
            self._conditions = conditions_of(scenarios, self.costs.neighbour_mec_s, seconds)
            self._world = new_world(self._rules, self._conditions)
        elif len(chosen):
            for row, scenario in zip(chosen, scenarios, strict=True):
                self.scenarios[row] = scenario
            seconds = self._conditions.mec_level.shape[1]
            fresh = conditions_of(scenarios, self.costs.neighbour_mec_s, seconds)
            self._conditions = with_rows(self._conditions, chosen, fresh)
            self._world = with_rows(self._world, chosen, new_world(self._rules, fresh))
        return self._observe()

    def step(self, rows: Ints) -> tuple[SystemState, StepRecord]:
        """Decide one frame in every environment: ``rows`` (B,) of the cost table.

        The state is that of the next decision point. Where the record says ``done`` that frame belongs to no
        episode any more: reset those rows.
        """
        self._world, record = transition(self._rules, self._conditions, self._world, self._moment, np.asarray(rows))
        return self._observe(), record

    def _observe(self) -> SystemState:
        self._moment = moment_of(self._rules, self._conditions, self._world)
        known = None
        if self.oracle:
            known = true_latency_s(self._rules, self._conditions, self._world, self._moment)
        return observe(self._rules, self._conditions, self._world, known)

    def _draw(self) -> Scenario:
        return self.range.sample(self._rng, self._rules.bank.duration_s, self._rules.samples)

    def _seconds_of_range(self) -> int:
        return math.ceil(self.range.frames / self.range.fps[0] / LOAD_STEP_S) + 1
