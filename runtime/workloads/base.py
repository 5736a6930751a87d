"""What must a workload bring? Frames with a truth, and a score in [0, 1] for an answer.

Everything else (models, bundles, profile, twin, daemon) is written against this contract and never asks which
workload it serves. Predictions and truths are JSON-able values whose form only the workload knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from controller.errors import unknown_name
from controller.scenario import Scenario, ScenarioRange
from runtime.workloads.placement import Placement

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.models.stages import BranchyModel
    from runtime.models.training import TrainingTask

Image = NDArray[np.uint8]  # (h, w) grey or (h, w, 3) colour
Images = NDArray[np.uint8]  # the same with a leading batch dimension
Split = Literal["train", "validation", "test", "all"]  # all: whatever can be played, by its number in the source


class Workload(Protocol):
    """A source of frames with truth, and the meaning of a model's output."""

    name: str
    resolutions_px: tuple[int, ...]  # largest first
    families: tuple[str, ...]  # what `mecpilot models train` trains, in this order
    training_epochs: Mapping[str, int]  # per family
    image_codecs: tuple[str, ...]  # payloads at cut 0, the default first
    tensor_codecs: tuple[str, ...]  # payloads at later cuts, the default first
    frame_strides: tuple[int, ...]  # every so many frames are run, of a stream whose answers outlive their frame
    fps: float  # native frame rate; 0 where samples are no stream

    def sample_count(self, split: Split) -> int:
        """Number of samples of a split."""
        ...

    def sample(self, index: int, split: Split = "test") -> tuple[Image, Any]:
        """Frame and truth number `index` (modulo the number of samples)."""
        ...

    def source_index(self, index: int, split: Split = "test") -> int:
        """Number of a sample in its source (image of the split, frame of the video)."""
        ...

    def scenario_range(self) -> ScenarioRange:
        """Conditions under which this workload is interesting: what episodes are drawn from unless told otherwise."""
        ...

    def demo_scenario(self) -> Scenario:
        """One episode in which controllers differ, for demonstrations; slowdowns count from the shipped profile."""
        ...

    def resize(self, image: Image, px: int) -> Image:
        """The frame (or a batch of them) at another resolution."""
        ...

    def to_input(self, images: Images) -> Tensor:
        """u8 images with a leading batch dimension to float (batch, channels, h, w)."""
        ...

    def build(self, family: str) -> BranchyModel:
        """A new model of a family, with outputs that `answer` understands."""
        ...

    def answers(self, outputs: NDArray[np.floating[Any]], px: int) -> list[Any]:
        """Model outputs (batch, ...) at a resolution to JSON-able predictions."""
        ...

    def confidence(self, outputs: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
        """(batch,) confidence in [0, 1] of each answer, after calibration with a temperature."""
        ...

    def score(self, prediction: Any, truth: Any) -> float:
        """Quality of a prediction in [0, 1]."""
        ...

    def to_picture(self, prediction: Any, placement: Placement) -> Any:
        """A prediction about a frame, with its pixels counted in the picture that was placed in that frame. One
        without places stays as it is."""
        ...

    def draw(self, image: Image, prediction: Any) -> Image:
        """The frame in colour, large enough to be looked at, with the prediction on it; None draws the frame alone."""
        ...

    def training_task(self, seed: int) -> TrainingTask:
        """Data, augmentation, loss and evaluation for `mecpilot models train`."""
        ...


def stream_score(workload: Workload) -> Callable[[Any, Any], float] | None:
    """How an answer is compared with the truth of a later frame; None where samples are no stream."""
    return None if workload.frame_strides == (1,) else workload.score


def get_workload(name: str, data_dir: Path | None = None) -> Workload:
    """The workload of that name; its data is fetched when first needed."""
    if name == "garments":
        from runtime.workloads.garments.workload import Garments

        return Garments(data_dir)
    if name == "campus":
        from runtime.workloads.campus.workload import Campus

        return Campus(data_dir)
    raise unknown_name("workload", name, WORKLOADS)


WORKLOADS = ("garments", "campus")
