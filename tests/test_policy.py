"""The torch policy that PPO trains and the numpy policy that is deployed are one function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.policy import CandidatePolicy
from controller.features import FEATURE_SCHEMA

CANDIDATES = 24


def observation_space(candidates: int = CANDIDATES) -> spaces.Dict:
    low, high = FEATURE_SCHEMA.low, FEATURE_SCHEMA.high
    shapes = {
        "context": (len(FEATURE_SCHEMA.context),),
        "candidates": (candidates, len(FEATURE_SCHEMA.candidate)),
    }
    return spaces.Dict({name: spaces.Box(low, high, shape, np.float32) for name, shape in shapes.items()})


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
    space = observation_space()
    return {n: rng.uniform(-2, 2, (count, *space[n].shape)).astype(np.float32) for n in ("context", "candidates")}


def test_frozen_policy_equals_deterministic_action_of_sb3_on_a_thousand_observations() -> None:
    policy = make_policy()
    stir(policy)
    obs = observations(1000)
    expected, _ = policy.predict(obs, deterministic=True)
    np.testing.assert_array_equal(policy.frozen().decide(obs["context"], obs["candidates"]), expected)


def test_one_observation_is_decided_as_within_a_batch() -> None:
    policy = make_policy()
    stir(policy)
    obs, frozen = observations(50), policy.frozen()
    single = [int(frozen.decide(c[None], f[None])[0]) for c, f in zip(obs["context"], obs["candidates"], strict=True)]
    np.testing.assert_array_equal(single, frozen.decide(obs["context"], obs["candidates"]))


def test_an_untrained_policy_follows_the_greedy_feature() -> None:
    policy = make_policy()
    obs = observations(200)
    greedy = obs["candidates"][:, :, FEATURE_SCHEMA.candidate.index("greedy")]
    chosen = policy.frozen().decide(obs["context"], obs["candidates"])
    best = greedy.max(axis=1)
    assert np.all(greedy[np.arange(200), chosen] >= best - 0.1)


def test_scores_do_not_depend_on_the_order_or_number_of_candidates() -> None:
    policy = make_policy()
    stir(policy)
    obs, frozen = observations(20), policy.frozen()
    order = np.random.default_rng(2).permutation(CANDIDATES)[:10]
    every = frozen.scores(obs["context"], obs["candidates"])
    some = frozen.scores(obs["context"], np.ascontiguousarray(obs["candidates"][:, order]))
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
