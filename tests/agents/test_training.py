"""PPO comes close to a known optimum in seconds, the warm start teaches what pays, and a seed repeats a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.toy_env import ToyEnv, rewards, toy_states

from agents.compare.rollout import play, scenarios_on
from agents.learn.config import BranchConfig, PpoConfig, WarmStartConfig
from agents.learn.policy import CandidatePolicy
from agents.learn.ppo import make_ppo
from agents.learn.warm_start import penalised_utility, warm_start
from agents.runs.checkpoint import load_checkpoint, save_checkpoint
from controller.controllers.registry import make_controller
from controller.errors import UsageError
from controller.scenario import ScenarioRange
from envs.setup import Setup, open_setup
from envs.vec_env import TwinVecEnv
from runtime.testbed.markov_traces import builtin_traces

#: Of the optimum. The toy pays up to the deadline itself, while the features see it as the device does: less the
#: fallback's reserve, and with times that stray. Whoever follows them loses a hundredth or two near the boundary.
CLOSE_FRAC = 0.97
#: From noise instead of the rule that a policy starts as: otherwise there would be nothing to learn.
FROM_NOISE = PpoConfig(rollout_steps=32, minibatch=256, learning_rate=5e-3, gamma=0.0, greedy_weight=0.0)


def share_of_optimum(policy: CandidatePolicy, env: ToyEnv) -> float:
    state = toy_states(np.random.default_rng(99), 2000)
    context, candidates = env.features.of(state)
    earned = rewards(env.costs, state)
    chosen = policy.frozen().decide(context, candidates)
    return float(earned[np.arange(2000), chosen].sum() / earned.max(axis=1).sum())


def test_ppo_comes_close_to_the_known_optimum_of_a_toy() -> None:
    torch.set_num_threads(1)
    env = ToyEnv(batch=32, seed=0)
    model = make_ppo(env, FROM_NOISE, seed=1)  # the noise of seed 0 happens to be close from the start
    before = share_of_optimum(model.policy, env)
    model.learn(12_000)
    after = share_of_optimum(model.policy, env)
    assert before < 0.9
    assert after > CLOSE_FRAC


def test_the_greedy_start_is_already_good_on_the_toy() -> None:
    env = ToyEnv(batch=32, seed=0)
    assert share_of_optimum(make_ppo(env, PpoConfig(rollout_steps=32, minibatch=256), seed=0).policy, env) > 0.97


def test_the_same_seed_gives_the_same_training() -> None:
    def train(seed: int) -> np.ndarray:
        model = make_ppo(ToyEnv(batch=16, seed=seed), FROM_NOISE, seed=seed)
        model.learn(1_500)
        return model.policy.frozen().linear

    np.testing.assert_array_equal(train(3), train(3))
    assert not np.array_equal(train(3), train(4))


def test_a_checkpoint_carries_weights_moments_and_counters(tmp_path: Path) -> None:
    first = make_ppo(ToyEnv(batch=16, seed=1), FROM_NOISE, seed=1)
    first.learn(1_024)
    save_checkpoint(first, tmp_path / "c.safetensors")
    second = make_ppo(ToyEnv(batch=16, seed=1), FROM_NOISE, seed=2)
    load_checkpoint(second, tmp_path / "c.safetensors")
    assert second.num_timesteps == first.num_timesteps
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b)
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            torch.testing.assert_close(
                first.policy.optimizer.state[a][moment], second.policy.optimizer.state[b][moment]
            )


def test_a_resumed_training_goes_on_learning(tmp_path: Path) -> None:
    env = ToyEnv(batch=32, seed=0)
    first = make_ppo(env, FROM_NOISE, seed=1)
    first.learn(1_024)
    save_checkpoint(first, tmp_path / "c.safetensors")
    second = make_ppo(env, FROM_NOISE, seed=1)
    load_checkpoint(second, tmp_path / "c.safetensors")
    second.learn(12_000 - second.num_timesteps, reset_num_timesteps=False)
    assert second.num_timesteps >= 12_000
    assert share_of_optimum(second.policy, env) > CLOSE_FRAC


def small_world() -> Setup:
    return open_setup("garments", builtin_traces("train", 0), "validation", ScenarioRange(frames=60))


def test_the_warm_start_closes_most_of_the_gap_to_oracle() -> None:
    torch.set_num_threads(1)
    setup, config = small_world(), replace(PpoConfig(), greedy_weight=0.0)
    model = make_ppo(TwinVecEnv(setup.twin(32, 0, reward="expected")), config, seed=1)
    scenarios = scenarios_on(setup, 64, seed=5)

    def utility(name: str) -> float:
        policy = model.policy.frozen()  # type: ignore[operator]
        pilot = make_controller(name, setup.costs, setup.range.utility, policy=policy, batch=len(scenarios))
        return float(play(setup, pilot, scenarios, reward="expected", oracle=True).frames.utility.mean())

    bound, before, told = utility("greedy-oracle"), utility("ppo"), list[int]()
    warm_start(
        model, [setup], WarmStartConfig(steps_frac=0.8, rounds=5, branches=BranchConfig(rounds=3)), 16_000, told.append
    )
    after = utility("ppo")
    assert bound - after < 0.5 * (bound - before)
    assert model.num_timesteps == told[-1] == 12_800


def test_the_worth_of_sending_grows_with_the_age_of_the_last_sample() -> None:
    setup = small_world()
    state = setup.twin(8, 0, oracle=True).reset()
    config = WarmStartConfig(knowledge_bonus=0.1, knowledge_age_s=4.0)
    fresh, stale = (
        penalised_utility(setup.costs, replace(state, uplink_age_s=np.full(8, age)), setup.range.utility, config)
        for age in (0.0, 2.0)
    )
    sent = ~setup.costs.space.device_only
    np.testing.assert_allclose((stale - fresh)[:, sent], 0.05)
    np.testing.assert_array_equal(stale[:, ~sent], fresh[:, ~sent])


def test_a_warm_start_of_too_few_steps_changes_nothing() -> None:
    setup = small_world()
    model = make_ppo(TwinVecEnv(setup.twin(32, 0, reward="expected")), PpoConfig(), seed=0)
    before = model.policy.frozen().linear
    warm_start(model, [setup], WarmStartConfig(), 100)
    np.testing.assert_array_equal(model.policy.frozen().linear, before)
    assert model.num_timesteps == 0


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    model = make_ppo(ToyEnv(batch=16, seed=1), FROM_NOISE, seed=1)
    path = tmp_path / "c.safetensors"
    save_checkpoint(model, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"checkpoint .* train again"):
        load_checkpoint(model, path)
    with pytest.raises(UsageError, match="no checkpoint"):
        load_checkpoint(model, tmp_path / "none.safetensors")
