"""The predictor of transfer times: quantiles in order, whatever the scale of the link, and weights that are checked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.synthetic import make_costs, make_state

from controller.controllers.registry import make_controller
from controller.errors import UsageError
from controller.predict.transfer import LEVELS, TransferPredictor, default_predictor
from controller.records import Floats, SystemState
from controller.utility import Utility

SIZES = np.array([200.0, 1e4, 3e5])


def some_predictor(seed: int = 0) -> TransferPredictor:
    """Random weights, of the size that training gives them."""
    rng = np.random.default_rng(seed)
    shapes = [(24, 8), (2, 8), (8,), (8, len(LEVELS)), (len(LEVELS),)]
    return TransferPredictor(*(0.3 * rng.standard_normal(shape).astype(np.float32) for shape in shapes))


def quantiles(predictor: TransferPredictor, state: SystemState, sizes: Floats = SIZES, delay_s: float = 0.1) -> Floats:
    shape = (state.batch, len(sizes))
    return predictor.quantiles(state, np.broadcast_to(sizes, shape), np.full(shape, delay_s))


def test_quantiles_are_positive_and_ascend() -> None:
    found = quantiles(some_predictor(), make_state(50))
    assert found.shape == (50, 3, len(LEVELS))
    assert (found > 0).all()
    assert (np.diff(found, axis=2) >= 0).all()


def test_a_share_of_the_link_and_of_the_bytes_takes_the_same_time() -> None:
    state = make_state(50)
    smaller = replace(state, uplink_bps=state.uplink_bps / 7, uplink_sample_bytes=state.uplink_sample_bytes / 7)
    found = quantiles(some_predictor(), state)
    np.testing.assert_allclose(quantiles(some_predictor(), smaller, SIZES / 7), found, rtol=1e-4)


def test_untrained_the_median_is_the_time_at_the_mean_rate() -> None:
    state = make_state(1, uplink_bps=2e6)
    median = quantiles(default_predictor(), state)[0, :, LEVELS.index(0.5)]
    np.testing.assert_allclose(median, SIZES * 8 / 2e6, rtol=1e-5)


@pytest.mark.parametrize("extreme", [0.0, 1e-9, 1e12])
def test_no_state_makes_a_prediction_that_is_not_a_number(extreme: float) -> None:
    state = make_state(5)
    wild = replace(
        state, uplink_bps=state.uplink_bps * extreme, uplink_sample_age_s=state.uplink_sample_age_s * extreme
    )
    assert np.isfinite(quantiles(some_predictor(), wild, np.array([0.0, 1e9]), 1e6)).all()


def test_weights_survive_being_written_as_json() -> None:
    predictor = some_predictor()
    again = TransferPredictor.from_tuning(predictor.as_tuning())
    for name in predictor.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(predictor, name))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hidden": 9}, "got 315 weights; expected 353"),
        ({"weights": "AAA"}, "expected hidden and weights"),
        ({"weights": "//8="}, "expected hidden and weights"),
        ({"hidden": 10**9}, "got 315 weights"),
        ({"hidden": -1}, "got 315 weights"),
        ({"hidden": "many"}, "expected hidden and weights"),
        ({"weights": None}, "expected hidden and weights"),
    ],
)
def test_malformed_weights_are_refused(change: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=f"transfer predictor: .*{expected}"):
        make_controller("fugu-mpc", make_costs(), Utility(), {"predictor": some_predictor().as_tuning() | change})


def test_weights_that_are_not_numbers_are_refused() -> None:
    broken = replace(some_predictor(), bias=np.full(8, np.nan, np.float32))
    with pytest.raises(UsageError, match="expected 315 finite ones"):
        TransferPredictor.from_tuning(broken.as_tuning())
