"""Make the inference copy of a model: norms folded into the convolutions, evaluation mode, no gradients."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from runtime.models.pixel_encoder import PixelEncoder
from runtime.models.stages import BranchyModel, channels_last


def fold_for_inference(model: BranchyModel) -> BranchyModel:
    """A frozen copy without batch norm, with compiled encoders of pixels, and weights in channels-last order."""
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, PixelEncoder):
                setattr(module, name, child.folded())
            elif isinstance(child, nn.Sequential):
                _fold_children(child)
    return channels_last(folded)


def _fold_children(sequence: nn.Sequential) -> None:
    """Fuse each convolution with the batch norm that follows it."""
    kept: list[nn.Module] = []
    for module in sequence:
        if isinstance(module, nn.BatchNorm2d) and kept and isinstance(kept[-1], nn.Conv2d):
            kept[-1] = fuse_conv_bn_eval(kept[-1], module).requires_grad_(False)
        else:
            kept.append(module)
    for name in list(sequence._modules):
        del sequence._modules[name]
    for index, module in enumerate(kept):
        sequence.add_module(str(index), module)
