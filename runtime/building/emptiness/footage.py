"""Footage of a camera for training: small copies of consecutive frames, and what a model of a bundle finds in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from controller.errors import UsageError
from controller.records import NO_PAYLOAD, Decision
from runtime.bundles.bundle import Bundle
from runtime.emptiness.background import small_copy
from runtime.emptiness.file import small_step
from runtime.sources.footage import letterbox, open_footage
from runtime.sources.shots import Watch
from runtime.workloads.base import Workload
from runtime.workloads.boxes import Boxes
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Image, Split

#: A quarter of an hour at ten frames per second; 250 MB of small copies of campus frames.
MOST_FRAMES = 9000


@dataclass(frozen=True)
class Labelled:
    """Consecutive frames."""

    smalls: NDArray[np.uint8]  # (N, h, w)
    boxes: list[Boxes]  # in pixels of the frames

    def part(self, first: int, last: int) -> Labelled:
        """The frames from ``first`` up to ``last``, which is not among them."""
        return Labelled(self.smalls[first:last], self.boxes[first:last])


def labeller(bundle: Bundle, model: str | None = None) -> Decision:
    """The device-only decision with the best score on validation frames, of one model or of all that torch runs."""
    score, space = bundle.recorded("validation").score.mean(axis=1), bundle.space
    names = bundle.model_names if model is None else (bundle.info(model).name,)
    torches = [name for name in names if bundle.info(name).engine == "torch"]
    rows = [
        row
        for row, decision in enumerate(space.decisions)
        if decision.payload == NO_PAYLOAD and decision.frame_stride == 1 and decision.model in torches
    ]
    if not rows:
        raise UsageError(f"--model {model}: it cannot label frames; expected a model that torch runs on the device")
    return space.decisions[max(rows, key=lambda row: float(score[space.variant[row]]))]


def labelled(
    frames: Iterator[Image], bundle: Bundle, work: Workload, decision: Decision, seen: Callable[[], None]
) -> Labelled:
    """At most ``MOST_FRAMES`` frames, with the answers of the model; ``seen`` is called after each."""
    model, step = bundle.model(decision.model), small_step(bundle.frame_shape[0])
    smalls, boxes = [], list[Boxes]()
    with torch.inference_mode():
        for frame in islice(frames, MOST_FRAMES):
            image = work.resize(frame, decision.resolution_px)
            outputs = model.all_exits(model_input(work, model, image[None]))[decision.exit_branch]
            boxes += work.answers(outputs.numpy(), decision.resolution_px)
            smalls.append(small_copy(frame, step).astype(np.uint8))
            seen()
    if not smalls:
        raise UsageError("the footage has no frame; expected a video of the camera")
    return Labelled(np.stack(smalls), boxes)


def frames_of(source: str, shape: tuple[int, ...]) -> Iterator[Image]:
    """The pictures of a source that the user named, letterboxed to (h, w) or (h, w, 3)."""
    watch = Watch()
    shots = open_footage(source).shots(0, watch)
    try:
        for shot in shots:
            yield letterbox(shot.image, shape)
    finally:
        watch.stop()
        shots.close()


def samples_of(work: Workload, split: Split) -> Iterator[Image]:
    """The workload's own frames."""
    return (work.sample(index, split)[0] for index in range(work.sample_count(split)))
