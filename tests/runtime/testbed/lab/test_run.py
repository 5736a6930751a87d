"""What devices of a lab are told, and the fairness between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller.predict.uplink import Trace, TraceBank
from controller.scenario import Scenario, ScenarioRange
from runtime.testbed.lab.run import Played, jain_index

BANK = TraceBank([Trace("t", np.zeros(1), np.array([1e6]), 1.0)])


def test_jains_index_is_one_for_equals_and_one_nth_for_one_alone() -> None:
    assert jain_index([0.5, 0.5, 0.5]) == 1
    assert jain_index([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain_index([0.9, 0.3]) == pytest.approx(1.2**2 / (2 * 0.9))
    assert jain_index([0.0, 0.0]) == 1


def test_devices_share_their_conditions_and_nothing_random() -> None:
    played = Played(Scenario(frames=100, seed=7), ScenarioRange(), BANK, "garments", Path("b"), None, "greedy")
    one, other = (played.device_options(number, "tcp://10.78.0.2:5") for number in (0, 1))
    differ = {one[place - 1] for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b}
    assert differ == {"--seed", "--start"}
    assert one[one.index("--controller") + 1] == "greedy"
    assert "--profile" not in one
