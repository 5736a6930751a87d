"""Frame intervals and ageing answers: what a decision is worth for all the frames that it answers."""

from __future__ import annotations

import numpy as np
import pytest
from stream import INTERVALS, stream_costs, stream_recorded

from controller.records import Decision
from runtime.bundle import open_bundle
from runtime.profile import load_costs
from runtime.recorded import MAX_LAG, load_recorded, save_recorded


def test_lagged_scores_survive_the_file(tmp_path):
    recorded = stream_recorded()
    save_recorded(tmp_path / "table.safetensors", recorded, [0, 1, 1, 1])
    loaded = load_recorded(tmp_path / "table.safetensors", *recorded.score.shape)
    assert loaded.lagged is not None
    assert loaded.lagged.shape == (MAX_LAG, *recorded.score.shape)
    np.testing.assert_allclose(loaded.lagged, recorded.lagged, atol=1e-6)
    np.testing.assert_array_equal(loaded.lagged_score(3), loaded.lagged[2])


def test_an_answer_older_than_the_last_lag_keeps_that_ones_score():
    recorded = stream_recorded()
    np.testing.assert_array_equal(recorded.lagged_score(MAX_LAG + 7), recorded.lagged_score(MAX_LAG))


def test_garments_has_no_lags_and_one_interval():
    bundle = open_bundle("garments")
    recorded = bundle.recorded("validation")
    assert recorded.lagged is None
    assert recorded.lagged_score(4) is recorded.score
    costs = load_costs(bundle)
    assert bundle.space.column("frame_interval") == (1,)
    assert costs.longest_interval == 1
    np.testing.assert_array_equal(costs.worth, costs.accuracy)


def test_a_row_is_worth_the_mean_over_its_lags():
    costs, recorded = stream_costs(), stream_recorded()
    row = costs.space.index(Decision("net", 384, 1, 2, "u1", 3))
    later = [float(recorded.lagged_score(lag)[3].mean()) for lag in (1, 2)]
    assert costs.worth[row] == pytest.approx((costs.accuracy[row] + sum(later)) / 3, abs=1e-6)


def test_an_answer_that_comes_late_leaves_older_boxes_to_the_frames_before_it():
    costs, recorded = stream_costs(), stream_recorded()
    row = costs.space.index(Decision("net", 384, 1, 2, "u1", 3))
    first = recorded.lagged_score(1)[3].mean() - recorded.lagged_score(4)[3].mean()  # one interval older
    assert costs.stale_losses[0][row] == pytest.approx(float(first), abs=1e-6)
    assert costs.stale_losses[2][row] == 0  # only two frames are skipped


def test_intervals_are_pinned_and_digested():
    space = stream_costs().space
    default = Decision("net", 384, 1, 2, "u1")
    assert space.column("frame_interval") == INTERVALS
    assert space.decisions[space.pin({}, default)].frame_interval == 1
    assert space.decisions[space.pin({"frame_interval": 5}, default)] == Decision("net", 384, 1, 2, "u1", 5)
    assert stream_costs((1, 2)).space.digest != stream_costs((1, 3)).space.digest
