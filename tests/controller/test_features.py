"""The policy's observation: single and batched agree, features mean what their names say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.synthetic import make_costs, make_state, random_policy, row_of

from controller.features.formula import CANDIDATE_FEATURES, CONTEXT_FEATURES, FEATURE_SCHEMA, Features
from controller.predict.latency import predict
from controller.timeline import fallback_reserve_s
from controller.utility import Utility


def test_a_batch_gives_the_rows_that_single_states_give() -> None:
    features, state = Features(make_costs(), Utility()), make_state(50)
    context, candidates = features.of(state)
    assert context.shape == (50, len(CONTEXT_FEATURES))
    assert candidates.shape == (50, 12, len(CANDIDATE_FEATURES))
    for row in range(50):
        one_context, one_candidates = features.of(row_of(state, row))
        np.testing.assert_allclose(one_context[0], context[row], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one_candidates[0], candidates[row], rtol=1e-5, atol=1e-5)


def test_slack_is_what_the_latency_model_leaves_until_the_deadline_or_the_fallback() -> None:
    costs, state = make_costs(), make_state(40, uplink_backlog_bytes=0.0)
    _, candidates = Features(costs, Utility()).of(state)
    total = predict(costs, state, state.uplink_bps[:, :1]).total_s[:, :, 0]
    reserve = fallback_reserve_s(costs.head_s[costs.local_frontier[0]] * state.device_slowdown)
    due = state.deadline_s[:, None] - reserve[:, None] * ~costs.space.device_only
    expected = np.clip((due - total) / state.deadline_s[:, None], FEATURE_SCHEMA.low, FEATURE_SCHEMA.high)
    slack = candidates[:, :, CANDIDATE_FEATURES.index("slack_last")]
    np.testing.assert_allclose(slack, expected, rtol=1e-4, atol=1e-4)


def test_features_stay_within_the_schema_on_extreme_states() -> None:
    state = make_state(8, uplink_bps=0.0, deadline_s=1e-3, device_slowdown=1e5, mec_age_s=1e6)
    for part in Features(make_costs(), Utility()).of(state):
        assert np.isfinite(part).all()
        assert part.min() >= FEATURE_SCHEMA.low
        assert part.max() <= FEATURE_SCHEMA.high


def test_a_policy_scores_candidates_independently_of_their_order_and_number() -> None:
    costs, state, policy = make_costs(), make_state(20), random_policy()
    context, candidates = Features(costs, Utility()).of(state)
    scores = policy.scores(context, candidates)
    shuffled = np.random.default_rng(1).permutation(len(costs))[:7]
    np.testing.assert_allclose(
        policy.scores(context, candidates[:, shuffled]), scores[:, shuffled], rtol=1e-5, atol=1e-4
    )


def test_a_policy_of_wrong_shape_is_refused() -> None:
    policy = random_policy()
    with pytest.raises(ValueError, match="linear has shape"):
        dataclasses.replace(policy, linear=policy.linear[:-1])


def test_the_schema_digest_is_stable_within_a_version() -> None:
    assert FEATURE_SCHEMA.digest == type(FEATURE_SCHEMA)().digest
    assert len(FEATURE_SCHEMA.digest) == 64
