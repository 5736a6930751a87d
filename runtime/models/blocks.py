"""Building blocks of branchy models: convolutions with batch norm, and the exit head of a classifier."""

from __future__ import annotations

from torch import nn

from runtime.models.stages import Residual


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, *, relu: bool = True
) -> nn.Sequential:
    """Convolution with "same" padding, batch norm (folded away for inference) and, with ``relu``, a ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, momentum=0.03),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """A depthwise 3x3 and a pointwise 1x1 convolution, with a shortcut if the shapes allow one."""
    main = nn.Sequential(conv_norm(inputs, inputs, 3, stride, groups=inputs), conv_norm(inputs, outputs, 1))
    same = stride == 1 and inputs == outputs
    return Residual(main, nn.Identity(), final_relu=False) if same else main


def pooled_head(channels: int, pool: int, hidden: int, classes: int) -> nn.Sequential:
    """Exit head: average pooling to ``pool`` x ``pool``, a hidden layer unless ``hidden`` is 0, and logits."""
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
