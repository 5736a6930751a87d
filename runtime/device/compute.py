"""What a device must be able to compute: its heads, and what outputs mean. ``runtime.device.local_compute`` does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from controller.records import Decision
from runtime.workloads.types import Image

#: Called between stages; there the device polls, and may compute a fallback before it goes on.
Pause = Callable[[], None]


class Judge(Protocol):
    """Knows what outputs mean."""

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float | None]:
        """Prediction, truth and score; no score where there is no truth."""
        ...

    def truth(self, source_index: int) -> Any:
        """None where it is not known."""
        ...

    def score(self, prediction: Any, truth: Any) -> float:
        """Quality of a prediction that was made for this frame or for an earlier one."""
        ...

    def source_index(self, index: int) -> int:
        """Number of a sample in its source: test image, frame of the video."""
        ...


class Head(Protocol):
    """What a head gives: a payload to send, or outputs (see ``runtime.inference.segments.Head``)."""

    @property
    def payload(self) -> bytes: ...
    @property
    def outputs(self) -> Any: ...


class Compute(Judge, Protocol):
    """The device's own computation; ``runtime.device.local_compute`` is the real one."""

    @property
    def samples(self) -> int:
        """Frames there are before the source repeats."""
        ...

    def picture(self, source_index: int) -> Image:
        """A captured picture (height, width, 3), uint8."""
        ...

    def head(self, source_index: int, decision: Decision, pause: Pause) -> Head: ...

    def row(self, decision: Decision) -> int:
        """Its row in the space of all decisions, which device and MEC agreed on when they met."""
        ...

    def output_shape(self, decision: Decision) -> tuple[int, ...]: ...
