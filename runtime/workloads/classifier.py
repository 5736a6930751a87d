"""The base class of classification workloads: the whole task, and a training that needs no further code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.workloads.base import Workload
from runtime.workloads.drawing import captioned
from runtime.workloads.types import Image, Outputs, Split

if TYPE_CHECKING:
    from runtime.models.training import TrainingTask


class Classifier(Workload):
    """A workload whose answers are class numbers; models return (batch, classes) logits."""

    class_names: Sequence[str] = ()  # written on pictures; (): class numbers are written

    @abstractmethod
    def sample(self, index: int, split: Split = "test") -> tuple[Image, int]:
        """Frame and class number."""
        ...

    def answers(self, outputs: Outputs, px: int) -> list[int]:
        """The most likely class of each sample."""
        return [int(label) for label in outputs.argmax(axis=1)]

    def score(self, prediction: int, truth: int) -> float:
        """1 for the right class, else 0."""
        return float(prediction == truth)

    def draw(self, image: Image, prediction: int | None) -> Image:
        """The frame with the name of the class below it."""
        if prediction is None:
            return captioned(image, "")
        return captioned(image, self.class_names[prediction] if self.class_names else str(prediction))

    def training_task(self, seed: int) -> TrainingTask:
        """Joint training of all exits on the samples as they are."""
        from runtime.workloads.class_training import ClassTraining

        return ClassTraining(self, seed)
