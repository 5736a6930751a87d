"""The calibrated emulation: thousands of devices without a socket, a clock or a network.

``Twin`` owns every environment of the batch and the generator that draws their scenarios; what becomes of one frame
is told in ``envs.twin.frame``. Given scenarios run exactly as given, with the same noise for every controller, so that
controllers can be compared frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, Literal, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.loads import LOAD_STEP_S
from controller.predict.uplink import TraceBank
from controller.records import Bools, Floats, Ints, SystemState
from controller.regions import MOST_AGE
from controller.scenario import Scenario, ScenarioRange
from envs.twin import drive, features
from envs.twin.conditions import conditions_of
from envs.twin.observe import SEEN
from envs.twin.record import RECORD, Reused, StepRecord
from envs.twin.regions import whole_ages
from envs.twin.reuse import Shortcuts
from envs.twin.shortcut import TableShortcut
from envs.twin.state import Environment, empty_batch, part_of
from envs.twin.tables import TwinCalibration, TwinTables, aged_score, make_tables
from envs.twin.threads import over_threads
from runtime.bundles.recorded import Recorded
from runtime.codecs.streams import KEPT_REFERENCES, MOST_STREAMS

features.install()
Reward = Literal["replayed", "expected"]
DEFAULT_CALIBRATION = TwinCalibration()


#: Episodes that are drawn at a time.
STOCK = 64


class _Begun(NamedTuple):
    """Episodes at their first decision point."""

    scenarios: Sequence[Scenario]
    batch: Environment


class Twin:
    """A batch of emulated devices. Owns their state and the generator of their scenarios.

    ``reward="expected"`` pays the table's accuracy where ``"replayed"`` pays the recorded score of the sample:
    the same mean with less variance. ``oracle`` fills ``SystemState.true_latency_s``. ``shortcuts`` may answer a frame
    before it is decided.
    """

    def __init__(
        self,
        costs: CostTable,
        bank: TraceBank,
        recorded: Recorded,
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
        self._shortcuts = Shortcuts(shortcuts, batch)
        self._rng = np.random.default_rng(seed)
        self._tables = make_tables(
            costs,
            bank,
            recorded,
            range.utility,
            calibration,
            queue_limit=range.queue_limit,
            replayed=reward == "replayed",
            shortcuts=shortcuts,
        )
        self._bank = bank
        self._stock: _Begun | None = None
        self._used = 0  # of the stock
        self._environments: Environment

    def seed(self, seed: int) -> None:
        """Draw the scenarios to come from this seed."""
        self._rng = np.random.default_rng(seed)
        self._stock = None

    def reset(self, rows: Bools | None = None, scenarios: Sequence[Scenario] | None = None) -> SystemState:
        """Begin an episode in the given rows (B,) (all of them by default), with the given scenarios or drawn ones."""
        if rows is not None and np.shape(rows) != (self.batch,):
            raise UsageError(f"got rows of shape {np.shape(rows)}; expected ({self.batch},), one truth value for each")
        chosen = np.arange(self.batch) if rows is None else np.flatnonzero(rows)
        if scenarios is not None and len(scenarios) != len(chosen):
            raise UsageError(f"got {len(scenarios)} scenarios; expected one for each of {len(chosen)} rows")
        if rows is None:
            first = scenarios if scenarios is not None else self.draw(len(chosen))
            seconds = max(self._seconds_of_range(), *(scenario.load_steps for scenario in first))
            begun = self._begin(first, seconds)
            self.scenarios, self._environments, self._stock = list(first), begun.batch, None
        elif scenarios is not None:
            self._replace(chosen, self._begin(scenarios, self._seconds), 0)
        else:
            for part in [chosen] if len(chosen) <= STOCK else np.array_split(chosen, -(-len(chosen) // STOCK)):
                self._replace(part, *self._from_stock(len(part)))
        self._shortcuts.begin(self._tables, self._environments, chosen)
        return self._observe()

    def step(self, rows: Ints) -> tuple[SystemState, StepRecord]:
        """Decide one frame in every environment: ``rows`` (B,) of the cost table.

        The state is that of the next decision point. Where the record says ``done`` that frame belongs to no
        episode any more: reset those rows.
        """
        t, batch, rows = self._tables, self._environments, np.ascontiguousarray(rows, np.int64)
        if rows.shape != (self.batch,):
            raise UsageError(f"got rows of shape {rows.shape}; expected ({self.batch},), a row of the cost table each")
        records, (seen, age) = np.zeros(self.batch, RECORD), self._unseen()
        skipped = np.empty((self.batch, self.costs.longest_stride - 1))
        passed: Reused | None = None
        if self._shortcuts:
            drive.run_frames(t, batch, rows, records, skipped)
            passed = self._shortcuts.ask(t, batch, records)
            drive.settle_frames(t, batch, records)
            drive.observe_all(t, batch, seen, age)
        else:
            over_threads(drive.step_frames, t, batch, rows, records, skipped, seen, age)
        return self._state(seen, age), StepRecord(records, skipped, passed, t)

    def fork(self, rows: Ints) -> tuple[Twin, SystemState]:
        """A twin of devices that go on from where ``rows`` (N,) of this one stand, and their present state.

        A row that is named several times becomes several devices of equal luck. The fork knows no oracle and is not to
        be reset: its devices play their episodes to the end.
        """
        fork = copy(self)
        fork.batch, fork.oracle = len(rows), False
        fork.scenarios = [self.scenarios[row] for row in rows]
        fork._environments = part_of(self._environments, rows)
        fork._shortcuts = self._shortcuts.taken(rows)
        return fork, fork._observe()

    @property
    def has_shortcuts(self) -> bool:
        """Whether anything may answer a frame before it is decided."""
        return bool(self._shortcuts)

    @property
    def answers(self) -> Any:
        """(B, kept) ANSWER of each device, the newest frame first; those that are not out yet included."""
        return self._environments.answers

    @property
    def parts(self) -> tuple[TwinTables, Environment]:
        """What compiled code plays from here on: the tables, and the environments as they stand. UsageError with
        shortcuts, which are not among them."""
        if self._shortcuts:
            raise UsageError("got a twin with shortcuts; expected one without: compiled code cannot ask them")
        return self._tables, self._environments

    @property
    def frame(self) -> Ints:
        """(B,) to be decided next, in its episode."""
        return np.array(self._environments.state["frame"])

    @property
    def frames_left(self) -> Ints:
        """(B,) frames of each episode from the present decision point on."""
        return np.asarray(self._environments.conditions["frames"] - self.frame)

    @property
    def samples(self) -> int:
        """How many were recorded."""
        return self._tables.samples

    def aged_score(self, rows: Ints, samples: Ints, lags: Ints) -> Floats:
        """What the answers of ``rows`` to ``samples`` score for the frames so many later, as the reward counts it."""
        return np.asarray(aged_score(self._tables, rows, samples, lags))

    def _observe(self) -> SystemState:
        seen, age = self._unseen()
        drive.observe_all(self._tables, self._environments, seen, age)
        return self._state(seen, age)

    def _unseen(self) -> tuple[Any, Ints]:
        """Memory for what is observed: SEEN (B,), and ages of references (B, streams)."""
        return np.empty(self.batch, SEEN), np.empty((self.batch, self.costs.streams), np.int64)

    def _state(self, seen: Any, age: Ints) -> SystemState:
        known = None
        if self.oracle:
            known = np.empty((self.batch, len(self.costs)))
            scratch = np.empty(self.batch, RECORD)
            over_threads(drive.look_ahead, self._tables, self._environments, scratch, known)
        columns = {name: seen[name] for name in SEEN.names or ()}
        return SystemState(
            **columns,
            true_latency_s=known,
            reference_age=age if self.costs.streams else None,
            whole_age=None if self.costs.crops is None else whole_ages(self._tables, self._environments),
        )

    def _begin(self, scenarios: Sequence[Scenario], seconds: int) -> _Begun:
        if (most := max((scenario.trace_index for scenario in scenarios), default=0)) >= len(self._tables.traces):
            raise UsageError(f"got a scenario on trace {most} of {len(self._tables.traces)}; expected a lower number")
        # One answer for each request in flight and for each fallback that waits for another: the newest that is out is
        # among them.
        in_flight = self.range.max_in_flight
        answers = 2 * in_flight + 1 if self._tables.reuses else 0
        if self.costs.crops is not None:  # the answer that crops refer to is behind theirs
            answers += MOST_AGE
        streams = min(self.costs.streams, MOST_STREAMS)
        conditions = conditions_of(scenarios, self.costs.neighbour_mec_s)
        batch = empty_batch(conditions, seconds, in_flight, answers, streams, KEPT_REFERENCES)
        drive.begin_episodes(self._tables, batch)
        return _Begun(scenarios, batch)

    def _from_stock(self, count: int) -> tuple[_Begun, int]:
        """The place of ``count`` episodes among those drawn beforehand: drawing one by one costs several times as
        much."""
        if self._stock is None or self._used + count > STOCK:
            self._stock, self._used = self._begin(self.draw(STOCK), self._seconds), 0
        self._used += count
        return self._stock, self._used - count

    def _replace(self, rows: Ints, begun: _Begun, first: int) -> None:
        """Put what was begun, from number ``first`` on, in place of the given rows."""
        for k, row in enumerate(rows.tolist()):
            self.scenarios[row] = begun.scenarios[first + k]
        drive.replace_episodes(self._tables, self._environments, rows, begun.batch, first)

    def draw(self, count: int) -> list[Scenario]:
        """The next ``count`` scenarios of the generator."""
        return [self.range.sample(self._rng, self._bank, self._tables.samples) for _ in range(count)]

    @property
    def _seconds(self) -> int:
        return int(self._environments.mec_level.shape[1])

    def _seconds_of_range(self) -> int:
        return math.ceil(self.range.frames / self.range.fps[0] / LOAD_STEP_S) + 1
