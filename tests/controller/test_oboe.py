"""``oboe`` lets the controller of the present network state decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.synthetic import make_costs, make_state, row_of

from controller.controllers.bandwidth_states import default_states
from controller.controllers.oboe import NETWORK_STATES, Oboe
from controller.controllers.registry import make_controller
from controller.controllers.simple import FixedRow
from controller.errors import UsageError
from controller.records import SystemState
from controller.utility import Utility

COSTS = make_costs(12)
UTILITY = Utility()


def oboe(special: dict[str, int], batch: int = 1) -> Oboe:
    """Takes row 0, and in the named states other rows."""
    deciders = {state: FixedRow(state, row) for state, row in special.items()}
    return Oboe(COSTS, default_states(), FixedRow("usual", 0), deciders, hazard=0.02, threshold=0.5, batch=batch)


def on_link(bps: float, samples: int, deadline_s: float = 0.1) -> SystemState:
    return replace(make_state(uplink_bps=bps, deadline_s=deadline_s), uplink_sample_count=np.array([samples]))


def typical_bps(deadline_s: float) -> float:
    """On which half of the payloads cross within the deadline."""
    return float(np.median(COSTS.uplink_bytes[~COSTS.space.device_only])) * 8.0 / deadline_s


@pytest.mark.parametrize(("crossings", "level"), [(0.3, "scarce"), (2.0, "tight"), (5.0, "ample"), (100.0, "plenty")])
@pytest.mark.parametrize("deadline_s", [0.05, 0.5])
def test_the_level_is_relative_to_what_the_device_needs(crossings: float, level: str, deadline_s: float) -> None:
    controller = oboe({state: 3 for state in NETWORK_STATES if state.startswith(level)})
    state = on_link(crossings * typical_bps(deadline_s), 1, deadline_s)
    for samples in range(1, 10):
        row = controller.decide(replace(state, uplink_sample_count=np.array([samples])))
    assert row.tolist() == [3]


def test_noise_does_not_change_the_state_and_a_lasting_change_does() -> None:
    rng = np.random.default_rng(0)
    controller = oboe({state: 1 for state in NETWORK_STATES if state.startswith("scarce")})
    need = typical_bps(0.1)
    rows = []
    for frame in range(60):
        level = 2.0 if frame < 30 else 0.1
        bps = need * level * np.exp(0.3 * rng.standard_normal())
        rows.append(int(controller.decide(on_link(bps, frame + 1))[0]))
    assert set(rows[10:30]) == {0}
    assert set(rows[36:]) == {1}


def test_each_row_of_a_batch_has_its_own_state() -> None:
    tuning = {"map": {state: {"margin": 0.1} for state in NETWORK_STATES[:6]}}
    states = make_state(30, seed=4)
    together = make_controller("oboe", COSTS, UTILITY, tuning, batch=30).decide(states)
    alone = [int(make_controller("oboe", COSTS, UTILITY, tuning).decide(row_of(states, b))[0]) for b in range(30)]
    assert together.tolist() == alone


def test_without_a_map_it_is_its_base() -> None:
    states = make_state(50, seed=2)
    for base in ("greedy", "edgent"):
        own = {"margin": 0.7, "headroom_frac": 0.2}
        expected = make_controller(base, COSTS, UTILITY, own).decide(states)
        got = make_controller("oboe", COSTS, UTILITY, own | {"base": base}, batch=50).decide(states)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"base": "ppo"}, "unknown base of oboe 'ppo'; expected one of: greedy, edgent"),
        ({"map": {"windy": {}}}, "unknown network state of oboe 'windy'"),
        ({"map": {"scarce wild": {"marign": 1.0}}}, "unknown tunable of a network state 'marign'"),
        ({"map": {"scarce wild": {"kind": "median"}}}, "unknown estimator kind 'median'"),
    ],
)
def test_an_impossible_map_is_refused(wrong: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        make_controller("oboe", COSTS, UTILITY, wrong)
