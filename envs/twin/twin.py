"""The calibrated emulation: thousands of devices without a socket, a clock or a network.

``Twin`` owns the world of every environment of the batch and the generator that draws their scenarios; what one
decision leads to is the pure function ``envs.twin.step.transition``. Given scenarios run exactly as given, with the
same noise for every controller, so that controllers can be compared frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, Literal, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.uplink import TraceBank
from controller.records import Bools, Floats, Ints, SystemState
from controller.scenario import LOAD_STEP_S, Scenario, ScenarioRange
from envs.twin.conditions import Conditions, conditions_of, load_steps
from envs.twin.link import meet_mec
from envs.twin.record import aged_score
from envs.twin.request import DecisionPoint, moment_of, true_latency_s
from envs.twin.state import TwinState, new_world, observe
from envs.twin.step import StepRecord, transition
from envs.twin.tables import RecordedAnswers, TableShortcut, TwinCalibration, make_rules

Reward = Literal["replayed", "expected"]
DEFAULT_CALIBRATION = TwinCalibration()


#: Episodes that are drawn at a time.
STOCK = 64


class _Begun(NamedTuple):
    """Episodes at their first decision point."""

    scenarios: Sequence[Scenario]
    conditions: Conditions
    world: TwinState


class Twin:
    """A batch of emulated devices. Owns their conditions, their worlds and the generator of their scenarios.

    ``reward="expected"`` pays the table's accuracy where ``"replayed"`` pays the recorded score of the sample:
    the same mean with less variance. ``oracle`` fills ``SystemState.true_latency_s``. ``shortcuts`` may answer a frame
    before it is decided.
    """

    def __init__(
        self,
        costs: CostTable,
        bank: TraceBank,
        recorded: RecordedAnswers,
        range: ScenarioRange,
        batch: int = 1,
        seed: int = 0,
        *,
        reward: Reward = "replayed",
        oracle: bool = False,
        calibration: TwinCalibration = DEFAULT_CALIBRATION,
        shortcuts: Sequence[TableShortcut] = (),
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
            shortcuts=tuple(shortcuts),
        )
        self._stock: _Begun | None = None
        self._used = 0  # of the stock
        self._conditions: Conditions
        self._world: TwinState
        self._moment: DecisionPoint

    def seed(self, seed: int) -> None:
        """Draw the scenarios to come from this seed."""
        self._rng = np.random.default_rng(seed)
        self._stock = None

    def reset(self, rows: Bools | None = None, scenarios: Sequence[Scenario] | None = None) -> SystemState:
        """Begin an episode in the given rows (B,) (all of them by default), with the given scenarios or drawn ones."""
        chosen = np.arange(self.batch) if rows is None else np.flatnonzero(rows)
        if scenarios is not None and len(scenarios) != len(chosen):
            raise UsageError(f"got {len(scenarios)} scenarios; expected one for each of {len(chosen)} rows")
        if rows is None:
            first = scenarios if scenarios is not None else [self._draw() for _ in chosen]
            seconds = max(self._seconds_of_range(), load_steps(first))
            begun = self._begin(first, seconds)
            self.scenarios, self._conditions, self._world = list(first), begun.conditions, begun.world
            self._stock = None
        elif scenarios is not None:
            self._replace(chosen, self._begin(scenarios, self._seconds), slice(0, len(chosen)))
        else:
            for part in np.array_split(chosen, -(-len(chosen) // STOCK) or 1):
                self._replace(part, *self._from_stock(len(part)))
        return self._observe()

    def step(self, rows: Ints) -> tuple[SystemState, StepRecord]:
        """Decide one frame in every environment: ``rows`` (B,) of the cost table.

        The state is that of the next decision point. Where the record says ``done`` that frame belongs to no
        episode any more: reset those rows.
        """
        self._world, record = transition(self._rules, self._conditions, self._world, self._moment, np.asarray(rows))
        return self._observe(), record

    def fork(self, rows: Ints) -> tuple[Twin, SystemState]:
        """A twin of devices that go on from where ``rows`` (N,) of this one stand, and their present state.

        A row that is named several times becomes several devices of equal luck. The fork knows no oracle and is not to
        be reset: its devices play their episodes to the end.
        """
        fork = copy(self)
        fork.batch, fork.oracle = len(rows), False
        fork.scenarios = [self.scenarios[row] for row in rows]
        fork._conditions = Conditions._make(column[rows] for column in self._conditions)
        fork._world = TwinState._make(column[..., rows] for column in self._world)
        return fork, fork._observe()

    @property
    def frame(self) -> Ints:
        """(B,) to be decided next, in its episode."""
        return self._world.frame

    @property
    def answers(self) -> Floats:
        """(RecentAnswers.COUNT, kept, B) the last answers, where answers may be reused."""
        return self._world.answers

    @property
    def frames_left(self) -> Ints:
        """(B,) frames of each episode from the present decision point on."""
        return np.asarray(self._conditions.frames - self._world.frame)

    @property
    def samples(self) -> int:
        """How many were recorded."""
        return int(self._rules.samples)

    def aged_score(self, rows: Ints, samples: Ints, lags: Ints) -> Floats:
        """What the answers of ``rows`` to ``samples`` score for the frames so many later, as the reward counts it."""
        return np.asarray(aged_score(self._rules, rows, samples, lags))

    def _observe(self) -> SystemState:
        self._moment = moment_of(self._rules, self._conditions, self._world)
        known = None
        if self.oracle:
            known = true_latency_s(self._rules, self._conditions, self._world, self._moment)
        return observe(self._rules, self._conditions, self._world, self._moment.down, known)

    def _begin(self, scenarios: Sequence[Scenario], seconds: int) -> _Begun:
        conditions = conditions_of(scenarios, self.costs.neighbour_mec_s, seconds)
        world = meet_mec(self._rules, conditions, new_world(self._rules, conditions))
        return _Begun(scenarios, conditions, world)

    def _from_stock(self, count: int) -> tuple[_Begun, slice]:
        """So many episodes of those drawn beforehand: drawing one by one costs several times as much."""
        if self._stock is None or self._used + count > STOCK:
            self._stock, self._used = self._begin([self._draw() for _ in range(STOCK)], self._seconds), 0
        picked = slice(self._used, self._used + count)
        self._used += count
        return self._stock, picked

    def _replace(self, rows: Ints, begun: _Begun, picked: slice) -> None:
        for row, scenario in zip(rows, begun.scenarios[picked], strict=True):
            self.scenarios[row] = scenario
        changed = [
            _with_rows(*pair, (rows,), (picked,)) for pair in zip(self._conditions, begun.conditions, strict=True)
        ]
        self._conditions = Conditions._make(changed)
        changed = [_with_rows(*pair, (..., rows), (..., picked)) for pair in zip(self._world, begun.world, strict=True)]
        self._world = TwinState._make(changed)

    def _draw(self) -> Scenario:
        return self.range.sample(self._rng, self._rules.bank.duration_s, int(self._rules.samples))

    @property
    def _seconds(self) -> int:
        return int(self._conditions.mec_level.shape[1])

    def _seconds_of_range(self) -> int:
        return math.ceil(self.range.frames / self.range.fps[0] / LOAD_STEP_S) + 1


def _with_rows(old: np.ndarray, new: np.ndarray, at: tuple[Any, ...], picked: tuple[Any, ...]) -> np.ndarray:
    """A copy of ``old`` with what is picked of ``new`` in place of some rows."""
    changed = old.copy()
    changed[at] = new[picked]
    return changed
