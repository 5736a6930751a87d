"""PPO in which episodes of one scenario are each other's baseline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.learn.config import PpoConfig
from agents.learn.policy import CandidatePolicy
from agents.learn.ppo import learn_rollouts, make_ppo
from agents.learn.shared_traces import SharedTracePPO, shared_trace_advantages
from agents.runs.run_folder import TrainingConfig
from agents.training.ablations import ABLATIONS, ablated
from controller.controllers.learned import FrozenPolicy
from controller.errors import UsageError
from controller.scenario import ScenarioRange
from envs.setup import open_setup, traces_of
from envs.vec_env import TwinVecEnv

CONFIG = PpoConfig(minibatch=64, epochs=2, siblings=2, episodes=8)


def learner(workload: str = "garments", environments: int = 8, config: PpoConfig = CONFIG, frames: int = 20) -> object:
    torch.set_num_threads(1)
    setup = open_setup(workload, traces_of([], "train"), "validation", ScenarioRange(frames=frames))
    strides = setup.costs.longest_stride > 1
    return make_ppo(TwinVecEnv(setup.twin(environments, 3, reward="expected")), config, 3, strides=strides)


def frozen(model: SharedTracePPO) -> FrozenPolicy:
    assert isinstance(model.policy, CandidatePolicy)
    return model.policy.frozen()


class TestAdvantages:
    def test_are_discounted_differences_to_the_siblings_mean(self) -> None:
        utility = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])  # two siblings, three frames
        found = shared_trace_advantages(utility, 2, np.array([0, 0, 1]), np.array([0, 1, 2]), gamma=0.5)
        np.testing.assert_allclose(found, [0.5 + 0.25 * 1.0, 0.5 * 1.0, -1.0])

    def test_do_not_depend_on_what_all_siblings_earn(self) -> None:
        rng = np.random.default_rng(0)
        utility, shared = rng.random((6, 10)), np.repeat(rng.random((2, 10)), 3, axis=0)
        at = np.arange(6), np.arange(6)
        np.testing.assert_allclose(
            shared_trace_advantages(utility + shared, 3, *at, 0.9), shared_trace_advantages(utility, 3, *at, 0.9)
        )


class TestRollouts:
    @pytest.mark.parametrize("workload", ["garments", "campus"])
    def test_are_whole_episodes(self, workload: str) -> None:
        """The advantages at frame 0 of all siblings sum to zero, because their episodes all reach the end."""
        model = learner(workload)
        assert isinstance(model, SharedTracePPO)
        learn_rollouts(model, 1)
        advantages = model.rollout_buffer._advantages  # type: ignore[attr-defined]
        assert len(advantages) == model.num_timesteps <= model.most_steps
        np.testing.assert_allclose(advantages[:8].reshape(4, 2).sum(dim=1), 0.0, atol=1e-5)

    def test_change_the_actor_and_leave_the_critic(self) -> None:
        model = learner()
        assert isinstance(model, SharedTracePPO)
        critic = [parameter.clone() for parameter in model.policy.critic.parameters()]  # type: ignore[union-attr]
        before = frozen(model).linear.copy()
        learn_rollouts(model, 100)
        assert not np.array_equal(frozen(model).linear, before)
        for old, new in zip(critic, model.policy.critic.parameters(), strict=True):  # type: ignore[union-attr]
            torch.testing.assert_close(old, new)

    def test_of_equal_seeds_are_equal(self) -> None:
        def trained() -> np.ndarray:
            model = learner()
            assert isinstance(model, SharedTracePPO)
            learn_rollouts(model, 300)
            return frozen(model).linear

        np.testing.assert_array_equal(trained(), trained())

    def test_of_too_few_environments_have_a_critic_instead(self) -> None:
        assert not isinstance(learner(environments=1), SharedTracePPO)


def test_episodes_that_siblings_cannot_share_are_refused() -> None:
    with pytest.raises(UsageError, match="PPO episodes: got 6 with 4 siblings; expected a multiple"):
        PpoConfig(siblings=4, episodes=6)


class TestAblations:
    CONFIG = TrainingConfig("campus", 1000, 0)

    def test_each_leaves_out_its_part(self) -> None:
        found = {name: ablated(self.CONFIG, name) for name in ABLATIONS}
        assert found["no-branches"].warm_start.branches.rounds == 0
        assert found["no-warm-start"].warm_start.steps_frac == 0
        assert found["no-ppo"].warm_start.steps_frac == 1
        assert found["imitation-only"].warm_start.branches.expert_frac == 1
        assert found["no-split"].without == "split"
        rounds = {config.warm_start.all_rounds for config in found.values()}
        assert rounds == {self.CONFIG.warm_start.all_rounds}

    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(UsageError, match="no-brain"):
            ablated(self.CONFIG, "no-brain")
