"""Modules of a branchy detector: peaks of a map as candidates, and cuts that are trained for few bits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.codecs.tensor import THRESHOLD_FRAC, QuantisedTensor

MAP_STRIDE = 4  # input pixels per cell of an exit's map
SIDES = 4  # values per cell after the logits: log distances to the box's left, top, right and bottom, in cells
PEAKS = 32  # candidates per frame, where nothing else is said
NO_PEAK = -30.0  # logit of every other cell
LOG_DISTANCES = (-4.0, 6.0)  # a cell's distances are clamped to these limits
#: One of these, drawn with equal probability, quantises a training sample.
TRAINED_CODECS = tuple(map(QuantisedTensor, (1, 1, 2, 4)))


class Peaks(nn.Module):
    """Map (batch, classes + 4, h, w) to candidates (batch, peaks, 5) in evaluation mode: left, top, right, bottom,
    logit; (batch, peaks, 6) with the number of the class where there are several.

    Sides are fractions of the width and height of the input. Logits are relative to the operating threshold of the
    exit at this input width, so a candidate counts as a detection from logit 0 on. In training mode it returns the map.
    """

    threshold: Tensor

    def __init__(self, widths_px: tuple[int, ...], classes: int = 1, peaks: int = PEAKS) -> None:
        super().__init__()
        self.widths_px = widths_px
        self.classes = classes
        self.peaks = peaks
        self.register_buffer("threshold", torch.zeros(len(widths_px)))

    def forward(self, cells: Tensor) -> Tensor:
        if self.training:
            return cells
        cells = cells.float()
        height, width = cells.shape[-2:]
        logits = cells[:, : self.classes]
        peak = logits == F.max_pool2d(logits, 3, 1, 1)
        found = torch.where(peak, logits, NO_PEAK).flatten(1)
        best, index = found.topk(min(self.peaks, found.shape[1]))
        at = index % (height * width)
        sides_of = cells[:, self.classes :].flatten(2)
        distances = sides_of.gather(2, at[:, None].expand(-1, 4, -1)).clamp(*LOG_DISTANCES).exp()
        x, y = at % width + 0.5, at // width + 0.5
        left, top, right, bottom = distances.unbind(1)
        sides = ((x - left) / width, (y - top) / height, (x + right) / width, (y + bottom) / height)
        columns = [*sides, best - self._threshold(width * MAP_STRIDE)]
        if self.classes > 1:
            columns.append((index // (height * width)).float())
        return torch.stack(columns, 2)

    def calibrate(self, width_px: int, threshold: float) -> None:
        """Move the operating threshold at an input width by this many logits."""
        self.threshold[self.widths_px.index(width_px)] += threshold

    def _threshold(self, width_px: int) -> Tensor:
        nearest = min(range(len(self.widths_px)), key=lambda i: abs(self.widths_px[i] - width_px))
        return self.threshold[nearest]


class Cut(nn.Module):
    """In training, quantises the tensor at a cut like a payload codec; in evaluation mode, the identity.

    ``quantised_frac`` of the samples are quantised, each by one of ``codecs``, drawn with equal probability.
    ``sparsity_weight`` weighs the penalty that makes channels sparse.
    """

    def __init__(
        self,
        quantised_frac: float,
        sparsity_weight: float = 0.0,
        codecs: tuple[QuantisedTensor, ...] = TRAINED_CODECS,
    ) -> None:
        super().__init__()
        self.codecs = codecs
        self.quantised_frac = quantised_frac
        self.sparsity_weight = sparsity_weight

    def forward(self, z: Tensor) -> Tensor:
        if not self.training:
            return z
        if self.sparsity_weight > 0:
            z = _SparsityPenalty.apply(z, self.sparsity_weight)  # type: ignore[no-untyped-call]
        draw = torch.rand(len(z)).tolist()
        rows = [self._maybe_quantised(z[i : i + 1], draw[i]) for i in range(len(z))]
        return torch.cat(rows)

    def _maybe_quantised(self, z: Tensor, draw: float) -> Tensor:
        if draw >= self.quantised_frac:
            return z
        codec = self.codecs[int(draw / self.quantised_frac * len(self.codecs))]
        rounded = rounded_as(z.detach(), codec)
        return z + (rounded - z.detach())  # the gradient passes straight through (Bengio et al., 2013)


@torch.no_grad()
def rounded_as(z: Tensor, codec: QuantisedTensor) -> Tensor:
    """Round (batch, channels, h, w) as the payload codec does, but without rounding scales to float16."""
    flat = z.float().flatten(2)
    low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
    if codec.bits == 1:
        above = (flat > low + THRESHOLD_FRAC * (high - low)).float()
        below = 1.0 - above
        mean_above = (flat * above).sum(2, keepdim=True) / above.sum(2, keepdim=True).clamp(min=1.0)
        mean_below = (flat * below).sum(2, keepdim=True) / below.sum(2, keepdim=True).clamp(min=1.0)
        rounded = torch.where(above > 0, mean_above, mean_below)
    else:
        step = ((high - low) / codec.top_level).clamp(min=1e-8)
        rounded = low + step * ((flat - low) / step).round()
    return rounded.reshape(z.shape).to(z.dtype)


class _SparsityPenalty(torch.autograd.Function):
    """The identity; its gradient also lowers the mean L1/L2 ratio of the channels."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.weight = weight
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        with torch.enable_grad():
            x = z.detach().float().requires_grad_(True)
            ratio = x.mean((2, 3)) / (x.square().mean((2, 3)) + 1e-6).sqrt()
            (penalty,) = torch.autograd.grad(ratio.mean(), x)
        return gradient + (ctx.weight * penalty).to(gradient.dtype), None
