"""Saves and loads checkpoints: one safetensors file with the weights, Adam's moments and the number of steps.

Nothing is pickled, and nothing depends on the number of candidates: a run may resume with another decision space or on
the live backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from stable_baselines3 import PPO
from torch import Tensor

from agents.learn.policy import scorer_of
from agents.runs.progress import counters_of, refused
from controller.controllers.learned import FrozenPolicy
from runtime.files.atomic import write_whole

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


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


def load_checkpoint(model: PPO, path: Path) -> None:
    """Load weights, moments and counters into a model of the same architecture. UsageError if the file cannot be
    used."""
    tensors, counters = _read(path)
    weights = _section(tensors, "policy/")
    try:
        model.policy.load_state_dict(weights)
        model.num_timesteps, model._n_updates = int(counters["steps"]), int(counters["updates"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise refused(path, str(error).splitlines()[0]) from error
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
        raise refused(path, str(error).splitlines()[0]) from error


def _optimizer_state(model: PPO) -> dict[str, dict[str, Any]]:
    state = model.policy.optimizer.state
    return {name: state[parameter] for name, parameter in model.policy.named_parameters() if parameter in state}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    counters = counters_of(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, counters  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise refused(path, str(error)) from error


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
