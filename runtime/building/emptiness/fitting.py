"""Fits the tiny network of ``runtime.emptiness.network`` to whole frames and the boxes in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from runtime.emptiness.background import Background, Small
from runtime.emptiness.network import CELL, SHAPES, Weights, network_input
from runtime.workloads.boxes import Boxes

EPOCHS = 30
BATCH = 16
LEARNING_RATE = 5e-3
#: Frames of which the median is taken for the background.
MOST_FOR_MEDIAN = 100


def median_level(smalls: Sequence[Small]) -> Small:
    """The background of frames."""
    step = max(1, len(smalls) // MOST_FOR_MEDIAN)
    return np.asarray(np.median(np.stack(smalls[::step]), axis=0), np.float32)


def fitted(smalls: Sequence[Small], boxes: Sequence[Boxes], step: int, seed: int = 0) -> Weights:
    """The network after training. ``smalls``: small copies (h, w) of whole frames. ``boxes``: in pixels of the frames,
    which have ``step`` times as many pixels in both directions."""
    background = Background(median_level(smalls))
    inputs = torch.from_numpy(np.stack([network_input(background.difference(small).levels) for small in smalls]))
    targets, weights = cell_targets(boxes, smalls[0].shape, step * CELL)
    torch.manual_seed(seed)
    network, rng = _network(), np.random.default_rng(seed)
    batches = EPOCHS * (len(smalls) // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(batches, 2))
    for _ in range(batches):
        rows = torch.from_numpy(rng.choice(len(smalls), BATCH, replace=False))
        loss = _loss(network, *_augmented(inputs[rows], targets[rows], weights[rows], rng))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return _weights(network)


def cell_targets(boxes: Sequence[Boxes], small: tuple[int, ...], cell_px: int) -> tuple[Tensor, Tensor]:
    """(N, h, w) 1 in the cell of the middle of each box, and (N, h, w) the weight of each cell in the loss: 0 next to
    these."""
    height, width = (-(-side // CELL) for side in small)
    targets, weights = np.zeros((len(boxes), height, width), np.float32), np.ones((len(boxes), height, width))
    for frame, found in enumerate(boxes):
        cells = [_cell(box, cell_px, height, width) for box in found]
        for row, column in cells:
            weights[frame, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0.0
        for row, column in cells:
            targets[frame, row, column] = weights[frame, row, column] = 1.0
    return torch.from_numpy(targets), torch.from_numpy(weights.astype(np.float32))


def _cell(box: Sequence[float], cell_px: int, height: int, width: int) -> tuple[int, int]:
    x, y, w, h = box[:4]
    row, column = (y + h / 2) // cell_px, (x + w / 2) // cell_px
    return int(np.clip(row, 0, height - 1)), int(np.clip(column, 0, width - 1))


def _network() -> nn.Sequential:
    channels, filters, cells = SHAPES.first.shape[1], len(SHAPES.first), len(SHAPES.second)
    network = nn.Sequential(
        nn.Conv2d(channels, filters, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(filters, cells, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(cells, cells, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(cells, 1, 1),
    )
    nn.init.constant_(network[-1].bias, -3.0)  # type: ignore[arg-type] # nearly all cells are empty
    return network


def _loss(network: nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    errors = functional.binary_cross_entropy_with_logits(network(inputs)[:, 0], targets, reduction="none")
    return (errors * weights).sum() / weights.sum()


def _augmented(
    inputs: Tensor, targets: Tensor, weights: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirrored, with another contrast, and noisier."""
    if rng.random() < 0.5:
        inputs, targets, weights = inputs.flip(3), targets.flip(2), weights.flip(2)
    noisy = inputs * float(rng.uniform(0.6, 1.3)) + 0.05 * torch.randn_like(inputs)
    return noisy, targets, weights


def _weights(network: nn.Sequential) -> Weights:
    arrays: list[NDArray[np.float32]] = [parameter.detach().numpy() for parameter in network.parameters()]
    return Weights(*arrays)
