"""The predictor of transfer times learns from transfers of the twin."""

from __future__ import annotations

import numpy as np
import pytest

from agents.compare import transfers
from agents.compare.transfers import Transfers, collect, fit
from controller.predict.transfer import LEVELS, default_predictor
from controller.predict.uplink import TraceBank
from controller.scenario import ScenarioRange
from envs.setup import Setup, open_setup
from runtime.testbed.markov_traces import builtin_traces


@pytest.fixture(scope="module")
def setup() -> Setup:
    few = TraceBank(builtin_traces("train").traces[::12])
    return open_setup("garments", few, "validation", ScenarioRange(frames=60))


@pytest.fixture(scope="module")
def learned(setup: Setup) -> Transfers:
    return collect(setup, 32, seed=1)


def test_a_transfer_is_drawn_at_every_decision_point(learned: Transfers) -> None:
    assert len({len(column) for column in learned}) == 1
    assert 32 * 40 < len(learned.trace) <= 32 * 60
    assert all(np.isfinite(column).all() for column in learned)


def test_training_covers_what_it_promises(learned: Transfers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "_BATCH", 128)
    predictor = fit(learned)
    found = predictor.log_ratio(learned.history, learned.payload[:, None])[:, 0]
    below = (learned.log_ratio[:, None] <= found).mean(axis=0)
    np.testing.assert_allclose(below, LEVELS, atol=0.1)
    untrained = default_predictor().log_ratio(learned.history, learned.payload[:, None])[:, 0]
    width = np.abs(found - learned.log_ratio[:, None]).mean()
    assert width < np.abs(untrained - learned.log_ratio[:, None]).mean()


def test_equal_seeds_give_equal_weights(learned: Transfers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "_EPOCHS", 1)
    assert fit(learned, seed=3).as_tuning() == fit(learned, seed=3).as_tuning()
    assert fit(learned, seed=3).as_tuning() != fit(learned, seed=4).as_tuning()
