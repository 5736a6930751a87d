"""The environment keeps Gymnasium's and stable-baselines3's contracts, and its adapters tell what the twin tells."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from support.twins import make_twin, recorded, table, traces

import envs  # noqa: F401 - registers the environment
from controller.errors import UsageError
from controller.features.fast import Features
from controller.features.schema import FEATURE_SCHEMA
from controller.records import SystemState
from controller.scenario import Scenario, ScenarioRange
from envs.backend import TwinBackend
from envs.env import MecpilotEnv
from envs.twin.twin import Twin
from envs.vec_env import TwinVecEnv
from envs.wrappers import FIELDS, FactoredActions, factors_of, nearest_rows

RANGE = ScenarioRange(frames=30)


@pytest.fixture
def strictly() -> Iterator[None]:
    """Warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make_small_env(seed: int | None = None) -> MecpilotEnv:
    """On the small table of the twin's tests."""
    costs = table()
    return MecpilotEnv(TwinBackend(Twin(costs, traces(), recorded(costs), RANGE)), traces(), 50, RANGE, seed)


def rollout(env: gymnasium.Env, seed: int) -> list[float]:
    env.reset(seed=seed)
    rng = np.random.default_rng(0)
    rewards, over = [], False
    while not over:
        _, reward, terminated, over, _ = env.step(rng.integers(env.action_space.n))  # type: ignore[attr-defined]
        assert not terminated
        rewards.append(float(reward))
    return rewards


@pytest.mark.usefixtures("strictly")
class TestContracts:
    def test_checkers_pass_on_the_registered_environments(self) -> None:
        for name in ("Campus", "Garments"):
            env = gymnasium.make(f"mecpilot/{name}-v0", scenario={"frames": 30})
            check_env(env.unwrapped)
            sb3_check_env(env.unwrapped)

    def test_the_shipped_ids_play_their_bundle_and_the_third_any_bundle(self) -> None:
        for name, bundle in (("Campus", "campus"), ("Garments", "garments")):
            one, other = gymnasium.make(f"mecpilot/{name}-v0"), gymnasium.make("mecpilot/Inference-v0", bundle=bundle)
            assert one.action_space == other.action_space
            assert one.unwrapped.decision(0) == other.unwrapped.decision(0)  # type: ignore[attr-defined]

    def test_checkers_pass_on_factored_actions(self) -> None:
        sb3_check_env(FactoredActions(make_small_env()))

    def test_equal_seeds_give_equal_episodes_and_others_others(self) -> None:
        env = make_small_env()
        assert rollout(env, 3) == rollout(env, 3) != rollout(env, 4)

    def test_the_seed_of_the_constructor_serves_the_first_reset(self) -> None:
        first, second = (make_small_env(seed=7).reset()[0] for _ in range(2))
        np.testing.assert_array_equal(first["context"], second["context"])

    def test_a_given_scenario_runs_exactly(self) -> None:
        env, scenario = make_small_env(), Scenario(frames=12, deadline_s=0.2, fps=2.0)
        env.reset(seed=0, options={"scenario": scenario})
        infos, over = [], False
        while not over:
            *_, over, info = env.step(0)
            infos.append(info)
        assert [info["frame"] for info in infos] == list(range(12))
        assert env.scenario == scenario

    def test_the_observation_is_the_feature_table(self) -> None:
        env = make_small_env()
        observation, _ = env.reset(seed=1)
        twin = make_twin(batch=1, range=RANGE)
        state = twin.reset(scenarios=[env.scenario])  # type: ignore[list-item]
        context, candidates = Features(twin.costs, RANGE.utility).of(state)
        np.testing.assert_array_equal(observation["context"], context[0])
        table_of = observation["candidates"].reshape(-1, len(FEATURE_SCHEMA.candidate))
        np.testing.assert_array_equal(table_of, candidates[0])

    def test_raw_terms_make_up_the_reward(self) -> None:
        env = make_small_env()
        env.reset(seed=2)
        for action in range(10):
            _, reward, _, _, info = env.step(action)
            on_time = info["status"] in ("ok", "fallback")
            utility = info["score"] * on_time - 0.05 * info["energy_j"]
            assert info["utility"] == pytest.approx(utility, abs=1e-9)
            assert reward == pytest.approx(utility - 0.1 * info["dropped"], abs=1e-9)
            if info["status"] == "ok":
                assert sum(info["breakdown_s"].values()) == pytest.approx(info["latency_s"], abs=1e-3)

    def test_unknown_names_are_refused(self) -> None:
        with pytest.raises(UsageError, match="unknown reset option 'scenery'; expected 'scenario'"):
            make_small_env().reset(options={"scenery": 1})
        with pytest.raises(UsageError, match="scenario: unknown field 'fsp'; expected some of: fps"):
            gymnasium.make("mecpilot/Garments-v0", scenario={"fsp": 10})
        with pytest.raises(UsageError, match="unknown bundle 'shoes'; expected one of"):
            gymnasium.make("mecpilot/Inference-v0", bundle="shoes")


class TestFactoredActions:
    def test_every_row_is_reached_by_its_own_factors(self) -> None:
        env = FactoredActions(make_small_env())
        for row in range(len(table())):
            assert env.action(env.factors(row)) == row

    def test_an_illegal_combination_stands_for_the_nearest_row(self) -> None:
        space = table().space
        values, factors = [space.column(name) for name in FIELDS], factors_of(space)
        rng = np.random.default_rng(0)
        for _ in range(200):
            wanted = np.array([rng.integers(len(column)) for column in values])
            (row,) = nearest_rows(factors, wanted[None])
            assert factors[row][0] == wanted[0]  # the model is as asked for
            gaps = [tuple(np.abs(other - wanted)) for other in factors]
            assert gaps[row] == min(gaps)


class TestVectorised:
    def test_it_tells_what_the_twin_tells(self) -> None:
        vec, twin = TwinVecEnv(make_twin(seed=5)), make_twin(seed=5)
        features = Features(twin.costs, twin.range.utility)
        observation, state = vec.reset(), twin.reset()
        rng = np.random.default_rng(0)
        for _ in range(120):
            self.assert_equal(observation, features, state)
            rows = rng.integers(0, len(twin.costs), twin.batch)
            observation, rewards, dones, infos = vec.step(rows)
            state, record = twin.step(rows)
            np.testing.assert_array_equal(rewards, record.reward.astype(np.float32))
            np.testing.assert_array_equal(dones, record.done)
            last = features.of(state)[0]
            for row, info in enumerate(infos):
                assert bool(info) == bool(dones[row])
                if info:
                    assert info["TimeLimit.truncated"]
                    np.testing.assert_array_equal(info["terminal_observation"]["context"], last[row])
            state = twin.reset(record.done) if record.done.any() else state

    @staticmethod
    def assert_equal(observation: object, features: Features, state: SystemState) -> None:
        assert isinstance(observation, dict)
        context, candidates = features.of(state)
        np.testing.assert_array_equal(observation["context"], context)
        np.testing.assert_array_equal(observation["candidates"], candidates.reshape(len(context), -1))

    def test_episode_returns_and_lengths_are_those_of_the_rewards(self) -> None:
        vec = TwinVecEnv(make_twin(batch=4))
        vec.reset()
        total, length, checked = np.zeros(4), np.zeros(4, int), 0
        for step in range(200):
            _, rewards, dones, infos = vec.step(np.full(4, step % 5))
            total += rewards
            length += 1
            for row in np.flatnonzero(dones):
                assert infos[row]["episode"]["r"] == pytest.approx(total[row], abs=1e-3)
                assert infos[row]["episode"]["l"] == length[row]
                total[row], length[row], checked = 0, 0, checked + 1
        assert checked >= 8

    def test_seeds_repeat_and_spaces_hold(self) -> None:
        def first(seed: int) -> np.ndarray:
            vec = TwinVecEnv(make_twin())
            vec.seed(seed)
            observation = vec.reset()
            assert isinstance(observation, dict)
            for row in range(vec.num_envs):
                assert vec.observation_space.contains({name: part[row] for name, part in observation.items()})
            return observation["context"]

        np.testing.assert_array_equal(first(1), first(1))
        assert (first(1) != first(2)).any()


def test_an_oracle_changes_what_is_known_but_not_what_happens() -> None:
    plain, knowing = make_twin(seed=2), make_twin(seed=2, oracle=True)
    plain.reset()
    knowing.reset()
    act: Callable[[int], np.ndarray] = lambda step: np.full(plain.batch, step % len(plain.costs))  # noqa: E731
    for step in range(40):
        (_, one), (state, other) = plain.step(act(step)), knowing.step(act(step))
        np.testing.assert_array_equal(one.reward, other.reward)
        assert state.true_latency_s is not None
        assert state.true_latency_s.shape == (plain.batch, len(plain.costs))


def test_a_table_from_a_bundle_works_like_any_other() -> None:
    env = gymnasium.make("mecpilot/Garments-v0", scenario=dataclasses.replace(RANGE, frames=20))
    costs = env.unwrapped.backend.costs  # type: ignore[attr-defined]
    assert env.action_space == gymnasium.spaces.Discrete(len(costs))
    assert len(rollout(env, 0)) <= 20
    assert isinstance(recorded(costs), SimpleNamespace)
