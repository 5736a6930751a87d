"""The contract of an inference engine: the library that runs the models of a bundle on this machine.

`Segments` walks through stages, payloads and pauses; an engine only computes. So another engine needs two small
classes: one that loads models and converts arrays, and one that runs the stages of a model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.models.layers import Layer
from runtime.workloads.types import Image

#: What an engine passes from stage to stage: a batch of one, in whatever form it likes. Only the engine looks inside.
Z = TypeVar("Z")


class LoadedModel(Protocol[Z]):
    """A model that is ready to run."""

    def run_stage(self, z: Z, stage: int) -> Z:
        """The output of one stage, counted from 0."""
        ...

    def run_exit(self, z: Z, exit_branch: int) -> Z:
        """The output of an exit head, from the output of the last stage before it."""
        ...

    def record_stage(self, z: Z, stage: int) -> tuple[Z, list[Layer]]:
        """Run one stage; its output and its layers, in the order they ran."""
        ...

    def record_exit(self, z: Z, exit_branch: int) -> list[Layer]:
        """The layers of an exit head, in the order they ran."""
        ...


class Engine(Protocol[Z]):
    """Loads and runs the models of one bundle."""

    precisions: tuple[str, ...]  # of the models that it can run
    version: str  # of the library; the profile states it

    def use_threads(self, count: int) -> None:
        """Compute with that number of threads, in the whole process."""
        ...

    def load(self, model: str) -> LoadedModel[Z]:
        """Load a model by its name in the bundle."""
        ...

    def computing(self) -> AbstractContextManager[Any]:
        """Surrounds all calls below and those of loaded models; for instance, it switches gradients off."""
        ...

    def input_of(self, image: Image) -> Z:
        """The network's input from a resized u8 image."""
        ...

    def from_array(self, tensor: NDArray[np.float32]) -> Z:
        """A received tensor (channels, h, w) as the input of the next stage."""
        ...

    def to_array(self, z: Z) -> NDArray[np.float32]:
        """The output of a stage or exit, (1, ...)."""
        ...
