"""The campus workload: detect people in the video of a fixed camera over an industrial campus.

The video has 795 frames of 768 x 576 pixels. Splits are consecutive frames: 0-423 train, 424-529 validation, 530-794
test; `index` counts within a split. Nothing is trained or chosen on the test split. The labels are made by an automatic
teacher (`runtime.workloads.campus.teacher`), not by people, and the teacher makes mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError
from controller.forecast import Forecaster
from controller.scenario import Scenario, ScenarioRange
from runtime.workloads.base import Workload
from runtime.workloads.boxes import Boxes, count_matches, expected_f1, inside
from runtime.workloads.campus.boxes import kept_candidates
from runtime.workloads.campus.labels import read_labels
from runtime.workloads.crop_decisions import CropDecisions
from runtime.workloads.datasets import VIDEO_NAME, find_campus_video
from runtime.workloads.drawing import draw_boxes
from runtime.workloads.family_decisions import FamilyDecisions
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image, Images, Outputs, Split

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.models.stages import BranchyModel
    from runtime.models.training import TrainingTask

WIDTH_PX = 768
HEIGHT_PX = 576
FRAMES = 795
SPLITS: Mapping[Split, range] = MappingProxyType(
    {"train": range(424), "validation": range(424, 530), "test": range(530, FRAMES), "all": range(FRAMES)}
)
PIXEL_MEAN = 128.0
PIXEL_STD = 64.0


class Campus(Workload):
    """Owns the frames of the video, decoded one split at a time on first use, and their labels."""

    name = "campus"
    data_files = (VIDEO_NAME,)
    resolutions_px = (768, 512, 384, 256)  # widths; heights are three quarters of them
    training_epochs: Mapping[str, int] = MappingProxyType(
        {"medium": 10, "small": 10, "nano": 10, "split24": 10, "split8": 10}
    )
    families = tuple(training_epochs)
    image_codecs = (
        *("raw", "png", "jpeg75", "jpeg30", "jpeg10", "jpeg5", "webp50", "webp10", "webp2"),
        *("h264q40", "h264q45", "h264q51"),
    )
    tensor_codecs = ("u8", "u4", "u2", "u1")
    #: The split families are for one cut. Sent as images, frames are as well served by the other families.
    family_decisions: Mapping[str, FamilyDecisions] = MappingProxyType(
        dict.fromkeys(
            ("split24", "split8"),
            FamilyDecisions(resolutions_px=(512, 384, 256), image_codecs=(), tensor_codecs={1: ("signs",)}),
        )
    )
    frame_strides = (1, 2, 3, 5)
    #: Chosen on the validation split (docs/roi.md): smaller windows leave out too much of what moves, and larger models
    #: gain nothing.
    crops = CropDecisions((0.75,), ("nano",), (384, 256), ("jpeg30", "jpeg10"))
    fps = 10.0

    def __init__(self, data_dir: Path | None = None) -> None:
        self._data_dir = data_dir
        self._frames: dict[Split, Images] = {}

    @cached_property
    def video(self) -> Path:
        """Path of the verified video."""
        return find_campus_video(self._data_dir)

    @cached_property
    def labels(self) -> list[list[list[float]]]:
        """Boxes [x, y, w, h, 1.0] of the teacher, for every frame of the video."""
        return read_labels()

    def frames(self, split: Split) -> Images:
        """Frames (n, 576, 768, 3) of a split, blue-green-red."""
        if split not in self._frames:
            self._frames[split] = decode(self.video, SPLITS[split])
        return self._frames[split]

    def video_frame(self, number: int) -> Image:
        """The frame (576, 768, 3) with that number in the video."""
        split = next(split for split, numbers in SPLITS.items() if number in numbers)
        image: Image = self.frames(split)[number - SPLITS[split].start]
        return image

    def sample_count(self, split: Split) -> int:
        return len(SPLITS[split])

    def sample(self, index: int, split: Split = "test") -> tuple[Image, list[list[float]]]:
        number = self.source_index(index, split)
        return self.video_frame(number), self.labels[number]

    def source_index(self, index: int, split: Split = "test") -> int:
        numbers = SPLITS[split]
        return numbers[index % len(numbers)]

    def scenario_range(self) -> ScenarioRange:
        """Traces of 1 to 150 Mbit/s, shared by several cameras, give uplinks of about 0.2 to 60 Mbit/s.

        Slowdowns range from a single-board computer (5 to 30) to a camera with a microcontroller (some hundreds). On a
        single-board computer alone, the smallest detector is so fast that it would always be the best choice.
        """
        return ScenarioRange(
            fps=(self.fps, self.fps),
            deadline_s=(0.07, 0.4),
            device_slowdown=(5.0, 500.0),
            mec_slowdown=(1.0, 4.0),
            mec_load_frac=(0.0, 0.9),
            uplink_share_frac=(0.05, 0.4),
        )

    def demo_scenario(self) -> Scenario:
        """A camera too weak to run every frame, in a busy cell, with a MEC that also serves other devices."""
        return Scenario(
            fps=self.fps,
            deadline_s=0.2,
            device_slowdown=50.0,
            mec_slowdown=2.0,
            mec_load_frac=0.4,
            rtt_s=0.01,
            uplink_share_frac=0.1,
            trace_start_s=30.0,
            seed=1,
        )

    def to_input(self, images: Images) -> Tensor:
        """Float (batch, 3, h, w): grey 128 becomes 0, white nearly 2."""
        import torch

        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        return pixels.sub_(PIXEL_MEAN).mul_(1.0 / PIXEL_STD)

    def build(self, family: str) -> BranchyModel:
        from runtime.workloads.campus.models import build
        from runtime.workloads.campus.split_models import SPLIT_SIZES, build_split

        return build_split(family) if family in SPLIT_SIZES else build(family)

    def answers(self, outputs: Outputs, px: int) -> list[list[list[float]]]:
        """Boxes [x, y, w, h, score] in pixels of the frame, best first."""
        return [_as_boxes(kept_candidates(frame, WIDTH_PX, HEIGHT_PX)) for frame in outputs]

    def confidence(self, outputs: Outputs, temperature: float) -> NDArray[np.float64]:
        """(batch,) expected F1 if every candidate is a person with the probability that the model predicts."""
        return expected_f1(outputs[..., 4], temperature)

    def score(self, prediction: Boxes, truth: Boxes) -> float:
        """F1 of one frame."""
        return count_matches(prediction, truth).f1

    def forecaster(self) -> Forecaster:
        """A tracker of people."""
        from runtime.forecast.tracker import BoxTracker

        return BoxTracker((WIDTH_PX, HEIGHT_PX))

    def nothing(self) -> Boxes:
        """No box."""
        return []

    def inside(self, found: Boxes, window: tuple[int, int, int, int]) -> Boxes:
        """The boxes whose middle is in the window."""
        return inside(found, window)

    def to_picture(self, prediction: Boxes, placement: Placement) -> list[list[float]]:
        """The boxes in pixels of the picture."""
        return placement.boxes(prediction)

    def draw(self, image: Image, prediction: Boxes | None) -> Image:
        """A box around each person."""
        return draw_boxes(image, prediction or ())

    def training_task(self, seed: int) -> TrainingTask:
        from runtime.workloads.campus.task import CampusTask

        return CampusTask(self, seed)

    def task_of(self, family: str, seed: int) -> TrainingTask:
        from runtime.workloads.campus.split_models import SPLIT_SIZES
        from runtime.workloads.campus.split_task import SplitTask

        if family not in SPLIT_SIZES:
            return self.training_task(seed)
        return SplitTask(self, seed, SPLIT_SIZES[family].tempo)


def _as_boxes(kept: Outputs) -> list[list[float]]:
    """Convert rows left, top, right, bottom, logit to [x, y, w, h, score], rounded to 0.1 pixel."""
    left, top, right, bottom, logit = kept.reshape(-1, 5).T
    score = 1.0 / (1.0 + np.exp(-np.clip(logit, -50.0, 50.0)))
    corners = np.round(np.stack((left, top, right - left, bottom - top), 1), 1)
    return np.column_stack((corners, np.round(score, 4))).tolist()  # type: ignore[no-any-return]


def decode(path: Path, numbers: Sequence[int]) -> Images:
    """Decode consecutive frames of the video; FailureError when it ends too early."""
    frames = np.empty((len(numbers), HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    capture = cv2.VideoCapture(str(path))
    try:
        for _ in range(numbers[0]):
            capture.grab()
        for row in range(len(frames)):
            decoded, image = capture.read()
            if not decoded or image.shape != frames.shape[1:]:
                raise FailureError(f"{path} cannot be decoded at frame {numbers[row]}; expected {FRAMES} of 768 x 576")
            frames[row] = image
    finally:
        capture.release()
    return frames
