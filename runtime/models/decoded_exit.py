"""The last exit of a foreign model: its own outputs become candidates, so that a reply is small wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from controller.errors import FailureError
from runtime.decoders.base import Decoder, Size, decoded
from runtime.decoders.boxes import suppressed
from runtime.models.detector_parts import NO_PEAK
from runtime.models.packing import Shape, Shapes, alike, packed_shape, unpack

#: A candidate below the threshold by more than this, as a logit, says nothing and is left out.
LEAST_LOGIT = -3.0
_EDGE = 1e-6  # scores are kept this far from 0 and 1, so that their logits are finite


@dataclass(frozen=True)
class Candidates:
    """How boxes become candidates."""

    threshold: float  # score of logit 0
    most: int  # rows of a frame
    nms_iou: float  # overlap of two candidates of one class that show the same object
    several_classes: bool  # a last column holds the class


class DecodedExit(nn.Module):
    """Packed outputs (batch, values) of a foreign model to candidates (batch, most, 5 or 6) or logits (batch, classes).

    Candidates are as of `runtime.models.detector_parts.Peaks`, best first: left, top, right, bottom as fractions of the
    input, and a logit relative to the threshold; with several classes, the class. Rows without one have the logit
    NO_PEAK. Without ``boxes``, the decoder's own values are given. It has no parameters.

    A sample whose outputs are not finite has no candidate, or the logits of outputs of zero.
    """

    def __init__(self, decoder: Decoder, outputs: Mapping[Size, Shapes], boxes: Candidates | None) -> None:
        """``outputs``: shapes of the outputs for each size of the input.

        Where they look alike at several sizes and the decoder needs the size, the last values of the packed outputs
        are height and width (`runtime.onnx_graphs.extraction.with_size`).
        """
        super().__init__()
        self._decoder, self._boxes = decoder, boxes
        self._values = 0  # that the decoder gave first; 0 before that
        self._sizes = tuple(outputs)
        self._size_arrives = decoder.needs_size and alike(outputs.values())
        self._places: dict[Shape, tuple[Size, Shapes]] = {}
        for size, shapes in outputs.items():
            arriving = (*shapes, (2,)) if self._size_arrives else shapes
            self._places.setdefault(packed_shape(arriving), (size, arriving))

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        if shape not in self._places:
            raise ValueError(f"a decoder got outputs of {shape}; expected one of {sorted(self._places)}")
        size, shapes = self._places[shape]  # any of several sizes, where the decoder does not need it
        outputs = unpack(x.detach().cpu().numpy(), shapes)
        samples = [self._sample([output[row] for output in outputs], size) for row in range(len(x))]
        return torch.from_numpy(np.stack(samples)).to(x.device)

    def _sample(self, outputs: list[NDArray[np.float32]], size: Size) -> NDArray[np.float32]:
        finite = all(np.isfinite(output).all() for output in outputs)
        if self._size_arrives:
            *outputs, arrived = outputs
            size = next((known for known in self._sizes if (arrived == known).all()), size)
        if self._boxes is None:
            known = outputs if finite else [np.zeros_like(output) for output in outputs]
            return self._as_many(np.asarray(decoded(self._decoder, known, size, boxes=False)))
        found = decoded(self._decoder, outputs, size) if finite else np.zeros((0, 6), np.float32)
        return _as_candidates(found, self._boxes)

    def _as_many(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        self._values = self._values or len(values)
        if len(values) != self._values:
            raise FailureError(
                f"{self._decoder} gave {len(values)} values, and {self._values} before; expected always as many"
            )
        return values


def _as_candidates(found: NDArray[np.floating], how: Candidates) -> NDArray[np.float32]:
    """(most, 5 or 6) candidates of boxes (n, 6) with scores."""
    found = np.array(found, np.float32)
    found = found[np.isfinite(found).all(axis=1)]
    score = np.clip(found[:, 4].astype(np.float64), _EDGE, 1.0 - _EDGE)
    found[:, 4] = np.log(score / (1.0 - score)) - np.log(how.threshold / (1.0 - how.threshold))
    found[:, :4] = np.clip(found[:, :4], 0.0, 1.0)
    has_area = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    found = suppressed(found[has_area & (found[:, 4] >= LEAST_LOGIT)], how.nms_iou, how.most)
    rows = np.zeros((how.most, 6), np.float32)
    rows[:, 4] = NO_PEAK
    rows[: len(found)] = found
    return rows if how.several_classes else rows[:, :5]
