"""Structured pruning: take whole channels out of a trained model until a share of its multiply-accumulates is left.

torch-pruning follows the graph of the model, so that channels that are added, or convolved one by one, are pruned
together (DepGraph; Fang et al., 2023). Channels with the smallest weights go, about the same share of every layer.
What is left is a multiple of `CHANNEL_STEP`, because processors compute as many at a time. The last layer of each exit
head keeps its outputs: they are what the answers are made of. Without this rule, pruned detectors detect nothing.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from controller.errors import FailureError, UsageError
from runtime.compression.distillation import with_maps
from runtime.models.describe import describe_layers
from runtime.models.few_bits import output_layers
from runtime.models.folding import fold_for_inference
from runtime.models.stages import BranchyModel

CHANNEL_STEP = 8
#: The search for the share of channels ends at this precision.
_PRECISION_FRAC = 1 / 256


def missing_pruning() -> str:
    """What to install before `pruned` works, or ""."""
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        return "structured pruning needs torch-pruning; install it with pip install '.[compress]'"
    return ""


def pruned(model: BranchyModel, example: Tensor, macs_frac: float) -> BranchyModel:
    """A pruned copy of a trainable model that has at most ``macs_frac`` of its multiply-accumulates.

    ``example`` is an input (1, ...); all stages and exits count. UsageError where the library is missing or so few
    cannot be reached.
    """
    if missing := missing_pruning():
        raise UsageError(missing)
    if model.takes_pixels:
        raise UsageError("a model with an encoder of pixels has fixed widths; expected a model without one")
    most = macs_frac * macs_of(model, example)
    low, high, best = 0.0, 1.0, None
    while high - low > _PRECISION_FRAC:  # the least share of channels that is enough
        middle = (low + high) / 2
        found = _without(copy.deepcopy(model), example, middle)
        if macs_of(found, example) <= most:
            high, best = middle, found
        else:
            low = middle
    if best is None:
        raise UsageError(
            f"pruning to {macs_frac:g} of the multiply-accumulates is not possible; expected a larger share"
        )
    check_outputs(model, best, example)
    return best


def macs_of(model: BranchyModel, example: Tensor) -> int:
    """Multiply-accumulates of all stages and exits for one input."""
    layers = describe_layers(fold_for_inference(model), example)
    return sum(layer.macs for part in (*layers.stages, *layers.exits) for layer in part)


def _without(model: BranchyModel, example: Tensor, channels_frac: float) -> BranchyModel:
    """Prune a share of the channels of every layer in place; returns the model."""
    import torch_pruning

    with_maps(model.eval())  # the graph is followed from maps: peaks have no gradient
    named = dict(model.named_modules())
    outputs = [named[name] for name in output_layers(model)]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example.contiguous(memory_format=torch.channels_last),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio_dict={
            layer: _taken_frac(layer, channels_frac) for layer in _layers(model) if layer not in outputs
        },
        pruning_ratio=0.0,
        ignored_layers=outputs,
        round_to=CHANNEL_STEP,
        forward_fn=lambda pruned_model, x: pruned_model.all_exits(x),
    )
    pruner.step()
    return model.requires_grad_(True)


def _layers(model: BranchyModel) -> list[nn.Conv2d | nn.Linear]:
    return [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def _taken_frac(layer: nn.Conv2d | nn.Linear, channels_frac: float) -> float:
    """The share of a layer's channels whose removal leaves a multiple of `CHANNEL_STEP` near the wanted number.

    torch-pruning rounds down what is left, so half a channel more is asked for. Layers of few channels, for instance
    bottlenecks, keep them all.
    """
    count = len(layer.weight)
    left = max(1, round(count * (1.0 - channels_frac) / CHANNEL_STEP)) * CHANNEL_STEP
    return 1.0 - (left + 0.5) / count if left < count else 0.0


@torch.no_grad()
def check_outputs(model: BranchyModel, smaller: BranchyModel, example: Tensor) -> None:
    """FailureError unless all exits of both models give finite outputs of the same shape."""
    pairs = zip(model.eval().all_exits(example), smaller.eval().all_exits(example), strict=True)
    for whole, part in pairs:
        if whole.shape != part.shape or not bool(torch.isfinite(part).all()):
            raise FailureError(
                f"an exit of the pruned model gives {tuple(part.shape)}; expected finite values {tuple(whole.shape)}"
            )
