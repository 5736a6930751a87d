"""Saves and loads checkpoints: one safetensors file with the weights, Adam's moments and the number of steps.

Nothing is pickled, and nothing depends on the number of candidates: a run may resume with another decision space or on
the live backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from stable_baselines3 import PPO
from torch import Tensor

from agents.learn.policy import scorer_of
from controller.controllers.learned import FrozenPolicy
from controller.errors import UsageError
from runtime.files.atomic import write_whole

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True)
class Reached:
    """Progress of a training."""

    steps: int = 0
    goal: int = 0  # number of steps at which it ends; 0 if unknown
    rounds_left: int = 0  # remaining rounds of the warm start

    @property
    def finished(self) -> bool:
        return self.steps >= self.goal


def checkpoint_bytes(model: PPO, goal: int = 0, rounds_left: int = 0) -> bytes:
    """The learner as the content of a checkpoint file."""
    tensors = {f"policy/{name}": tensor for name, tensor in model.policy.state_dict().items()}
    for name, state in _optimizer_state(model).items():
        tensors |= {f"{moment}/{name}": state[moment] for moment in _MOMENTS if moment in state}
    counters = {"steps": model.num_timesteps, "updates": model._n_updates, "goal": goal, "rounds_left": rounds_left}
    written = {name: str(value) for name, value in counters.items()}
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, written)


def save_checkpoint(model: PPO, path: Path, goal: int = 0, rounds_left: int = 0) -> None:
    """Write the learner; the file is complete or unchanged."""
    write_whole(
        path,
        checkpoint_bytes(model, goal, rounds_left),
        "checkpoint",
        "free some space or choose another --out",
        make_folder=True,
    )


def reached(path: Path) -> Reached:
    """Progress of the training when it wrote this checkpoint. UsageError if the file cannot be used."""
    counters = _read(path)[1]
    try:
        return Reached(*(int(counters.get(name, "0")) for name in ("steps", "goal", "rounds_left")))
    except ValueError as error:
        raise _refused(path, str(error)) from error


def load_checkpoint(model: PPO, path: Path) -> None:
    """Load weights, moments and counters into a model of the same architecture. UsageError if the file cannot be
    used."""
    tensors, counters = _read(path)
    weights = _section(tensors, "policy/")
    try:
        model.policy.load_state_dict(weights)
        model.num_timesteps, model._n_updates = int(counters["steps"]), int(counters["updates"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise _refused(path, str(error).splitlines()[0]) from error
    moments = {moment: _section(tensors, f"{moment}/") for moment in _MOMENTS}
    for name, parameter in model.policy.named_parameters():
        if name in moments["step"]:
            model.policy.optimizer.state[parameter] = {m: moments[m][name].clone() for m in _MOMENTS}


def load_actor(path: Path) -> FrozenPolicy:
    """The actor alone, as numpy arrays. UsageError if the file cannot be used."""
    weights = _section(_read(path)[0], "policy/scorer.")
    try:
        return scorer_of(weights).frozen()
    except (RuntimeError, KeyError, ValueError) as error:
        raise _refused(path, str(error).splitlines()[0]) from error


def _optimizer_state(model: PPO) -> dict[str, dict[str, Any]]:
    state = model.policy.optimizer.state
    return {name: state[parameter] for name, parameter in model.policy.named_parameters() if parameter in state}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}; `mecpilot train` makes one")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _refused(path, str(error)) from error


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(
        f"checkpoint {path}: {why}; expected one that this version's `mecpilot train` wrote; "
        "delete it to resume from the one before, or train again"
    )
