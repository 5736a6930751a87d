"""The contract of an inference engine: the library that runs the models of a bundle on this machine.

`Segments` handles stages, payloads and pauses; an engine only computes. So a new engine needs two small classes: one
that loads models and converts arrays, and one that runs the stages of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.models.layers import Layer
from runtime.workloads.types import Image

#: The value passed from stage to stage, a batch of one sample or several. Its type is private to the engine.
Z = TypeVar("Z")

Log = Callable[[str], None]  # takes one line


def ignore(_: str) -> None:
    """A log for those who want none."""


class LoadedModel(Protocol[Z]):
    """A model that is ready to run."""

    def input_of_batch(self, images: Sequence[Image]) -> Z:
        """Convert resized u8 images, (h, w[, 3]) each and all of one shape, to what the first stage takes."""
        ...

    def run_stage(self, z: Z, stage: int) -> Z:
        """Run one stage, counted from 0."""
        ...

    def run_exit(self, z: Z, exit_branch: int) -> Z:
        """Run an exit head on the output of the last stage before it."""
        ...

    def record_stage(self, z: Z, stage: int) -> tuple[Z, list[Layer]]:
        """Run one stage; returns its output and its layers in the order they ran."""
        ...

    def record_exit(self, z: Z, exit_branch: int) -> list[Layer]:
        """Run an exit head; returns its layers in the order they ran."""
        ...


@runtime_checkable
class RunsTails(Protocol):
    """A loaded model that can run a whole tail by one call, in less time than stage by stage. No message is received
    while it runs."""

    def run_tail(self, z: Any, stages: range, exit_branch: int) -> Any:
        """Run stages, then an exit head. What it returns is valid until the next call."""
        ...


class Engine(Protocol[Z]):
    """Loads the models of one bundle, and converts what crosses the uplink.

    One that gains by batches may state ``usual_batch``, an int: how many requests a MEC computes together at most,
    unless it is told otherwise; 1 where it is not stated.
    """

    version: str  # of the library, stored in profiles
    clock: Callable[
        [], float
    ]  # seconds, of the kind that its work takes: `time.thread_time` where this thread computes

    def why_not(self, model: str) -> str:
        """Why a model of the bundle cannot run in this engine, as a clause about the model; "" where it can."""
        ...

    def use_threads(self, count: int) -> None:
        """Set the number of threads for the whole process; call it before a model is loaded."""
        ...

    def load(self, model: str) -> LoadedModel[Z]:
        """Load a model by its name in the bundle."""
        ...

    def computing(self) -> AbstractContextManager[Any]:
        """A context for all calls below and those of loaded models; for instance, it disables gradients."""
        ...

    def from_arrays(self, tensors: Sequence[NDArray[np.float32]]) -> Z:
        """Convert received tensors, (channels, h, w) or (values,) each and all of one shape, to the input of the next
        stage."""
        ...

    def to_array(self, z: Z) -> NDArray[np.float32]:
        """Convert the output of a stage or exit to an array (samples, ...)."""
        ...
