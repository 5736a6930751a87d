"""The policy's observation: the fast path gives what the formula says, and features mean what their names say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support import aged_streams
from support.plain_features import plain_features
from support.stream import stream_costs
from support.synthetic import make_costs, make_state, random_policy, row_of

from controller.costs import CostTable
from controller.features.fast import Features
from controller.features.schema import BANDWIDTHS, CANDIDATE_FEATURES, CONTEXT_FEATURES, FEATURE_SCHEMA
from controller.predict.expectation import is_rescued
from controller.predict.latency import predict
from controller.records import Bools, Floats, SystemState
from controller.timeline import GIVE_UP_DEADLINES, fallback_reserve_s
from controller.utility import Utility

PLAIN, STREAM, AGED = make_costs(), stream_costs(), aged_streams.costs()
OFFLOADS = PLAIN.take(np.flatnonzero(~PLAIN.space.device_only))
#: Slack comes out of a float32 product of numbers up to some hundreds; chances are high powers of its quotients.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}
BENT = {"rtol": 1e-3, "atol": 1e-3}


def names(kind: str) -> list[int]:
    return [CANDIDATE_FEATURES.index(f"{kind}_{name}") for name in BANDWIDTHS]


def states() -> SystemState:
    """Half of them with a device that is fast enough to be in time."""
    state = make_state(400, seed=3)
    slowdown = np.where(np.arange(400) % 2, state.device_slowdown, 2.0)
    return dataclasses.replace(state, device_slowdown=slowdown, mec_slowdown=state.mec_slowdown / 2)


def near_a_threshold(costs: CostTable, state: SystemState, candidates: Floats) -> Bools:
    """(B, C, Q) where rounding decides whether the fallback answers, a reply is given up, or an answer comes before one
    of the next captures."""
    slack, deadline = candidates[:, :, names("slack")], state.deadline_s[:, None, None]
    reserve = fallback_reserve_s(costs.fastest_local_s * state.device_slowdown)[:, None] * ~costs.space.device_only
    total = deadline * (1.0 - slack) - reserve[:, :, None]
    frames = total / state.capture_period_s[:, None, None]
    begin = candidates[:, :, CANDIDATE_FEATURES.index("head")] + state.frame_age_s[:, None] / state.deadline_s[:, None]
    rescue = np.abs(1.0 - reserve / state.deadline_s[:, None] - begin)[:, :, None]
    given_up = np.abs(total / deadline - GIVE_UP_DEADLINES)
    return (rescue < 1e-4) | (given_up < 1e-4) | (np.abs(frames - np.rint(frames)) < 1e-3)


@pytest.mark.parametrize("costs", [PLAIN, STREAM, OFFLOADS, AGED], ids=["plain", "stream", "offloads", "aged"])
def test_the_fast_path_gives_what_the_formula_says(costs: CostTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Features, "fill_batch", None)  # tests/envs/test_compiled.py has the compiled one
    state, utility = aged_streams.with_ages(costs, states()), Utility()
    context, candidates = plain_features(costs, utility, state)
    fast_context, fast = Features(costs, utility).of(state)
    np.testing.assert_allclose(fast_context, context, rtol=1e-6, atol=1e-6)
    bent = names("chance") + names("value")
    linear = [place for place in range(len(CANDIDATE_FEATURES)) if place not in bent]
    np.testing.assert_allclose(fast[:, :, linear], candidates[:, :, linear], **TOLERANCE)
    sure = ~near_a_threshold(costs, state, candidates)
    assert sure.mean() > 0.95
    for kind in ("chance", "value"):
        np.testing.assert_allclose(fast[:, :, names(kind)][sure], candidates[:, :, names(kind)][sure], **BENT)


@pytest.mark.parametrize("costs", [PLAIN, STREAM, AGED], ids=["plain", "stream", "aged"])
def test_a_batch_gives_the_rows_that_single_states_give(costs: CostTable) -> None:
    one_by_one, state = Features(costs, Utility()), aged_streams.with_ages(costs, make_state(50))
    context, candidates = Features(costs, Utility()).of(state)
    assert context.shape == (50, len(CONTEXT_FEATURES))
    assert candidates.shape == (50, len(costs), len(CANDIDATE_FEATURES))
    for row in range(50):
        one_context, one_candidates = one_by_one.of(row_of(state, row))
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


def test_the_chance_is_even_when_the_time_that_is_left_is_just_enough() -> None:
    costs, state = make_costs(), make_state(40, uplink_backlog_bytes=0.0)
    _, candidates = Features(costs, Utility()).of(state)
    slack, chance = candidates[:, :, names("slack")], candidates[:, :, names("chance")]
    rescued = is_rescued(costs, state, costs.head_s * state.device_slowdown[:, None])
    usual = (costs.space.device_only | rescued)[:, :, None] & (np.abs(slack) < FEATURE_SCHEMA.high)
    assert usual.any()
    assert not usual.all()
    assert (chance > 0.5)[usual & (slack > 0)].all()
    # The slack ends at the last moment, and the device may wait for the reply until the deadline.
    reserve = fallback_reserve_s(costs.fastest_local_s * state.device_slowdown) / state.deadline_s
    waits = np.where(costs.space.device_only, 0.0, reserve[:, None])[:, :, None]
    assert (slack + waits > -1e-6)[usual & (chance > 0.5)].all()
    assert chance.min() >= 0.0
    assert chance.max() <= 1.0


def test_bad_candidates_differ_where_all_are_bad() -> None:
    state = make_state(8, uplink_bps=1e3, device_slowdown=3000.0)
    _, candidates = Features(make_costs(), Utility()).of(state)
    values = candidates[:, :, CANDIDATE_FEATURES.index("value_hopeful")]
    assert values.max() < -2.0
    assert all(len(np.unique(row)) > len(row) // 2 for row in values)


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


def test_the_schema_is_the_one_that_the_shipped_policies_were_trained_on() -> None:
    assert FEATURE_SCHEMA.digest == "eb4d678f70616a8105e944d7d8c8bfade26089bbf1d0b191fbbc05edccb93097"
