"""The contract of a workload: frames with truth, a task, models, and defaults.

A workload is a class that extends ``Workload``. Each part is a protocol of its own, so code that needs only the frames
takes only ``Frames``. Methods that are not abstract have a default. Predictions and truths are JSON-able values whose
structure is private to the workload.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from controller.errors import UsageError
from controller.forecast import Forecaster
from controller.records import Ints
from controller.scenario import Scenario, ScenarioRange
from runtime.workloads.crop_decisions import CropDecisions
from runtime.workloads.family_decisions import FamilyDecisions
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image, Images, Outputs, Split

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.models.stages import BranchyModel
    from runtime.models.training import TrainingTask


class Frames(Protocol):
    """Samples with their truth. All frames have the same shape."""

    name: str  # of the workload
    fps: float = 0.0  # native frame rate; 0 where consecutive samples are unrelated
    data_files: tuple[str, ...] = ()  # a directory given with --data must hold one of these; (): no check

    @abstractmethod
    def sample_count(self, split: Split) -> int:
        """Number of samples of a split."""
        ...

    @abstractmethod
    def sample(self, index: int, split: Split = "test") -> tuple[Image, Any]:
        """Frame and truth number ``index``, modulo the number of samples."""
        ...

    def source_index(self, index: int, split: Split = "test") -> int:
        """Number of a sample in its source: the image of the split, or the frame of the video."""
        return index % self.sample_count(split)

    def recorded_samples(self, split: Split) -> Ints | None:
        """(samples,) which sample of its bundle's own workload each sample shows. None: the one with its number."""
        return None

    def repeating(self, repetition: float) -> Workload:
        """The same workload with samples of which this share shows one that was shown before, changed a little.

        UsageError where there is none, as of a video, which repeats as it does.
        """
        raise UsageError(
            f"got a repetition with the workload {self.name!r}, whose samples come as they are; expected one with "
            "samples that can be shown again, such as garments, or no repetition"
        )


class Task(Protocol):
    """The meaning of a model's outputs: predictions, their score against a truth, and how to draw them."""

    @abstractmethod
    def answers(self, outputs: Outputs, px: int) -> list[Any]:
        """Convert model outputs (batch, ...) at resolution ``px`` to JSON-able predictions, one per sample."""
        ...

    @abstractmethod
    def score(self, prediction: Any, truth: Any) -> float:
        """Quality of a prediction in [0, 1]."""
        ...

    def confidence(self, outputs: Outputs, temperature: float) -> NDArray[np.float64]:
        """(batch,) confidence in [0, 1] of each answer, calibrated with a temperature.

        Default, for outputs (batch, classes): the largest softmax probability.
        """
        scaled = outputs.astype(np.float64) / temperature
        odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(1.0 / odds.sum(axis=1))

    def forecaster(self) -> Forecaster | None:
        """A new forecaster for one run, which moves answers on to later frames and tells objects apart. The predictions
        of a workload with one are lists of items.

        Default: None, for answers that do not move, as those of a classifier.
        """
        return None

    def nothing(self) -> Any:
        """The prediction for a frame that is empty. Default: None, where a frame always shows something."""
        return None

    def inside(self, found: Any, window: tuple[int, int, int, int]) -> Any:
        """What of a prediction or truth lies in a window, x, y, w, h in pixels of the frame.

        Default: all of it, for predictions without positions.
        """
        return found

    def to_picture(self, prediction: Any, placement: Placement) -> Any:
        """Convert a prediction from pixels of the frame to pixels of the picture that was placed in it.

        Default: the prediction unchanged, for predictions without positions.
        """
        return prediction

    def draw(self, image: Image, prediction: Any) -> Image:
        """The frame as (h, w, 3), enlarged if small, with the prediction drawn on it; None draws only the frame.

        Where objects are tracked, each item of the prediction ends with the number of its object.

        Default: the prediction as text.
        """
        from runtime.workloads.drawing import captioned

        return captioned(image, "" if prediction is None else str(prediction))


class Models(Protocol):
    """Branchy models: how to build them, convert their inputs, and train them."""

    families: tuple[str, ...]  # that `mecpilot models train` trains, in this order
    training_epochs: Mapping[str, int] = MappingProxyType({})  # per family; default 18

    @abstractmethod
    def build(self, family: str) -> BranchyModel:
        """A new model of a family; ``Task.answers`` interprets its outputs."""
        ...

    def resize(self, image: Image, px: int) -> Image:
        """Resize one frame to resolution ``px``. Default: ``px`` wide, same aspect ratio, area averaging."""
        from runtime.workloads.area import resize

        height, width = image.shape[:2]
        return image if width == px else resize(image, px, round(px * height / width))

    def to_input(self, images: Images) -> Tensor:
        """Convert u8 images (batch, h, w[, 3]) to float (batch, channels, h, w). Default: values in [0, 1]."""
        import torch

        pixels = torch.from_numpy(images).float().mul_(1.0 / 255.0)
        return pixels.unsqueeze(1) if images.ndim == 3 else pixels.permute(0, 3, 1, 2)

    def training_task(self, seed: int) -> TrainingTask:
        """Data, augmentation, loss and evaluation for `mecpilot models train`. UsageError without a task."""
        raise UsageError(f"{type(self).__name__} has no training_task; use an existing bundle, or extend Classifier")

    def task_of(self, family: str, seed: int) -> TrainingTask:
        """The training task of one family. Default: `training_task`, the same for all."""
        return self.training_task(seed)


class Defaults(Protocol):
    """Default options of a run."""

    resolutions_px: tuple[int, ...]  # widths of resized frames, largest first
    image_codecs: tuple[str, ...] = ("raw", "png")  # payloads at partition point 0, the default first
    tensor_codecs: tuple[str, ...] = ("u8", "u4")  # payloads at later partition points, the default first
    family_decisions: Mapping[str, FamilyDecisions] = MappingProxyType({})  # of families that differ from the others
    frame_strides: tuple[int, ...] = (1,)  # 3: one of three frames is run; above 1 only for streams
    crops: CropDecisions | None = None  # parts of the frame that may be run in place of the whole; only for boxes
    #: Directory of the workload's bundle, or the name of a shipped bundle. None: the shipped one of the same name.
    bundle: str | None = None
    # Only an adopted workload has these:
    frame_shape: tuple[int, ...] = ()  # (h, w[, 3]); (): that of the largest resolution
    description_sha256: str = ""  # digest of its description; "": its class says all of it

    def scenario_range(self) -> ScenarioRange:
        """Range of conditions from which episodes of this workload are drawn."""
        return ScenarioRange()

    def demo_scenario(self) -> Scenario:
        """A scenario for demonstrations, in which controllers differ. Slowdowns are relative to the shipped profile."""
        return Scenario()


class Workload(Frames, Task, Models, Defaults, Protocol):
    """Frames with truth, a task, models, and default options.

    Required: ``name``, ``resolutions_px``, ``families``, ``sample_count``, ``sample``, ``answers``, ``score``,
    ``build``. ``runtime.workloads.classifier.Classifier`` implements the task and the training of a classifier.
    """


def forecaster_of(workload: Workload) -> Forecaster:
    """A new forecaster; UsageError if the workload has none."""
    found = workload.forecaster()
    if found is None:
        raise UsageError(
            f"got forecasts with the workload {workload.name!r}, whose answers do not move; expected a workload with a "
            "forecaster, such as campus, or no forecasts"
        )
    return found


def stream_score(workload: Workload) -> Callable[[Any, Any], float] | None:
    """The score of an answer against the truth of a later frame; None if samples are not a stream."""
    return None if workload.frame_strides == (1,) else workload.score
