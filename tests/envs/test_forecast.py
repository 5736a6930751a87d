"""Reused answers that move on: the device, in simulated time, against the twin that replays recorded forecasts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.moving_answers import MOVED, MovedSimulation, Mover, recorded_with_forecast
from support.same_episode import assert_same
from support.simulated import Simulation
from support.stream import stream_costs, stream_recorded

from controller.errors import UsageError
from controller.forecast import Forecaster, Shown
from controller.records import BreakdownMs, Decision, Outcome, Status
from controller.reuse import PastAnswer, Reuse, past_answer
from controller.streaming import streaming_scores
from envs.setup import Setup, open_setup
from envs.techniques import Techniques
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.recorded import Recorded, load_recorded, save_recorded
from runtime.testbed.markov_traces import builtin_traces

FPS = 10.0


def simulation(forecaster: Forecaster | None, recorded: Recorded, times: float = 1.0, **options: Any) -> Simulation:
    costs = dataclasses.replace(stream_costs(), payload_std_bytes=np.zeros(len(stream_costs())))
    costs = dataclasses.replace(costs, head_s=times * costs.head_s)
    defaults: dict[str, Any] = {"frames": 12, "fps": FPS, "deadline_s": 0.3}
    return MovedSimulation(costs=costs, recorded=recorded, forecaster=forecaster, **(defaults | options))


@pytest.mark.parametrize("seed", range(4))
def test_every_frame_ends_in_the_twin_as_on_the_device(seed: int) -> None:
    """Random decisions over a random uplink: frames wait, are dropped, fall back, and answers overtake each other."""
    rng, recorded = np.random.default_rng(seed), recorded_with_forecast()
    options = {"fps": rng.uniform(8, 25), "deadline_s": rng.uniform(0.1, 0.3), "frames": 80}
    uplink_bps = list(np.exp(rng.normal(np.log(2e6), 0.6, 20)))
    sim = simulation(Mover(recorded.tracked_speed), recorded, times=8.0, uplink_bps=uplink_bps, **options)
    sim.recorded = recorded.with_forecast()  # what the twin replays
    outcomes = assert_same(sim, rng.integers(0, len(sim.costs), 80), [])
    reused = [outcome for outcome in outcomes if outcome.reused_frame is not None]
    assert reused
    for outcome in reused:
        assert outcome.prediction[-1] == MOVED
        assert outcome.track_ids == (outcome.reused_frame,)
    known = [np.isfinite([state.confidence[0], state.tracked_speed[0]]) for state in sim.states]
    assert np.any(known, axis=0).all()
    assert not np.all(known, axis=0)[1]


def test_without_a_forecaster_answers_stand_still_and_nothing_has_a_number() -> None:
    row = local_row(stride=3)
    outcomes = simulation(None, recorded_with_forecast()).run(lambda _: row)
    assert {outcome.track_ids for outcome in outcomes} == {None}
    assert outcomes[1].prediction == outcomes[0].prediction
    assert outcomes[1].score == pytest.approx(stream_recorded().lagged_score(1)[1, 0])


def local_row(stride: int) -> int:
    return stream_costs().space.index(Decision("net", 384, 1, 4, "none", stride))


def test_an_answer_moves_on_unless_it_is_of_a_cache_or_comes_after_a_newer_one() -> None:
    mover = Mover()
    newer, older = past_answer(5, 0.6, [1, 5], mover), past_answer(4, 0.7, [1, 4], mover)
    assert (newer.track_ids, older.track_ids) == ((5,), None)
    assert Reuse(Status.SKIPPED, newer).shown(7) == Shown([1, 5, MOVED], (5,))
    assert Reuse(Status.FILTERED, newer).shown(7) == Shown([1, 5, MOVED], (5,))
    assert Reuse(Status.CACHED, newer).shown(7) == Shown([1, 5])
    assert Reuse(Status.SKIPPED, older).shown(7) == Shown([1, 4])
    assert Reuse(Status.SKIPPED, None).shown(7) == Shown(None)
    assert PastAnswer(3, 0.4, "as ever").at(9) == Shown("as ever")


def test_a_viewer_sees_what_has_become_of_the_newest_answer() -> None:
    def outcome(frame: int) -> Outcome:
        return Outcome(frame, frame, Status.OK, 150.0, 500.0, 0, 0.0, 1.0, None, BreakdownMs(), [0, frame], frame, 1.0)

    outcomes = [outcome(frame) for frame in range(6)]

    def score(prediction: Any, truth: int) -> float:
        return 1.0 if prediction[-1] == MOVED else 0.5

    np.testing.assert_array_equal(streaming_scores(outcomes, 0.1, score), [0, 0, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(streaming_scores(outcomes, 0.1, score, Mover()), [0, 0, 1, 1, 1, 1])


def test_scores_and_speeds_of_forecasts_survive_the_file_and_older_files_have_none(tmp_path: Any) -> None:
    recorded = recorded_with_forecast()
    for table in (recorded, stream_recorded()):
        save_recorded(tmp_path / "table", table, [0, 1, 1, 1])
        loaded = load_recorded(tmp_path / "table", *table.score.shape, tuple(table.payload_bytes or ()))
        np.testing.assert_equal(loaded.lagged_forecast, table.lagged_forecast)
        np.testing.assert_array_equal(loaded.lagged, table.lagged)
        if table.tracked_speed is None:
            assert loaded.tracked_speed is None
        else:
            fastest = np.minimum(table.tracked_speed, 0.508)  # not a number stays
            np.testing.assert_allclose(loaded.tracked_speed, fastest, atol=0.001 + 1e-6)
    np.testing.assert_array_equal(recorded.with_forecast().lagged, recorded.lagged_forecast)


class WithoutForecasts(Bundle):
    """A bundle that is older than forecasts."""

    def recorded(self, split: str) -> Recorded:
        return dataclasses.replace(super().recorded(split), lagged_forecast=None, tracked_speed=None)


def older_campus() -> Bundle:
    return WithoutForecasts(open_bundle("campus").directory)


def opened(bundle: str | Bundle, forecast: bool | None) -> Setup:
    traces = builtin_traces("test")
    return open_setup(bundle, traces, "test", profile="shipped", techniques=Techniques(forecast=forecast))


def test_a_twin_of_a_bundle_without_scores_of_forecasts_refuses_them() -> None:
    with pytest.raises(UsageError, match="models add BUNDLE --forecast"):
        opened(older_campus(), True)
    with pytest.raises(UsageError, match="whose answers do not move"):
        opened("garments", True)


def test_answers_move_on_by_default_where_the_bundle_says_what_that_scores() -> None:
    assert not opened(older_campus(), None).techniques.forecast
    assert not opened("garments", None).techniques.forecast
    assert opened("campus", None).techniques.forecast
    assert not opened("campus", False).techniques.forecast
