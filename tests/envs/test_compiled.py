"""The compiled twin does what its source says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support import aged_streams
from support.plain_features import plain_features
from support.stream import stream_costs, stream_recorded
from support.synthetic import make_costs, make_state
from support.table_shortcuts import EveryThird
from support.twins import WIDE, recorded, table, traces

from controller.costs import CostTable
from controller.features.fast import Features
from controller.records import Ints, SystemState
from controller.scenario import Scenario
from controller.utility import Utility
from envs.twin import drive, reuse
from envs.twin.link import finish_s
from envs.twin.record import RECORD, StepRecord
from envs.twin.twin import Twin
from runtime.compiler import Compiled

FRAMES, BATCH = WIDE.frames, 16


class TestAgainstItsSource:
    """The same functions, run by Python itself."""

    @pytest.mark.parametrize("seed", range(4))
    def test_every_frame_and_every_state_agree(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compare(table(seed=seed), recorded(table(seed=seed), seed), seed, monkeypatch)

    @pytest.mark.parametrize("seed", range(2))
    def test_they_agree_where_frames_are_skipped(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compare(stream_costs(), stream_recorded(), seed, monkeypatch)

    @pytest.mark.parametrize("seed", range(2))
    def test_they_agree_where_payloads_refer_to_earlier_ones(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compare(aged_streams.costs(), aged_streams.recorded(), seed, monkeypatch)

    def test_they_agree_where_a_shortcut_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compare(stream_costs(), stream_recorded(), 2, monkeypatch, shortcuts=[EveryThird()])

    def compare(
        self, costs: CostTable, scores: Any, seed: int, monkeypatch: pytest.MonkeyPatch, **options: Any
    ) -> None:
        """Play random rows on random scenarios in both."""
        rng = np.random.default_rng(seed)
        range_ = dataclasses.replace(WIDE, queue_limit=1, max_in_flight=2) if seed % 2 else WIDE
        scenarios = [range_.sample(rng, traces(), scores.score.shape[1]) for _ in range(BATCH)]
        rows = self.rows(costs, rng)
        twin = Twin(costs, traces(seed=seed), scores, range_, BATCH, oracle=True, **options)
        quick = self.play(twin, scenarios, rows)
        for room in (drive, reuse):
            for name, function in list(vars(room).items()):
                if isinstance(function, Compiled):
                    monkeypatch.setattr(room, name, function.plain)
        for (state, record), (plain_state, plain) in zip(quick, self.play(twin, scenarios, rows), strict=True):
            for field in dataclasses.fields(SystemState):
                if getattr(state, field.name) is not None:
                    self.assert_close(field.name, getattr(state, field.name), getattr(plain_state, field.name))
            for name in RECORD.names or ():
                self.assert_close(name, record.records[name], plain.records[name])
            for one, other in zip(record.reused, plain.reused, strict=True):
                self.assert_close("reused", one, other)

    @staticmethod
    def rows(costs: CostTable, rng: np.random.Generator) -> Ints:
        """Some columns only offload, so that links and places fill up, or seldom do, so that idle links are probed; the
        others do anything."""
        rows = rng.integers(0, len(costs), (FRAMES, BATCH))
        rows[:, ::2] = rng.choice(np.flatnonzero(~costs.space.device_only), (FRAMES, BATCH // 2))
        local = rng.choice(np.flatnonzero(costs.space.device_only), (FRAMES, BATCH // 4))
        rows[:, 1::4] = np.where(rng.random((FRAMES, BATCH // 4)) < 0.95, local, rows[:, 1::4])
        return rows

    @staticmethod
    def play(twin: Twin, scenarios: list[Scenario], rows: Ints) -> list[tuple[SystemState, StepRecord]]:
        twin.reset(scenarios=scenarios)
        return [twin.step(row) for row in rows]

    @staticmethod
    def assert_close(name: str, one: Any, other: Any) -> None:
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_large_batch_gives_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def played(threads: int) -> list[tuple[SystemState, StepRecord]]:
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        twin = Twin(table(), traces(), recorded(table()), WIDE, 1_700, 5, oracle=True)
        rows, _ = np.random.default_rng(0).integers(0, len(table()), (12, 1_700)), twin.reset()
        return [twin.step(row) for row in rows]

    one, three = played(1), played(3)
    for (state, record), (other_state, other) in zip(one, three, strict=True):
        np.testing.assert_array_equal(record.records, other.records)
        for field in dataclasses.fields(SystemState):
            np.testing.assert_array_equal(getattr(state, field.name), getattr(other_state, field.name))


class TestAgainstWhatItStandsFor:
    @pytest.mark.parametrize(
        "costs", [make_costs(), stream_costs(), aged_streams.costs()], ids=["plain", "stream", "aged"]
    )
    def test_features_of_a_batch_are_the_formulas(self, costs: CostTable) -> None:
        state = aged_streams.with_ages(costs, make_state(400, seed=3))
        for one, other in zip(
            Features(costs, Utility()).of(state), plain_features(costs, Utility(), state), strict=True
        ):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)

    def test_transfers_end_when_the_shapers_do(self) -> None:
        twin, bank = Twin(table(), traces(), recorded(table()), WIDE), traces()
        rng = np.random.default_rng(0)
        trace, start, bits = rng.integers(0, len(bank), 500), rng.uniform(0, 500, 500), 10 ** rng.uniform(2, 9, 500)
        ends = [finish_s(twin._tables, *transfer) for transfer in zip(trace, start, bits, strict=True)]
        np.testing.assert_allclose(ends, bank.finish_s(trace, start, bits), rtol=1e-12)

    def test_loads_are_the_scenarios(self) -> None:
        twin = Twin(table(), traces(), recorded(table()), dataclasses.replace(WIDE, mec_load_frac=(0.0, 0.9)), 32, 1)
        twin.reset()
        for scenario, pace, level in zip(twin.scenarios, *twin._environments[-2:], strict=True):
            device, mec = scenario.device_load(), scenario.mec_load()
            np.testing.assert_array_equal(pace[: len(device)], 1 / (1 - device))
            np.testing.assert_array_equal(pace[len(device) :], 1 / (1 - device[-1]))
            np.testing.assert_array_equal(level[: len(mec)], np.rint(100 * mec))
