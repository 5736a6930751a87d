"""Plays one episode on the simulated device and in the twin, and checks that every frame ends alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from controller.costs import CostTable
from controller.predict.uplink import Trace, TraceBank
from controller.records import STATUSES, Ints, Outcome, Status, SystemState
from controller.scenario import Scenario, ScenarioRange
from envs.twin.record import StepRecord
from envs.twin.shortcut import TableShortcut
from envs.twin.tables import TwinCalibration
from envs.twin.twin import Twin
from runtime.bundles.recorded import Recorded
from support.simulated import RTT_S, Simulation

#: The simulated device has no noise and no overhead.
QUIET = TwinCalibration(head_noise_frac=0.0, mec_noise_frac=0.0, overhead_s=0.0, decide_s=0.0)


def assert_same(sim: Simulation, rows: Ints, tables: Sequence[TableShortcut]) -> list[Outcome]:
    """Play ``rows`` (frames,), one per decision, on both; AssertionError where a status, score or utility differs.

    ``sim`` has the device halves of the shortcuts and recorded answers, ``tables`` are the halves of the twin in the
    same order. Returns the outcomes of the device, by frame.
    """
    sim.compute.STEPS = 400  # how often the device looks up while it computes; the twin does at every moment
    outcomes, (states, records) = sim.run(lambda number: int(rows[number])), _played(sim, rows, tables)
    statuses, scores = _endings(records)
    assert {o.frame: o.status for o in outcomes if not o.status.dropped} == statuses
    assert {o.frame: o.score for o in outcomes if o.status.reused} == pytest.approx(scores, abs=1e-6)
    assert sum(o.status.dropped for o in outcomes) == sum(int(r.dropped[0]) for r in records)
    reward = sum(float(r.reward[0]) for r in records)
    assert sum(o.utility or 0.0 for o in outcomes) == pytest.approx(reward, abs=1e-3)
    _assert_same_scenes(sim.states, states)
    return outcomes


def assert_rows_play_alike(
    tables: tuple[CostTable, CostTable], recorded: Recorded, pairs: Iterable[tuple[int, int]]
) -> None:
    """Play each pair of rows, of the first and of the second table, in twins; AssertionError where they differ."""
    bank = TraceBank([Trace("one", np.arange(4.0), np.array([2e6, 3e5, 1e6, 5e6]), 1.0)])
    scenarios = [Scenario(frames=40, device_slowdown=s, seed=i) for i, s in enumerate((2.0, 8.0, 20.0))]
    for rows in pairs:
        twins = [Twin(table, bank, recorded, ScenarioRange(), 3, calibration=QUIET) for table in tables]
        for twin in twins:
            twin.reset(scenarios=scenarios)
        for _ in range(20):
            one, two = (t.step(np.full(3, row))[1] for t, row in zip(twins, rows, strict=True))
            for name in ("status", "latency_s", "utility", "reward", "payload_bytes"):
                np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def _assert_same_scenes(device: Sequence[SystemState], twin: Sequence[SystemState]) -> None:
    """What the parts know of the scene at each decision."""
    for name in ("motion", "confidence", "reused_frac", "tracked_speed"):
        found, expected = ([float(getattr(state, name)[0]) for state in states] for states in (device, twin))
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-6, err_msg=name)


def _played(sim: Simulation, rows: Ints, tables: Sequence[TableShortcut]) -> tuple[list[SystemState], list[StepRecord]]:
    assert sim.recorded is not None, "the simulation needs recorded answers"
    twin = Twin(sim.costs, sim.bank, sim.recorded, ScenarioRange(), calibration=QUIET, shortcuts=tables)
    states = [twin.reset(scenarios=[dataclasses.replace(sim.scenario, rtt_s=RTT_S, mec_slowdown=1.0)])]
    records: list[StepRecord] = []
    while not records or not records[-1].done[0]:
        state, record = twin.step(np.asarray(rows)[len(records)][None])
        states.append(state)
        records.append(record)
    return states, records


def _endings(records: Sequence[StepRecord]) -> tuple[dict[int, Status], dict[int, float]]:
    """Status of every frame that was run or reuses an answer, and score of every reused answer."""
    statuses = {int(r.frame[0]): STATUSES[int(r.status[0])] for r in records}
    scores = dict[int, float]()
    for reused in (record.reused for record in records):
        statuses |= {int(f): STATUSES[reason] for f, reason in zip(reused.frame, reused.reason, strict=True)}
        scores |= {int(f): float(score) for f, score in zip(reused.frame, reused.score, strict=True)}
    return statuses, scores
