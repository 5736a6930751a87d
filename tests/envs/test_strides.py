"""Frame strides and ageing answers: what a decision is worth for all the frames that it answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer
from support.simulated import Simulation
from support.stream import SAMPLES, STRIDES, stream_costs, stream_recorded
from support.synthetic import make_state, row_of
from support.twins import traces

from agents.compare.rollout import play
from agents.learn.config import FitConfig, PpoConfig, WarmStartConfig
from agents.learn.ppo import make_ppo
from agents.learn.semi_markov import SemiMarkovBuffer, discounted
from agents.learn.warm_start import warm_start
from controller.controllers.greedy import Greedy
from controller.controllers.registry import make_controller
from controller.controllers.shortlist import shortlist
from controller.controllers.simple import Memoryless
from controller.features.fast import Features
from controller.features.schema import CANDIDATE_FEATURES, FEATURE_SCHEMA
from controller.metrics import Frames, per_episode
from controller.predict.estimators import Estimator, Kind
from controller.predict.expectation import expectation, expected_utility
from controller.records import BreakdownMs, Decision, Outcome, Status, SystemState
from controller.scenario import Scenario, ScenarioRange
from controller.streaming import Stream, streaming_scores
from controller.utility import Utility
from envs.setup import Setup
from envs.twin.twin import Twin
from envs.vec_env import TwinVecEnv
from runtime.bundles.bundle import open_bundle
from runtime.bundles.recorded import MAX_LAG, load_recorded, save_recorded
from runtime.observe.summary import RunSummary
from runtime.profiling.profile import load_costs
from runtime.workloads.base import stream_score
from runtime.workloads.registry import get_workload


def test_lagged_scores_and_payloads_survive_the_file(tmp_path):
    recorded = stream_recorded()
    assert recorded.payload_bytes is not None
    save_recorded(tmp_path / "table.safetensors", recorded, [0, 1, 1, 1])
    loaded = load_recorded(tmp_path / "table.safetensors", *recorded.score.shape, tuple(recorded.payload_bytes))
    assert loaded.lagged is not None
    assert loaded.lagged.shape == (MAX_LAG, *recorded.score.shape)
    np.testing.assert_allclose(loaded.lagged, recorded.lagged, atol=1e-6)
    np.testing.assert_array_equal(loaded.lagged_score(3), loaded.lagged[2])
    np.testing.assert_equal(loaded.payload_bytes, recorded.payload_bytes)


def test_an_answer_older_than_the_last_lag_keeps_that_ones_score():
    recorded = stream_recorded()
    np.testing.assert_array_equal(recorded.lagged_score(MAX_LAG + 7), recorded.lagged_score(MAX_LAG))


def test_garments_has_no_lags_and_one_stride():
    bundle = open_bundle("garments")
    recorded = bundle.recorded("validation")
    assert recorded.lagged is None
    assert recorded.lagged_score(4) is recorded.score
    costs = load_costs(bundle)
    assert bundle.space.column("frame_stride") == (1,)
    assert costs.longest_stride == 1
    np.testing.assert_array_equal(costs.accuracy_per_frame, costs.accuracy)


def test_a_row_is_worth_the_mean_over_its_lags():
    costs, recorded = stream_costs(), stream_recorded()
    row = costs.space.index(Decision("net", 384, 1, 2, "u1", 3))
    later = [float(recorded.lagged_score(lag)[3].mean()) for lag in (1, 2)]
    assert costs.accuracy_per_frame[row] == pytest.approx((costs.accuracy[row] + sum(later)) / 3, abs=1e-6)


def test_an_answer_that_comes_late_leaves_older_boxes_to_the_frames_before_it():
    costs, recorded = stream_costs(), stream_recorded()
    row = costs.space.index(Decision("net", 384, 1, 2, "u1", 3))
    first = recorded.lagged_score(1)[3].mean() - recorded.lagged_score(4)[3].mean()  # three frames older
    assert costs.stale_losses[0][row] == pytest.approx(float(first), abs=1e-6)
    assert costs.stale_losses[2][row] == 0  # only two frames are skipped


def test_strides_are_pinned_and_digested():
    space = stream_costs().space
    default = Decision("net", 384, 1, 2, "u1")
    assert space.column("frame_stride") == STRIDES
    assert space.decisions[space.pin({}, default)].frame_stride == 1
    assert space.decisions[space.pin({"frame_stride": 5}, default)] == Decision("net", 384, 1, 2, "u1", 5)
    assert stream_costs((1, 2)).space.digest != stream_costs((1, 3)).space.digest


def test_features_of_a_batch_are_those_of_its_rows():
    features, state = Features(stream_costs(), Utility()), make_state(30)
    context, candidates = features.of(state)
    for row in range(30):
        one_context, one_candidates = features.of(row_of(state, row))
        np.testing.assert_allclose(one_context[0], context[row], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one_candidates[0], candidates[row], rtol=1e-4, atol=1e-4)


def test_the_value_of_a_safe_candidate_is_what_the_greedy_rule_expects():
    """The feature and the rule are two computations of one thing: expected utility per frame."""
    costs, utility = stream_costs(), Utility()
    state = make_state(60, device_slowdown=8.0, uplink_backlog_bytes=0.0, capture_period_s=0.1)
    expected = expected_utility(
        costs, state, utility, expectation(costs, state, Estimator(Kind.LAST, margin=1.0, recovery_s=None))
    )
    _, candidates = Features(costs, utility).of(state)
    by_name = {name: candidates[:, :, i] for i, name in enumerate(CANDIDATE_FEATURES)}
    squashed = by_name["value_last"]
    value = 0.1 * squashed / (1.0 - squashed / FEATURE_SCHEMA.low) + costs.accuracy_per_frame.max()
    # Elsewhere the feature charges delays and the chance of a miss; it takes energy under the mean.
    safe = (by_name["chance_last"] > 0.999) & (by_name["occupancy"] <= 0) & (by_name["link_occupancy"] <= 0)
    assert safe.sum() > 50
    np.testing.assert_allclose(value[safe], expected[safe], atol=6e-3)


def test_features_tell_strides_apart():
    costs = stream_costs()
    _, candidates = Features(costs, Utility()).of(make_state(1, device_slowdown=30.0, capture_period_s=0.1))
    by_name = {name: candidates[0, :, i] for i, name in enumerate(CANDIDATE_FEATURES)}
    rows = [costs.space.index(Decision("net", 384, 1, 4, "none", n)) for n in STRIDES]
    np.testing.assert_allclose(by_name["interval"][rows], [0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(np.diff(by_name["occupancy"][rows]), [-1.0, -1.0, -2.0], atol=1e-5)
    np.testing.assert_allclose(by_name["energy"][rows] * STRIDES, by_name["energy"][rows[0]], rtol=1e-5)


def test_greedy_takes_a_longer_stride_where_the_device_is_slow():
    """The good local row takes 10 ms x slowdown: at 20 it lasts two frames, at 5 half of one."""
    costs = stream_costs()
    greedy = Greedy(costs, Utility(), Estimator(), penalty=0.2)

    def decided(slowdown: float) -> Decision:
        state = make_state(
            1, device_slowdown=slowdown, capture_period_s=0.1, deadline_s=0.4, frame_age_s=0.0, uplink_bps=1e4
        )
        return costs.space.decisions[int(greedy.decide(state)[0])]

    assert decided(5.0) == Decision("net", 384, 1, 4, "none", 1)
    assert decided(20.0) == Decision("net", 384, 1, 4, "none", 2)


def test_the_strategies_that_keep_pace_stretch_their_stride():
    costs = stream_costs()
    controller = make_controller("device-only", costs, Utility(), {})
    state = make_state(1, device_slowdown=25.0, capture_period_s=0.1, deadline_s=0.4, frame_age_s=0.0)
    assert costs.space.decisions[int(controller.decide(state)[0])] == Decision("net", 384, 1, 4, "none", 3)


def test_the_shortlist_has_short_and_long_strides_and_few_rows():
    costs = stream_costs()
    rows = shortlist(costs, ScenarioRange(fps=(10, 10), deadline_s=(0.07, 0.4), device_slowdown=(5, 30)))
    assert len({costs.space.decisions[row].frame_stride for row in rows}) >= 3
    assert len(shortlist(costs, ScenarioRange(), limit=8)) <= 8


class TestDevice:
    def run(self, row: int, **options: Any) -> list[Outcome]:
        stream = stream_costs()
        costs = dataclasses.replace(stream, head_s=10 * stream.head_s)
        sim = Simulation(frames=12, fps=10.0, deadline_s=0.3, costs=costs, recorded=stream_recorded(), **options)
        return sim.run(lambda _: row)

    def test_two_of_three_frames_show_the_answer_before_them(self):
        row = stream_costs().space.index(Decision("net", 384, 0, 2, "none", 3))
        outcomes = self.run(row)
        assert [o.status for o in outcomes[:4]] == [Status.OK, Status.SKIPPED, Status.SKIPPED, Status.OK]
        shown = outcomes[2]
        assert shown.prediction == outcomes[0].prediction
        assert shown.truth == 2
        assert shown.decision is None
        assert shown.latency_ms == shown.energy_j == shown.payload_bytes == 0
        assert shown.utility == pytest.approx(float(stream_recorded().lagged_score(2)[0, 0]), abs=1e-6)

    def test_frames_before_the_first_answer_have_none(self):
        row = stream_costs().space.index(Decision("net", 384, 1, 4, "none", 3))  # 100 ms, out just at a capture
        first = self.run(row, device_slowdown=1.2)[1]
        assert first.status is Status.SKIPPED
        assert first.prediction is None
        assert first.score == 0

    def test_a_closed_loop_goes_on_over_skipped_frames(self):
        row = stream_costs().space.index(Decision("net", 384, 0, 2, "none", 5))
        outcomes = self.run(row, closed_loop=True)
        assert [o.frame for o in outcomes if o.status is Status.OK] == [0, 5, 10]

    def test_waiting_frames_are_skipped_too(self):
        """Frame 0 takes 250 ms; frames 1 and 2 wait behind it, and the decision for 1 is also for 2 and 3."""
        stream = stream_costs()
        costs = dataclasses.replace(stream, head_s=25 * stream.head_s)
        sim = Simulation(frames=8, fps=10.0, deadline_s=0.6, costs=costs, recorded=stream_recorded())
        alone, three = (costs.space.index(Decision("net", 384, 1, 4, "none", n)) for n in (1, 3))
        outcomes = sim.run(lambda n: three if n else alone)
        assert [o.status.value for o in outcomes[:5]] == ["ok", "ok", "skipped", "skipped", "ok"]
        assert outcomes[2].prediction is None  # captured at 200 ms, before anything was answered
        assert outcomes[3].prediction == outcomes[0].prediction


class TestStreaming:
    def scenarios(self, count: int) -> list[Scenario]:
        rng = np.random.default_rng(3)
        range_ = ScenarioRange(fps=(8, 25), deadline_s=(0.07, 0.4), device_slowdown=(5, 30), frames=60)
        return [range_.sample(rng, traces(), SAMPLES) for _ in range(count)]

    def world(self) -> Setup:
        bundle: Any = None
        return Setup(bundle, stream_costs(), stream_recorded(), traces(), ScenarioRange(frames=60))

    def test_skipped_frames_earn_in_the_table_what_they_earned_in_the_twin(self):
        world, scenarios = self.world(), self.scenarios(24)
        random = make_controller("random", world.costs, Utility(), seed=1, batch=24)
        episodes = play(world, random, scenarios)
        assert len(episodes.frames.utility) == 24 * 60
        assert sorted(episodes.frame.tolist()) == sorted([*range(60)] * 24)
        twin = Twin(world.costs, world.bank, world.recorded, world.range, 24)
        state, earned, alive = twin.reset(scenarios=scenarios), np.zeros(24), np.ones(24, bool)
        random = make_controller("random", world.costs, Utility(), seed=1, batch=24)
        while alive.any():
            state, record = twin.step(random.decide(state))
            earned += record.reward * alive
            alive &= ~record.done
        np.testing.assert_allclose(per_episode(episodes.frames)["utility"] * 60, earned, atol=1e-6)
        assert episodes.frames.reused.any()

    def test_the_device_and_the_twin_tell_the_same_streaming_accuracy(self):
        costs = dataclasses.replace(stream_costs(), payload_std_bytes=np.zeros(16))
        costs = dataclasses.replace(costs, head_s=8 * costs.head_s)
        recorded, rows = stream_recorded(), np.random.default_rng(0).integers(0, 16, 60)
        sim = Simulation(fps=12.0, deadline_s=0.2, frames=60, costs=costs, recorded=recorded)
        outcomes = sim.run(lambda n: int(rows[n]))
        live = Frames.from_outcomes(outcomes, 1 / 12.0, score=sim.compute.score)
        scenario = dataclasses.replace(sim.scenario, rtt_s=0.01, mec_slowdown=1.0)
        world = Setup(None, costs, recorded, sim.bank, ScenarioRange())  # type: ignore[arg-type]
        numbers = iter(rows)

        class Scripted(Memoryless):
            name = "scripted"

            def decide(self, state: SystemState) -> np.ndarray:
                return np.array([next(numbers)])

        twin = play(world, Scripted(), [scenario]).frames
        seen = [per_episode(frames)["streaming_accuracy"][0] for frames in (live, twin)]
        assert seen[0] == pytest.approx(seen[1], abs=0.02)  # the twin's noise moves answers across a capture
        summary = RunSummary(Stream(1 / 12.0, sim.compute.score))
        for outcome in sorted(outcomes, key=lambda o: o.frame / 12.0 * 1e3 + o.latency_ms):
            summary.add(outcome)
        assert summary.figures()["streaming_accuracy"] == pytest.approx(seen[0])

    def test_latency_costs_streaming_accuracy_even_within_the_deadline(self):
        def outcome(frame: int, latency_ms: float) -> Outcome:
            return Outcome(
                frame, frame, Status.OK, latency_ms, 500.0, 0, 0.0, 1.0, None, BreakdownMs(), frame, frame, 1.0
            )

        def fading(prediction: int, truth: int) -> float:
            return 1.0 - 0.1 * (truth - prediction)

        quick = streaming_scores([outcome(i, 90.0) for i in range(10)], 0.1, fading)
        slow = streaming_scores([outcome(i, 190.0) for i in range(10)], 0.1, fading)
        np.testing.assert_allclose(quick, [0.0] + [0.9] * 9)
        np.testing.assert_allclose(slow, [0.0, 0.0] + [0.8] * 8)

    def test_garments_has_no_streaming_accuracy(self):
        assert stream_score(get_workload("garments")) is None


class TestLearning:
    def test_a_constant_utility_is_worth_the_same_at_every_stride(self):
        for frames in (1, 2, 3, 5):
            step = float(discounted(np.array([0.7 * frames]), np.array([frames]), 0.98)[0])
            assert step / (1 - 0.98**frames) == pytest.approx(0.7 / 0.02)

    def test_the_buffer_is_stable_baselines_own_where_every_step_is_a_frame(self):
        spaces = gymnasium.spaces.Dict({"x": gymnasium.spaces.Box(-1, 1, (1,))}), gymnasium.spaces.Discrete(2)
        rng = np.random.default_rng(0)
        reward, value = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
        start, done = rng.random((6, 3)) < 0.3, rng.random(3) < 0.5
        numbers = iter(range(6))
        last = lambda: (reward[next(numbers)], np.ones(3, np.int64))  # noqa: E731
        options = {"device": "cpu", "gae_lambda": 0.9, "gamma": 0.97, "n_envs": 3}
        plain = DictRolloutBuffer(6, *spaces, **options)
        ours = SemiMarkovBuffer(6, *spaces, **options, last_step=last)
        for step in range(6):
            for buffer in (plain, ours):
                rest = (start[step], torch.from_numpy(value[step]), torch.zeros(3))
                buffer.add({"x": np.zeros((3, 1))}, np.zeros(3), reward[step], *rest)
        for buffer in (plain, ours):
            buffer.compute_returns_and_advantage(torch.ones(3), done)
        np.testing.assert_allclose(ours.advantages, plain.advantages, rtol=1e-5, atol=1e-5)

    def test_the_learner_trains_on_decisions_of_different_strides(self):
        world = TestStreaming().world()
        env = TwinVecEnv(world.twin(8, reward="expected"))
        model = make_ppo(env, PpoConfig(rollout_steps=32, minibatch=64, epochs=1, siblings=1), 0, strides=True)
        warm_start(model, [world], WarmStartConfig(rounds=2, fit=FitConfig(epochs=1)), 2000)
        model.learn(512)
        assert model.rollout_buffer.discounts.min() < 0.98**4  # long strides were tried
        assert np.isfinite(model.rollout_buffer.returns).all()
