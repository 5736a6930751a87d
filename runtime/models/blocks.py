"""Building blocks of branchy models: a convolution with its norm, and the head of a classifier's exit."""

from __future__ import annotations

from torch import nn


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, *, relu: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, unless it is refused, relu; "same" padding. Inference folds the norm away."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, momentum=0.03),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def pooled_head(channels: int, pool: int, hidden: int, classes: int) -> nn.Sequential:
    """Exit head: pool to pool x pool, then one hidden layer (none when hidden is 0)."""
    features = channels * pool * pool
    if hidden == 0:
        return nn.Sequential(nn.AdaptiveAvgPool2d(pool), nn.Flatten(), nn.Linear(features, classes))
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(pool),
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
