"""A small classifier with exits, for pictures of any size."""

from __future__ import annotations

from torch import nn

from runtime.models.blocks import conv_norm, pooled_head, separable
from runtime.models.stages import BranchyModel


def classifier(size: str, colours: int, classes: int) -> BranchyModel:
    """A newly initialised classifier for inputs (batch, colours, h, w): depthwise separable convolutions, three exits.

    KeyError where the size is unknown.
    """
    return CLASSIFIERS[size](colours, classes)


def _tiny(colours: int, classes: int) -> BranchyModel:
    stages = [
        nn.Sequential(conv_norm(colours, 16, 3, 2), separable(16, 32, 2)),
        nn.Sequential(separable(32, 64, 2), separable(64, 64)),
        nn.Sequential(separable(64, 128, 2), separable(128, 128)),
        nn.Sequential(separable(128, 192, 2), separable(192, 192)),
    ]
    exits = [pooled_head(64, 2, 64, classes), pooled_head(128, 2, 96, classes), pooled_head(192, 2, 128, classes)]
    return BranchyModel(stages, exits, (2, 3, 4))


CLASSIFIERS = {"tiny": _tiny}
