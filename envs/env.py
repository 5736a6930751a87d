"""The Gymnasium environment: one device, one decision per step, in the twin or with real processes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from numpy.typing import NDArray

from controller.errors import UsageError
from controller.features.fast import Features
from controller.features.schema import FEATURE_SCHEMA
from controller.predict.uplink import TraceBank
from controller.records import Decision, SystemState
from controller.scenario import Scenario, ScenarioRange
from envs.backend import Backend, TwinBackend
from envs.twin.shortcut import TableShortcut
from envs.twin.twin import Reward

if TYPE_CHECKING:
    from runtime.bundles.bundle import Bundle

Observation = dict[str, NDArray[np.float32]]


def observation_space(candidates: int) -> spaces.Dict:
    """The space of observations for a table of `candidates` decisions, from the feature schema."""
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
    runs: which model, at which resolution, up to which exit branch, how many stages run on the device before the rest
    is sent to the MEC (a server at the base station), with which payload codec, and, for a video, how many of the next
    frames are skipped. The uplink changes every second and can only be measured by sending. The MEC serves other
    devices too. A frame that waits too long is dropped. A frame whose reply is late is answered by a local fallback.
    docs/architecture.md has the timeline of one frame.

    ## Action Space

    `Discrete(C)`: a row of the table of candidate decisions, `env.unwrapped.backend.costs`. Every action is legal.
    `env.unwrapped.decision(action)` is the action as a `Decision`. `envs.wrappers.FactoredActions` offers the same
    table as a `MultiDiscrete` over the fields of a decision.

    ## Observation Space

    A `Dict` of two `Box(-4, 4)`, float32. `controller.features.schema.FEATURE_SCHEMA` names every number, in order.

    | key | shape | what |
    |---|---|---|
    | `context` | `(D,)` | the moment: bandwidth history and its spread, age of the last sample, backlog, frames in flight and waiting, slowdowns, MEC queue, round trip, deadline, last outcomes, and what is known of the scene |
    | `candidates` | `(C * F,)` | the candidates row by row, `F` features each: accuracy, device time, payload, MEC time, energy, and the slack to the deadline under four bandwidth estimates |

    ## Rewards

    The utility (`controller.utility`) of the decided frame, of the frames with a reused answer, and of the frames
    dropped before the next decision: score if on time, minus weighted energy, minus a penalty per dropped frame. With
    `reward="expected"` the table's accuracy replaces the recorded score. With `live=True` it is the utility of all
    frames that ended since the last step.

    ## Starting State

    A scenario drawn from the range, or the one in `reset(options={"scenario": Scenario(...)})`.

    ## Episode Termination

    Truncation after the scenario's last frame. There is no terminal state.

    ## Information

    Raw terms of the step: `frame`, `source_index`, `status`, `latency_s`, `score`, `accuracy`, `energy_j`,
    `payload_bytes`, `utility`, `reused`, `reused_score`, `dropped`, `breakdown_s`. With `live=True`, `outcomes` has
    one entry per frame that ended since the last step.

    ## Arguments

    `gymnasium.make("mecpilot/Campus-v0", live=False)`; `make_env` describes every argument.
    `mecpilot/Inference-v0` also takes `bundle=`, a name or a directory.
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
        """As registered, but marked nondeterministic with real processes."""
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
        drawn = self._range.sample(self.np_random, self._bank, self._samples)
        self.scenario = options.get("scenario", drawn)
        return self._observation(self.backend.reset(self.scenario)), {}

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        step = self.backend.step(int(action))
        return self._observation(step.state), step.reward, False, step.done, step.info

    def close(self) -> None:
        self.backend.close()

    def decision(self, action: np.int64 | int) -> Decision:
        """The decision that an action stands for."""
        return self.backend.costs.space.decisions[int(action)]

    def _observation(self, state: SystemState) -> Observation:
        context, candidates = self._features.of(state)
        return {"context": context[0], "candidates": candidates[0].ravel()}


def make_env(
    bundle: str | Path | Bundle = "campus",
    *,
    traces: TraceBank | str | Path | Sequence[str | Path] | None = None,
    scenario: ScenarioRange | Mapping[str, Any] | str | Path | None = None,
    live: bool = False,
    reward: Reward = "replayed",
    split: Literal["validation", "test"] = "validation",
    seed: int | None = None,
    profile: str | Path | None = None,
    no_raw_upload: bool = False,
    shortcuts: Sequence[TableShortcut] = (),
    forecast: bool | None = None,
    roi: bool = False,
) -> MecpilotEnv:
    """One device as a Gymnasium environment: ``make_env("campus", scenario={"fps": 10})``.

    bundle    a shipped bundle's name, a bundle's directory, or an open bundle
    traces    uplink traces: a file, a folder, several of them, or a TraceBank; default: the built-in training traces
    scenario  the range that episodes are drawn from: a ScenarioRange, a mapping of the fields that differ from the
              workload's default range, or a JSON file of them
    live      real processes and real time instead of the emulated twin
    reward    "replayed" pays the recorded score of the sample, "expected" the mean accuracy of the decision
    split     the samples that are played: "validation" or "test"
    profile   a file that ``mecpilot profile`` wrote, or "shipped"; default: this machine's, else the shipped one
    no_raw_upload  no candidate decision sends an image
    shortcuts  of the twin: what may answer a frame before it is decided, see docs/extending.md
    forecast  answers that stand for later frames move on (docs/forecast.md); default: if the bundle can say what that
              scores
    roi       decisions may run a part of the picture, where something moves, see docs/roi.md

    UsageError for an unknown name, field or file, and for shortcuts with ``live``.
    """
    from envs.setup import open_setup, traces_of
    from envs.techniques import Techniques
    from runtime.bundles.bundle import open_bundle
    from runtime.config.sections.device import PrivacySection
    from runtime.regions.costs import crops_if

    if live and shortcuts:
        raise UsageError("got shortcuts with live=True; expected shortcuts of the twin, or live=True")
    privacy = PrivacySection(no_raw_upload=no_raw_upload)
    opened = open_bundle(bundle)
    techniques = Techniques(forecast=forecast, crops=crops_if(roi, opened.work))
    setup = open_setup(
        opened, traces_of(traces, "train"), split, scenario, profile, privacy, shortcuts, techniques=techniques
    )
    backend: Backend = setup.live() if live else TwinBackend(setup.twin(reward=reward))
    return MecpilotEnv(backend, setup.bank, setup.recorded.score.shape[1], setup.range, seed)
