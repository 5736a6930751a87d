"""Regions of interest: a device that really runs the models, in simulated time, and the twin end every frame alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.cropped import (
    CROPPED,
    CROPPED_STRIDE,
    FAST,
    LOCAL,
    SENT,
    SENT_CROP,
    CroppedSimulation,
    cropped_costs,
    cropped_recorded,
    every_row,
)
from support.same_episode import QUIET, assert_rows_play_alike
from support.simulated import RTT_S
from support.synthetic import make_state

from controller.controllers.registry import make_controller
from controller.crops import WHOLE, columns_of, cycle
from controller.errors import UsageError
from controller.predict.uplink import Trace, TraceBank
from controller.records import STATUSES, Status
from controller.regions import MOST_AGE
from controller.scenario import ScenarioRange
from controller.utility import Utility
from envs.techniques import Techniques
from envs.twin.record import StepRecord
from envs.twin.twin import Twin
from runtime.bundles.bundle import open_bundle
from runtime.profiling.profile import candidates
from runtime.regions.recording import AGES

#: Scores are recorded in 255ths.
STEP = 0.51 / 255


def played(sim: CroppedSimulation, rows: np.ndarray) -> list[StepRecord]:
    assert sim.recorded is not None
    twin = Twin(sim.costs, sim.bank, sim.recorded, ScenarioRange(), calibration=QUIET)
    twin.reset(scenarios=[replace(sim.scenario, rtt_s=RTT_S, mec_slowdown=1.0)])
    records: list[StepRecord] = []
    while not records or not records[-1].done[0]:
        records.append(twin.step(rows[len(records)][None])[1])
    return records


@pytest.mark.parametrize(
    "rows",
    [
        [CROPPED],
        [SENT_CROP],
        [CROPPED_STRIDE],
        [LOCAL, SENT_CROP, CROPPED, SENT, CROPPED, SENT_CROP, FAST, CROPPED_STRIDE],
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"times": 9.0}, {"uplink_bps": [3e5]}], ids=["fast", "slow", "narrow"])
def test_device_and_twin_end_every_frame_alike(rows: list[int], options: dict[str, Any]) -> None:
    sim, chosen = CroppedSimulation(**options), np.resize(rows, 60)
    sim.compute.STEPS = 400
    outcomes = sim.run(lambda number: int(chosen[number]))
    records = played(sim, chosen)
    ran = {outcome.frame: outcome for outcome in outcomes if outcome.status.ran}
    assert [int(record.frame[0]) for record in records] == list(ran)
    for record in records:
        outcome = ran[int(record.frame[0])]
        assert outcome.status == STATUSES[int(record.status[0])]
        assert outcome.decision == sim.costs.space.decisions[int(record.row[0])]
        assert outcome.latency_ms == pytest.approx(1e3 * record.latency_s[0], abs=5.0)  # probes of a narrow link
        assert outcome.payload_bytes == record.payload_bytes[0]
        assert outcome.score == pytest.approx(record.score[0], abs=STEP)
    assert any(outcome.region is not None for outcome in outcomes)


def test_a_state_says_how_old_the_answer_is_that_a_crop_would_refer_to() -> None:
    sim, chosen = CroppedSimulation(frames=30), np.resize([LOCAL, CROPPED, CROPPED, CROPPED, CROPPED], 30)
    sim.run(lambda number: int(chosen[number]))
    device = [0 if state.whole_age is None else int(state.whole_age[0]) for state in sim.states]
    twin = Twin(sim.costs, sim.bank, cropped_recorded(), ScenarioRange(), calibration=QUIET)
    state = twin.reset(scenarios=[replace(sim.scenario, rtt_s=RTT_S, mec_slowdown=1.0)])
    ages, confidence = [], []
    for row in chosen[: len(device)]:
        assert state.whole_age is not None
        assert state.confidence is not None
        ages.append(int(state.whole_age[0]))
        confidence.append(float(state.confidence[0]))
        state, _ = twin.step(row[None])
    assert ages == device
    assert confidence == pytest.approx([float(state.confidence[0]) for state in sim.states], abs=0.01, nan_ok=True)
    assert set(ages[1:]) == {1, 2, 3, 4, 5}


def test_the_whole_picture_is_run_when_its_last_answer_is_too_old() -> None:
    records = played(sim := CroppedSimulation(frames=40), np.full(40, CROPPED))
    whole = [int(record.frame[0]) for record in records if record.row[0] == LOCAL]
    assert whole == list(range(0, 40, MOST_AGE + 1))
    assert {int(record.row[0]) for record in records} == {LOCAL, CROPPED}
    assert sim.costs.whole_row[CROPPED] == LOCAL


def test_fallbacks_run_the_whole_picture() -> None:
    sim = CroppedSimulation(6.0, frames=20)
    sim.mec.reachable = False
    outcomes = sim.run(lambda _: SENT_CROP)
    fallen = [outcome for outcome in outcomes if outcome.status is Status.FALLBACK]
    assert fallen
    assert all(o.region is None and o.decision is not None and o.decision.crop == 0 for o in fallen)


def test_expected_scores_are_what_the_validation_split_replays() -> None:
    costs, recorded = every_row(), cropped_recorded()
    assert costs.crops is not None
    variant = costs.crops.paths.space.variant[costs.crops.path]  # (K, A)
    np.testing.assert_allclose(
        recorded.score[variant].mean(axis=2), costs.crops.paths.accuracy[costs.crops.path], atol=1e-6
    )
    for k, row in enumerate(costs.crops.row):
        columns = cycle(costs.crops.ages, int(costs.space.frame_stride[row]))
        assert costs.accuracy[row] == pytest.approx(recorded.score[variant[k, columns]].mean(), abs=1e-6)


def test_ages_between_those_that_were_recorded_count_as_the_next_older_one() -> None:
    ages = np.array([1, 2, 3, 5, 8])
    assert columns_of(ages).tolist() == [WHOLE, 0, 1, 2, 3, 3, 4, 4, 4]
    assert cycle(ages, 3).tolist() == [2, 4]
    crops = every_row().crops
    assert crops is not None
    assert crops.column(np.array([0, 1, 8, 9, 500])).tolist() == [WHOLE, 0, 7, WHOLE, WHOLE]


def test_a_table_at_an_age_differs_in_the_scores_of_crops_alone() -> None:
    costs = cropped_costs()
    assert costs.crops is not None
    for column, table in enumerate(costs.at_whole_age):
        plain = ~costs.space.cropped
        np.testing.assert_array_equal(table.accuracy[plain], costs.accuracy[plain])
        np.testing.assert_array_equal(table.head_s, costs.head_s)
        if column == len(AGES):
            np.testing.assert_array_equal(table.accuracy, costs.accuracy[costs.whole_row])
        else:
            wanted = costs.crops.paths.accuracy[costs.crops.path[:, column]]
            np.testing.assert_array_equal(table.accuracy[costs.crops.row], wanted)


def test_a_controller_runs_the_whole_picture_when_its_last_answer_is_old() -> None:
    """With scores of crops that fall with the age, from above that of the whole picture to below."""
    plain = cropped_costs().take(np.array([LOCAL, CROPPED, FAST]))
    assert plain.crops is not None
    paths, worth = plain.crops.paths, np.array([0.99, 0.97, 0.96, 0.95, 0.5, 0.4, 0.4, 0.3])
    accuracy = np.tile(worth, len(plain.crops.row))
    aged = replace(paths, accuracy=accuracy, lagged_accuracy=np.repeat(accuracy[:, None], 10, axis=1))
    costs = replace(plain, crops=replace(plain.crops, paths=aged))
    state = make_state(40, seed=3)
    state = replace(state, deadline_s=np.full(40, 9.0), device_slowdown=np.ones(40), link_up=np.zeros(40, bool))
    controller = make_controller("greedy", costs, Utility())
    for age, cropped in ((1, True), (3, True), (5, False), (8, False), (9, False), (0, False)):
        rows = controller.decide(replace(state, whole_age=np.full(40, age)))
        assert (costs.space.cropped[rows] == cropped).all(), age
    ages = np.arange(40) % 10
    mixed = controller.decide(replace(state, whole_age=ages))
    one_by_one = [controller.decide(replace(state, whole_age=ages).take(np.array([b])))[0] for b in range(40)]
    assert mixed.tolist() == one_by_one
    controller.decide(state)  # nobody says how old it is: the steady state


def test_crops_belong_to_what_suits_the_application() -> None:
    techniques = Techniques(crops=(0.75,), forecast=True)
    assert any("roi" in note for note in techniques.notes)
    assert techniques.without({"application"}) == Techniques(forecast=False)
    assert techniques.without({"filter", "partition"}) == techniques


def test_candidates_are_those_of_before_and_some_crops_with_their_whole_pictures() -> None:
    usual, every = open_bundle("campus").default_range, every_row()
    before = candidates(every.take(np.flatnonzero(every.space.plain)), usual)
    now = candidates(every, usual)
    assert set(before.space.decisions) <= set(now.space.decisions)
    cropped = [decision for decision in now.space.decisions if decision.crop]
    assert 0 < len(cropped) <= 16
    assert {decision.whole for decision in cropped} <= set(now.space.decisions)
    assert len(now) - len(before) <= 2 * len(cropped)


def test_cropped_rows_change_nothing_for_the_others() -> None:
    costs = cropped_costs()
    rows = np.flatnonzero(~costs.space.cropped)
    alone = costs.take(rows)
    assert alone.crops is None
    assert_rows_play_alike((alone, costs), cropped_recorded(), enumerate(rows))


def test_a_twin_without_recorded_crops_refuses_cropped_rows() -> None:
    bank = TraceBank([Trace("one", np.arange(2.0), np.array([2e6, 2e6]), 1.0)])
    with pytest.raises(UsageError, match=r"no recorded (answers|bytes) of crops"):
        Twin(cropped_costs(), bank, replace(cropped_recorded(), crops=None), ScenarioRange())
