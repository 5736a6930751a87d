"""Read and write weights as safetensors: matrices and kernels in float16, norms and biases in float32.

Accuracy is measured with the stored weights, so the accuracy in the manifest is that of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from controller.errors import FailureError
from runtime.models.folding import fold_for_inference
from runtime.models.stages import BranchyModel

Build = Callable[[str], BranchyModel]  # returns a new model of a family: `Models.build` of a workload


def save_weights(model: BranchyModel, path: Path) -> None:
    """Write the weights of a trained model, before folding."""
    stored = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in model.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in stored.items()}, path)


def load_weights(path: Path, build: Build, family: str) -> BranchyModel:
    """The trainable model in float32; FailureError when the file does not fit the family."""
    try:
        model = build(family)
        stored = load_file(path)
        model.load_state_dict({name: _as_float32(value) for name, value in stored.items()})
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FailureError(f"{path} does not hold the weights of a {family}: {reason}") from None
    return model


def _as_float32(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def load_for_inference(path: Path, build: Build, family: str, exit_after: tuple[int, ...]) -> BranchyModel:
    """The folded copy for inference; FailureError when its exits are not those that the manifest states."""
    model = load_weights(path, build, family)
    if model.exit_after != exit_after:
        raise FailureError(f"{path}: {family} has exits after {model.exit_after}, but the manifest states {exit_after}")
    return fold_for_inference(model)
