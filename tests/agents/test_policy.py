"""The torch policy that PPO trains and the numpy policy that is deployed are one function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.learn.policy import CandidatePolicy
from controller.features.schema import FEATURE_SCHEMA
from envs.env import observation_space

CANDIDATES = 24


def make_policy(seed: int = 0, candidates: int = CANDIDATES) -> CandidatePolicy:
    torch.manual_seed(seed)
    return CandidatePolicy(observation_space(candidates), spaces.Discrete(candidates), lambda _: 1e-3)


def stir(policy: CandidatePolicy) -> None:
    """Move every weight away from its initial value, as training does."""
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.3 * torch.randn_like(weight)


def observations(count: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    space = observation_space(CANDIDATES)
    return {n: rng.uniform(-2, 2, (count, *space[n].shape)).astype(np.float32) for n in ("context", "candidates")}


def parts(obs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What the numpy policy takes: candidates with one row each."""
    return obs["context"], obs["candidates"].reshape(-1, CANDIDATES, len(FEATURE_SCHEMA.candidate))


def test_frozen_policy_equals_deterministic_action_of_sb3_on_a_thousand_observations() -> None:
    policy = make_policy()
    stir(policy)
    obs = observations(1000)
    expected, _ = policy.predict(obs, deterministic=True)
    np.testing.assert_array_equal(policy.frozen().decide(*parts(obs)), expected)


def test_one_observation_is_decided_as_within_a_batch() -> None:
    policy = make_policy()
    stir(policy)
    obs, frozen = observations(50), policy.frozen()
    single = [int(frozen.decide(c[None], f[None])[0]) for c, f in zip(*parts(obs), strict=True)]
    np.testing.assert_array_equal(single, frozen.decide(*parts(obs)))


def test_an_untrained_policy_nearly_follows_the_value() -> None:
    """Its hidden layers begin near zero, not at zero."""
    policy = make_policy()
    obs = observations(200)
    frozen = policy.frozen()
    assert np.count_nonzero(frozen.linear) == 1
    value = parts(obs)[1][:, :, frozen.linear.argmax()]
    chosen = frozen.decide(*parts(obs))
    lost = value.max(axis=1) - value[np.arange(200), chosen]
    assert lost.mean() < 0.1


def test_scores_do_not_depend_on_the_order_or_number_of_candidates() -> None:
    policy = make_policy()
    stir(policy)
    obs, frozen = observations(20), policy.frozen()
    order = np.random.default_rng(2).permutation(CANDIDATES)[:10]
    context, candidates = parts(obs)
    every = frozen.scores(context, candidates)
    some = frozen.scores(context, np.ascontiguousarray(candidates[:, order]))
    np.testing.assert_allclose(some, every[:, order], rtol=1e-4, atol=1e-4)


def test_saving_and_loading_keeps_every_action(tmp_path) -> None:
    policy = make_policy()
    stir(policy)
    policy.save(tmp_path / "policy.pt")
    again = CandidatePolicy.load(tmp_path / "policy.pt")
    obs = observations(100)
    np.testing.assert_array_equal(again.predict(obs, deterministic=True)[0], policy.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("deterministic", [True, False])
def test_log_probabilities_of_a_rollout_are_those_of_the_update(deterministic: bool) -> None:
    policy = make_policy()
    obs = {name: torch.as_tensor(array) for name, array in observations(30).items()}
    actions, values, log_prob = policy(obs, deterministic=deterministic)
    again_values, again_log_prob, entropy = policy.evaluate_actions(obs, actions)
    torch.testing.assert_close(log_prob, again_log_prob)
    torch.testing.assert_close(values, again_values)
    assert entropy is not None
    assert torch.all(entropy >= 0)
