"""The network families of the garments workload: one function per family, and a table of them.

Exit heads use adaptive pooling, so one set of weights serves every resolution. Costs range over more than two orders of
magnitude: the first exit of the MobileNet costs a few thousandths of the last exit of the ResNet.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from runtime.models.blocks import conv_norm, pooled_head, separable
from runtime.models.stages import BranchyModel, Residual

CLASSES = 10


def alexnet() -> BranchyModel:
    """Five convolutions with five exits, after Edgent's branchy AlexNet (Li et al., 2019), for small images."""
    stages = [
        nn.Sequential(conv_norm(1, 24, 5), nn.MaxPool2d(3, 2, 1)),
        nn.Sequential(conv_norm(24, 64, 5), nn.MaxPool2d(3, 2, 1)),
        conv_norm(64, 96),
        conv_norm(96, 96),
        nn.Sequential(conv_norm(96, 64), nn.MaxPool2d(3, 2, 1)),
    ]
    exits = [
        pooled_head(24, 4, 48, CLASSES),
        pooled_head(64, 4, 64, CLASSES),
        pooled_head(96, 3, 64, CLASSES),
        pooled_head(96, 3, 64, CLASSES),
        pooled_head(64, 3, 192, CLASSES),
    ]
    return BranchyModel(stages, exits, (1, 2, 3, 4, 5))


def vgg() -> BranchyModel:
    """Pairs of 3x3 convolutions and max pooling (Simonyan and Zisserman, 2015)."""
    stages = [
        conv_norm(1, 16),
        nn.Sequential(conv_norm(16, 32), nn.MaxPool2d(2, ceil_mode=True)),
        conv_norm(32, 64),
        nn.Sequential(conv_norm(64, 64), nn.MaxPool2d(2, ceil_mode=True)),
        conv_norm(64, 96),
        nn.Sequential(conv_norm(96, 96), nn.MaxPool2d(2, ceil_mode=True)),
        nn.Sequential(conv_norm(96, 128), conv_norm(128, 128)),
    ]
    exits = [
        pooled_head(32, 4, 48, CLASSES),
        pooled_head(64, 4, 64, CLASSES),
        pooled_head(96, 3, 96, CLASSES),
        pooled_head(128, 2, 128, CLASSES),
    ]
    return BranchyModel(stages, exits, (2, 4, 6, 7))


def _basic_block(inputs: int, outputs: int, stride: int = 1) -> Residual:
    main = nn.Sequential(conv_norm(inputs, outputs, 3, stride), conv_norm(outputs, outputs, relu=False))
    same = stride == 1 and inputs == outputs
    shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride, relu=False)
    return Residual(main, shortcut)


def resnet() -> BranchyModel:
    """Basic residual blocks (He et al., 2016); the most accurate and most expensive family."""
    stages = [
        conv_norm(1, 16),
        _basic_block(16, 32),
        _basic_block(32, 64, 2),
        _basic_block(64, 64),
        _basic_block(64, 96, 2),
        _basic_block(96, 96),
    ]
    exits = [
        pooled_head(16, 4, 48, CLASSES),
        pooled_head(32, 4, 64, CLASSES),
        pooled_head(64, 4, 64, CLASSES),
        pooled_head(96, 1, 0, CLASSES),
    ]
    return BranchyModel(stages, exits, (1, 2, 4, 6))


def mobilenet() -> BranchyModel:
    """Depthwise separable convolutions (Howard et al., 2017); the cheapest family."""
    stages = [
        conv_norm(1, 16, 3, 2),
        nn.Sequential(separable(16, 32), separable(32, 32)),
        nn.Sequential(separable(32, 64, 2), separable(64, 64)),
        nn.Sequential(separable(64, 64), separable(64, 64)),
        nn.Sequential(separable(64, 128, 2), separable(128, 128)),
    ]
    exits = [
        pooled_head(16, 4, 32, CLASSES),
        pooled_head(32, 4, 48, CLASSES),
        pooled_head(64, 3, 64, CLASSES),
        pooled_head(128, 2, 64, CLASSES),
    ]
    return BranchyModel(stages, exits, (1, 2, 3, 5))


FAMILIES: dict[str, Callable[[], BranchyModel]] = {
    "alexnet": alexnet,
    "vgg": vgg,
    "resnet": resnet,
    "mobilenet": mobilenet,
}


def build(family_name: str) -> BranchyModel:
    """A newly initialised model of a family."""
    return FAMILIES[family_name]()
