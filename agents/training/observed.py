"""The ranges of what a policy sees in its training, which its file states for the guard of a device."""

from __future__ import annotations

import numpy as np

from agents.compare.rollout import play, scenarios_on
from controller.controllers.expected_utility import DEFAULT_ESTIMATE, ExpectedUtility
from controller.controllers.learned import FrozenPolicy, Policy
from controller.costs import CostTable
from controller.features.remembered import RememberedFeatures
from controller.features.schema import CONTEXT_FEATURES
from controller.guard.ranges import Ranges, ranges_of
from controller.records import Bools, Ints, SystemState
from controller.utility import Utility
from envs.setup import Setup

#: Episodes on the training traces; their seed is none of a training or of a judge.
EPISODES = 128
_SEED = 40_000


class Observer:
    """Owns the least and the largest context features of the states that it was shown."""

    def __init__(self, costs: CostTable, utility: Utility) -> None:
        self.features = RememberedFeatures(costs, utility)
        self.least, self.most = (np.full(len(CONTEXT_FEATURES), side * np.inf, np.float32) for side in (1.0, -1.0))

    def watch(self, state: SystemState, _: Ints, running: Bools) -> None:
        """Take in the states (B,) of the episodes that are ``running``: one that is over moves on without captures,
        and comes to states that no device sees."""
        context = self.features.of(state)[0][running]
        self.least, self.most = np.minimum(self.least, context.min(axis=0)), np.maximum(self.most, context.max(axis=0))


def observed_ranges(setup: Setup, policy: FrozenPolicy, episodes: int = EPISODES) -> Ranges:
    """What ``policy`` sees on the traces of ``setup``, and what the rule sees that training starts from: a policy
    explores while it learns, and the rule goes other ways than the policy does at its end."""
    scenarios = scenarios_on(setup, episodes, _SEED)
    observer = Observer(setup.costs, setup.range.utility)
    rule = ExpectedUtility(setup.costs, setup.range.utility, DEFAULT_ESTIMATE, observer.features)
    for controller in (Policy(policy, observer.features), rule):
        play(setup, controller, scenarios, watch=observer.watch)
    return ranges_of(observer.least, observer.most)
