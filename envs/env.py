"""The Gymnasium environment: one device, one decision per step, on the twin or on real processes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from numpy.typing import NDArray

from controller.errors import UsageError
from controller.features.formula import FEATURE_SCHEMA, Features
from controller.predict.uplink import TraceBank
from controller.records import SystemState
from controller.scenario import Scenario, ScenarioRange
from envs.backend import Backend, TwinBackend
from envs.twin.twin import Reward, Twin

Observation = dict[str, NDArray[np.float32]]


def observation_space(candidates: int) -> spaces.Dict:
    """Boxes of the feature schema: the same table that the observations are made from."""
    low, high = FEATURE_SCHEMA.low, FEATURE_SCHEMA.high
    return spaces.Dict(
        {
            "context": spaces.Box(low, high, (len(FEATURE_SCHEMA.context),), np.float32),
            "candidates": spaces.Box(low, high, (candidates * len(FEATURE_SCHEMA.candidate),), np.float32),
        }
    )


class MecpilotEnv(gymnasium.Env[Observation, np.int64]):
    """
    ## Description

    A device must answer every frame of a camera before a deadline. Before each frame it decides how the inference
    runs: which model, at which resolution, up to which exit branch, how many stages on the device before the rest
    is sent to the MEC, with which payload codec, and (of a stream) how many of the next frames are not run at all. The uplink changes from second to second and is only seen by
    sending, the MEC serves others too, frames that wait too long are dropped, and a frame whose answer does not come
    in time is answered by a local fallback. docs/architecture.md has the timeline of one frame.

    ## Action Space

    `Discrete(C)`: the row of the table of candidate decisions (`env.unwrapped.backend.costs`). Every action is legal.
    `envs.wrappers.FactoredActions` offers the same as a `MultiDiscrete` over the fields of a decision.

    ## Observation Space

    A `Dict` of two `Box(-4, 4)`, float32. `controller.features.formula.FEATURE_SCHEMA` names every number, in order.

    | key | shape | what |
    |---|---|---|
    | `context` | `(D,)` | the moment: bandwidth history and its spread, age of the last sample, backlog, frames in flight and waiting, slowdowns, MEC queue, round trip, deadline, last outcomes |
    | `candidates` | `(C * F,)` | the candidates row by row, `F` features each: accuracy, device time, payload, MEC time, energy, and the slack to the deadline under five bandwidth estimates |

    ## Rewards

    The utility of the decided frame, of those with a reused answer and of those dropped before the next decision
    (`controller.utility`):
    score if on time, minus weighted energy, minus a penalty per drop. With `reward="expected"` the table's accuracy
    stands in for the recorded score. Live, it is the utility of all frames whose outcome came since the last step.

    ## Starting State

    A scenario drawn from the range with the environment's generator, or `options={"scenario": Scenario(...)}`.

    ## Episode Termination

    Truncation when the scenario's frames are over. There is no terminal state, so nothing terminates.

    ## Information

    Raw terms of the step: `status`, `latency_s`, `score`, `accuracy`, `energy_j`, `payload_bytes`, `utility`,
    `dropped`, `breakdown_s`, `frame`, `source_index`; live, `outcomes` has them for every frame that ended.

    ## Arguments

    `gymnasium.make("mecpilot/Inference-v0", workload="garments", backend="twin")`; see `make_env`.
    """  # noqa: E501

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own name and type

    def __init__(
        self, backend: Backend, bank: TraceBank, samples: int, range: ScenarioRange, seed: int | None = None
    ) -> None:
        self.backend = backend
        self._bank, self._samples, self._range = bank, samples, range
        self._features = Features(backend.costs, range.utility)
        self.observation_space: spaces.Dict = observation_space(len(backend.costs))  # type: ignore[assignment]
        self.action_space = spaces.Discrete(len(backend.costs))
        self.scenario: Scenario | None = None
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)

    @property
    def spec(self) -> EnvSpec | None:
        """As registered, except that real processes are never deterministic."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None and not self.backend.deterministic:
            spec = copy.copy(spec)
            spec.nondeterministic = True
        self._spec = spec

    _spec: EnvSpec | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"scenario"}:
            raise UsageError(f"unknown reset option {min(unknown)!r}; expected 'scenario'")
        drawn = self._range.sample(self.np_random, self._bank.duration_s, self._samples)
        self.scenario = options.get("scenario", drawn)
        return self._observation(self.backend.reset(self.scenario)), {}

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        step = self.backend.step(int(action))
        return self._observation(step.state), step.reward, False, step.done, step.info

    def close(self) -> None:
        self.backend.close()

    def _observation(self, state: SystemState) -> Observation:
        context, candidates = self._features.of(state)
        return {"context": context[0], "candidates": candidates[0].ravel()}


def make_env(
    workload: str | Path = "garments",
    backend: Literal["twin", "live"] = "twin",
    range: ScenarioRange | None = None,
    traces: TraceBank | Sequence[str | Path] | None = None,
    reward: Reward = "replayed",
    split: Literal["validation", "test"] = "validation",
    seed: int | None = None,
    profile: Path | None = None,
) -> MecpilotEnv:
    """The entry point of ``mecpilot/Inference-v0``.

    ``workload`` is the name of a shipped bundle or the directory of one; ``traces`` are files or folders (the
    built-in training traces by default); ``split`` says whose recorded predictions, or whose frames, are played.
    """
    from runtime.bundles.bundle import open_bundle
    from runtime.profiling.profile import candidates, load_costs

    bundle = open_bundle(workload)
    costs, range = candidates(load_costs(bundle, profile), bundle.default_range), range or bundle.default_range
    bank, recorded = _bank(traces), bundle.recorded(split)
    samples = recorded.score.shape[1]
    if backend == "twin":
        twin = Twin(costs, bank, recorded, range, reward=reward)
        return MecpilotEnv(TwinBackend(twin), bank, samples, range, seed)
    if backend == "live":
        from envs.live import LiveBackend

        return MecpilotEnv(LiveBackend(bundle, costs, bank, range, split, profile), bank, samples, range, seed)
    raise UsageError(f"unknown backend {backend!r}; expected 'twin' or 'live'")


def _bank(traces: TraceBank | Sequence[str | Path] | None) -> TraceBank:
    from runtime.files.traces import load_traces
    from runtime.testbed.markov_traces import builtin_traces

    if isinstance(traces, TraceBank):
        return traces
    return load_traces([Path(trace) for trace in traces]) if traces else builtin_traces("train")
