"""Runs agents of stable-baselines3 as controllers: any algorithm that was trained on mecpilot's environment.

A saved agent is a zip file that contains pickles. Loading one can run any code, so load only files that you trust.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import stable_baselines3
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from controller.costs import CostTable
from controller.errors import UsageError
from controller.features.fast import Features
from controller.records import Bools, Ints, SystemState
from controller.utility import Utility
from envs.env import observation_space
from envs.wrappers import factors_of, nearest_rows

#: Keys of saved agents that identify the algorithm. The first match counts.
_MARKS = {"exploration_fraction": "DQN", "clip_range": "PPO", "gae_lambda": "A2C"}
ALGORITHMS = ("PPO", "DQN", "A2C")
#: Largest JSON part of a saved agent that is read; pickles inside it make it large.
_MAX_DATA_BYTES = 256 << 20


class Sb3Controller:
    """Decides with a trained agent without exploration, with one prediction for the whole batch.

    The agent must have been trained on an environment of the same bundle and profile, made by ``make_env``, with or
    without ``envs.wrappers.FactoredActions``. UsageError if its spaces do not fit the cost table.
    """

    def __init__(
        self, agent: BaseAlgorithm, costs: CostTable, utility: Utility | None = None, name: str = "sb3"
    ) -> None:
        _check_spaces(agent, costs, name)
        self.name = name
        self._agent = agent
        self._features = Features(costs, utility or Utility())
        self._factors = factors_of(costs.space) if isinstance(agent.action_space, spaces.MultiDiscrete) else None
        self._memory: Any = None  # hidden state of a recurrent agent
        self._starts: Bools = np.ones(0, bool)  # (B,) where an episode starts

    def reset(self, rows: Bools) -> None:
        if len(rows) != len(self._starts):
            self._memory, self._starts = None, np.ones(len(rows), bool)
        self._starts = self._starts | rows

    def decide(self, state: SystemState) -> Ints:
        context, candidates = self._features.of(state)
        observation = {"context": context, "candidates": candidates.reshape(len(candidates), -1)}
        actions, self._memory = self._agent.predict(observation, self._memory, self._starts, deterministic=True)
        self._starts = np.zeros(len(self._starts), bool)
        return np.asarray(actions if self._factors is None else nearest_rows(self._factors, actions))


def load_agent(path: str | Path, algorithm: str | None = None) -> BaseAlgorithm:
    """Load a file that ``agent.save(path)`` wrote. It must be trusted: it contains pickles, which can run any code.

    ``algorithm``: PPO, DQN, A2C, or ``package.module:Class``; detected by default. UsageError for a file that is not a
    saved agent, and for an algorithm that does not fit it.
    """
    path = Path(path)
    data = _saved_data(path)
    chosen = _algorithm(path, algorithm or _detected(path, data))
    try:
        return chosen.load(path, device="cpu")
    except Exception as error:  # unpickling can raise anything
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise _refused(path, f"it cannot be loaded as {chosen.__name__} ({why})", "name its --algorithm") from error


def _saved_data(path: Path) -> dict[str, Any]:
    """The JSON part of a saved agent. Reading it unpickles nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("data").file_size > _MAX_DATA_BYTES:
                raise _refused(path, f"its data is larger than {_MAX_DATA_BYTES} bytes")
            data = json.loads(archive.read("data"))
    except OSError as error:
        raise UsageError(f"agent {path}: {error.strerror}; expected a file that `agent.save(...)` wrote") from None
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, NotImplementedError, RecursionError) as error:
        raise _refused(path, str(error).strip("'\"")) from None
    if not isinstance(data, dict):
        raise _refused(path, "its data is not a JSON object")
    return data


def _detected(path: Path, data: dict[str, Any]) -> str:
    for key, name in _MARKS.items():
        if key in data:
            return name
    expected = f"{', '.join(ALGORITHMS)} or package.module:Class"
    raise _refused(path, "its algorithm is unknown", f"give --algorithm {expected}")


def _algorithm(path: Path, name: str) -> type[BaseAlgorithm]:
    if name in ALGORITHMS:
        return cast(type[BaseAlgorithm], getattr(stable_baselines3, name))
    module, _, attribute = name.partition(":")
    if not attribute:
        raise UsageError(f"unknown algorithm {name!r}; expected one of: {', '.join(ALGORITHMS)}, package.module:Class")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or module).split(".")[0].replace("_", "-")  # as sb3_contrib is called on PyPI
        raise UsageError(f"algorithm {name!r}: {error}; install what has it: pip install {package}") from None
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"algorithm {name!r}: {error}; expected package.module:Class") from None
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise UsageError(f"algorithm {name!r} is not an algorithm of stable-baselines3; expected a BaseAlgorithm class")
    return found


def _check_spaces(agent: BaseAlgorithm, costs: CostTable, name: str) -> None:
    """UsageError unless the agent's spaces are those of an environment over this table."""
    observations, actions = observation_space(len(costs)), agent.action_space
    if agent.observation_space != observations:
        raise UsageError(
            f"{name}: got observations {_shapes(agent.observation_space)}; expected {_shapes(observations)}: "
            "train it on an environment of the same bundle and profile"
        )
    if isinstance(actions, spaces.Discrete) and actions == spaces.Discrete(len(costs)):
        return
    factors = [int(values) + 1 for values in factors_of(costs.space).max(axis=0)]
    if isinstance(actions, spaces.MultiDiscrete) and actions == spaces.MultiDiscrete(factors):
        return
    raise UsageError(f"{name}: got actions {actions}; expected Discrete({len(costs)}) or MultiDiscrete({factors})")


def _shapes(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return ", ".join(f"{key} {part.shape}" for key, part in space.spaces.items())
    return f"{type(space).__name__} {space.shape}"


def _refused(path: Path, why: str, way_out: str = "expected a file that `agent.save(...)` wrote") -> UsageError:
    return UsageError(f"agent {path} is not usable: {why}; {way_out}")
