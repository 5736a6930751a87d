"""How does a learned policy act as a controller? Through the same numpy pass that the daemon runs."""

from __future__ import annotations

from stable_baselines3 import PPO

from agents.policy import CandidatePolicy
from agents.world import World
from controller.base import Controller
from controller.registry import make_controller


def pilot_of(model: PPO, world: World, batch: int) -> Controller:
    """The learner's present weights, frozen, deciding ``batch`` rows greedily."""
    policy = model.policy
    assert isinstance(policy, CandidatePolicy)
    return make_controller("ppo", world.costs, world.range.utility, policy=policy.frozen(), batch=batch)
