"""PPO finds a known optimum in seconds, and the same seed gives the same training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_env import ToyEnv, rewards, toy_states

from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.policy import CandidatePolicy
from agents.ppo import PpoConfig, make_ppo
from controller.errors import UsageError

#: From noise instead of the greedy rule: otherwise there would be nothing to learn.
FROM_NOISE = PpoConfig(rollout_steps=32, minibatch=256, learning_rate=5e-3, gamma=0.0, greedy_weight=0.0)


def share_of_optimum(policy: CandidatePolicy, env: ToyEnv) -> float:
    state = toy_states(np.random.default_rng(99), 2000)
    context, candidates = env.features.of(state)
    earned = rewards(env.costs, state)
    chosen = policy.frozen().decide(context, candidates)
    return float(earned[np.arange(2000), chosen].sum() / earned.max(axis=1).sum())


def test_ppo_finds_the_known_optimum_of_a_toy() -> None:
    torch.set_num_threads(1)
    env = ToyEnv(batch=32, seed=0)
    model = make_ppo(env, FROM_NOISE, seed=0)
    before = share_of_optimum(model.policy, env)
    model.learn(12_000)
    after = share_of_optimum(model.policy, env)
    assert before < 0.97
    assert after > 0.99


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
    first = make_ppo(env, FROM_NOISE, seed=0)
    first.learn(1_024)
    save_checkpoint(first, tmp_path / "c.safetensors")
    second = make_ppo(env, FROM_NOISE, seed=0)
    load_checkpoint(second, tmp_path / "c.safetensors")
    second.learn(12_000 - second.num_timesteps, reset_num_timesteps=False)
    assert second.num_timesteps >= 12_000
    assert share_of_optimum(second.policy, env) > 0.99


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    model = make_ppo(ToyEnv(batch=16, seed=1), FROM_NOISE, seed=1)
    path = tmp_path / "c.safetensors"
    save_checkpoint(model, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"checkpoint .* train again"):
        load_checkpoint(model, path)
    with pytest.raises(UsageError, match="no checkpoint"):
        load_checkpoint(model, tmp_path / "none.safetensors")
