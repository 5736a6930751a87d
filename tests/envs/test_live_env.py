"""The environment on real processes: the same contract as on the twin, and clear words when a process dies."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import envs  # noqa: F401 - registers the environment
from controller.errors import FailureError
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import Scenario, ScenarioRange
from envs.env import MecpilotEnv

pytestmark = pytest.mark.realtime

#: Quick episodes on one MEC: a change of its slowdown would start another one.
RANGE = ScenarioRange(
    fps=(20.0, 30.0),
    deadline_s=(0.1, 0.2),
    device_slowdown=(5.0, 20.0),
    mec_slowdown=(2.0, 2.0),
    device_load_frac=(0.0, 0.2),
    mec_load_frac=(0.0, 0.0),
    uplink_share_frac=(0.5, 1.0),
    frames=8,
)
BANK = TraceBank([Trace("flat", np.zeros(1), np.array([20e6]), 1.0)])


@pytest.fixture(scope="module")
def env() -> Iterator[MecpilotEnv]:
    made = gymnasium.make("mecpilot/Garments-v0", live=True, scenario=RANGE, traces=BANK)
    yield made.unwrapped  # type: ignore[misc]
    made.close()
    made.close()


def play(env: MecpilotEnv, scenario: Scenario | None = None, seed: int = 0) -> list[dict]:
    """One episode of random decisions; the infos of its steps."""
    env.reset(seed=seed, options={"scenario": scenario} if scenario else None)
    rng = np.random.default_rng(seed)
    infos, over = [], False
    while not over:
        observation, reward, terminated, over, info = env.step(rng.integers(len(env.backend.costs)))
        assert env.observation_space.contains(observation)
        assert reward == pytest.approx(info["utility"])
        assert not terminated
        infos.append(info)
    return infos


def test_checkers_pass_without_warnings(env: MecpilotEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
        sb3_check_env(env)


def test_every_frame_has_one_outcome(env: MecpilotEnv) -> None:
    outcomes = [outcome for info in play(env) for outcome in info["outcomes"]]
    assert sorted(outcome["frame"] for outcome in outcomes) == list(range(RANGE.frames))
    assert {outcome["status"].value for outcome in outcomes} <= {"ok", "late", "fallback", "dropped"}


def test_neighbours_load_the_mec_of_an_episode(env: MecpilotEnv) -> None:
    loaded = Scenario(fps=20.0, deadline_s=0.2, device_slowdown=5.0, mec_slowdown=2.0, mec_load_frac=0.5, frames=12)
    outcomes = [outcome for info in play(env, loaded) for outcome in info["outcomes"]]
    assert len(outcomes) == 12


def test_a_step_before_a_reset_or_after_the_end_is_refused(env: MecpilotEnv) -> None:
    play(env)
    with pytest.raises(FailureError, match="no episode under way; call reset"):
        env.step(0)


def test_a_dead_mec_is_an_error_and_the_next_reset_starts_another(env: MecpilotEnv) -> None:
    env.reset(seed=1)
    process = env.backend._mec.process  # type: ignore[attr-defined]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(FailureError, match="the MEC process ended with exit code -9; reset"):
        env.step(0)
    assert play(env)


def test_close_ends_the_processes_and_may_be_called_twice(env: MecpilotEnv) -> None:
    env.reset(seed=2)
    process = env.backend._mec.process  # type: ignore[attr-defined]
    env.close()
    env.close()
    assert process.poll() is not None
