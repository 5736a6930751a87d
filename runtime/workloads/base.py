"""The contract of a workload: frames with a truth, a task, models, and defaults.

A workload is written as a class that extends ``Workload``. Each part is a small protocol of its own, so code that
needs only the frames takes only ``Frames``. Methods that are not abstract here have a default that a workload may keep.
Predictions and truths are JSON-able values whose form only the workload knows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from controller.errors import UsageError
from controller.scenario import Scenario, ScenarioRange
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image, Images, Outputs, Split

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.models.stages import BranchyModel
    from runtime.models.training import TrainingTask


class Frames(Protocol):
    """Samples with their truth. All frames have one shape."""

    name: str  # of the workload
    fps: float = 0.0  # native frame rate; 0 where consecutive samples are unrelated
    data_files: tuple[str, ...] = ()  # a directory given with --data holds one of these; (): any directory will do

    @abstractmethod
    def sample_count(self, split: Split) -> int:
        """Number of samples of a split."""
        ...

    @abstractmethod
    def sample(self, index: int, split: Split = "test") -> tuple[Image, Any]:
        """Frame and truth number ``index`` (modulo the number of samples)."""
        ...

    def source_index(self, index: int, split: Split = "test") -> int:
        """Number of a sample in its source: image of the split, or frame of the video."""
        return index % self.sample_count(split)


class Task(Protocol):
    """The meaning of a model's outputs: predictions, their score against a truth, and how to draw them."""

    @abstractmethod
    def answers(self, outputs: Outputs, px: int) -> list[Any]:
        """Model outputs (batch, ...) at a resolution to JSON-able predictions, one per sample."""
        ...

    @abstractmethod
    def score(self, prediction: Any, truth: Any) -> float:
        """Quality of a prediction in [0, 1]."""
        ...

    def confidence(self, outputs: Outputs, temperature: float) -> NDArray[np.float64]:
        """(batch,) confidence in [0, 1] of each answer, after calibration with a temperature.

        Default, for outputs (batch, classes): the largest softmax probability.
        """
        scaled = outputs.astype(np.float64) / temperature
        odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(1.0 / odds.sum(axis=1))

    def to_picture(self, prediction: Any, placement: Placement) -> Any:
        """A prediction about a frame, with its pixels counted in the picture that was placed in that frame.

        Default: a prediction without places stays as it is.
        """
        return prediction

    def draw(self, image: Image, prediction: Any) -> Image:
        """The frame in colour, large enough to be looked at, with the prediction on it; None draws the frame alone.

        Default: the prediction as text.
        """
        from runtime.workloads.drawing import captioned

        return captioned(image, "" if prediction is None else str(prediction))


class Models(Protocol):
    """Branchy models: how they are built, fed and trained."""

    families: tuple[str, ...]  # what `mecpilot models train` trains, in this order
    training_epochs: Mapping[str, int] = MappingProxyType({})  # per family; a family that is not named gets 18

    @abstractmethod
    def build(self, family: str) -> BranchyModel:
        """A new model of a family, with outputs that ``Task.answers`` understands."""
        ...

    def resize(self, image: Image, px: int) -> Image:
        """One frame at another resolution. Default: ``px`` wide, height in proportion, area averaging."""
        import cv2

        height, width = image.shape[:2]
        if width == px:
            return image
        return np.asarray(cv2.resize(image, (px, round(px * height / width)), interpolation=cv2.INTER_AREA), np.uint8)

    def to_input(self, images: Images) -> Tensor:
        """u8 images with a leading batch dimension to float (batch, channels, h, w). Default: values in [0, 1]."""
        import torch

        pixels = torch.from_numpy(images).float().mul_(1.0 / 255.0)
        return pixels.unsqueeze(1) if images.ndim == 3 else pixels.permute(0, 3, 1, 2)

    def training_task(self, seed: int) -> TrainingTask:
        """Data, augmentation, loss and evaluation for `mecpilot models train`. UsageError without a task."""
        raise UsageError(f"{type(self).__name__} has no training_task; use an existing bundle, or extend Classifier")


class Defaults(Protocol):
    """What a run takes unless the user asks for something else."""

    resolutions_px: tuple[int, ...]  # widths that a frame may be resized to, largest first
    image_codecs: tuple[str, ...] = ("raw", "png")  # payloads at partition point 0, the default first
    tensor_codecs: tuple[str, ...] = ("u8", "u4")  # payloads at later partition points, the default first
    frame_strides: tuple[int, ...] = (1,)  # 3: one of three frames is run; only for streams, whose answers stay useful
    #: Directory of the workload's bundle, or the name of a shipped one. None: the bundle that ships under its name.
    bundle: str | None = None

    def scenario_range(self) -> ScenarioRange:
        """Conditions under which this workload is interesting: episodes are drawn from this range."""
        return ScenarioRange()

    def demo_scenario(self) -> Scenario:
        """One episode in which controllers differ, for demonstrations; slowdowns count from the shipped profile."""
        return Scenario()


class Workload(Frames, Task, Models, Defaults, Protocol):
    """Frames with truth, the meaning of a model's outputs, the models, and what a run takes by default.

    Required: ``name``, ``resolutions_px``, ``families``, ``sample_count``, ``sample``, ``answers``, ``score``,
    ``build``. ``runtime.workloads.classifier.Classifier`` has all of the task, and trains.
    """


def stream_score(workload: Workload) -> Callable[[Any, Any], float] | None:
    """How an answer is compared with the truth of a later frame; None where samples are not a stream."""
    return None if workload.frame_strides == (1,) else workload.score
