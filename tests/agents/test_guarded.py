"""In the twin the guard costs a sound policy nothing, and wins back most of what a broken one loses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.compare.evaluation import Entrants, entrants_of
from agents.compare.rollout import paired_scenarios, play
from agents.training.observed import observed_ranges
from benchmarks.support.broken import noised
from controller.metrics import overall
from controller.shadow import Shadow
from envs.setup import Setup, open_setup, traces_of

RULE = "expected-utility"


@pytest.fixture(scope="module")
def setup() -> Setup:
    return open_setup("garments", traces_of(None, "test"), "test")


@pytest.fixture(scope="module")
def entrants() -> Entrants:
    return entrants_of("garments", f"ppo,{RULE},device-only")


def utility(setup: Setup, entrants: Entrants, name: str = "ppo") -> float:
    scenarios = paired_scenarios(setup, range(1))
    return overall(play(setup, entrants.make(name, setup, len(scenarios))[0], scenarios).frames)["utility"]


def test_a_sound_policy_is_as_good_with_its_guard(setup: Setup, entrants: Entrants) -> None:
    assert utility(setup, replace(entrants, guard=RULE)) == pytest.approx(utility(setup, entrants), abs=0.002)


def test_a_broken_policy_is_almost_as_good_as_its_guard(setup: Setup, entrants: Entrants) -> None:
    broken = replace(entrants, policies=[noised(entrants.policies[0], 1.0, 2)])
    alone, guarded = utility(setup, broken), utility(setup, replace(broken, guard=RULE))
    lost = utility(setup, entrants, RULE) - alone
    assert lost > 0.01
    assert guarded - alone > 0.6 * lost


def test_the_shipped_policy_states_the_ranges_that_training_shows(setup: Setup, entrants: Entrants) -> None:
    seen = observed_ranges(setup, entrants.policies[0], episodes=23)
    stated = entrants.ranges[0]
    assert sorted(seen) == sorted(stated)
    width = {name: high - low for name, (low, high) in stated.items()}
    inside = [
        stated[name][0] - 0.5 * width[name] <= low and high <= stated[name][1] + 0.5 * width[name]
        for name, (low, high) in seen.items()
    ]
    assert all(inside)


@pytest.mark.parametrize(("active", "candidate", "sign"), [("ppo", "device-only", -1), ("device-only", "ppo", 1)])
def test_a_shadow_knows_which_of_two_is_better(
    setup: Setup, entrants: Entrants, active: str, candidate: str, sign: int
) -> None:
    scenarios = paired_scenarios(setup, range(1))
    batch = len(scenarios)
    shadow = Shadow(candidate, entrants.make(candidate, setup, batch)[0], setup.costs, setup.range.utility)
    decider, twin = entrants.make(active, setup, batch)[0], setup.twin(batch)
    state, alive = twin.reset(scenarios=scenarios), np.ones(batch, bool)
    while alive.any():
        rows = decider.decide(state)
        shadow.look(state, rows, alive)
        state, record = twin.step(rows)
        alive = alive & ~record.done
    true = utility(setup, entrants, candidate) - utility(setup, entrants, active)
    estimated = shadow.notes()["modelled_difference"]
    assert np.sign(true) == sign
    assert np.sign(estimated) == sign
    assert 0.3 < estimated / true < 3.0
