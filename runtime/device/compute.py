"""What the device's loop needs of a computation: heads, and what outputs mean.

``runtime.device.local_compute`` is the real implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from controller.records import Decision
from runtime.workloads.base import Image

#: Called between stages. The device polls there, and may compute a fallback before the head goes on.
Pause = Callable[[], None]


class Judge(Protocol):
    """Turns outputs into predictions and scores."""

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float | None]:
        """Prediction, truth and score; the score is None where there is no truth."""
        ...

    def truth(self, source_index: int) -> Any:
        """Truth of a frame; None where it is not known."""
        ...

    def score(self, prediction: Any, truth: Any) -> float:
        """Score of a prediction that was made for this frame or for an earlier one."""
        ...

    def source_index(self, index: int) -> int:
        """Number of a sample in its source: of the test image, or of the video's frame."""
        ...


class Head(Protocol):
    """Result of a head: a payload to send, or outputs (see ``runtime.inference.segments.Head``)."""

    @property
    def payload(self) -> bytes: ...
    @property
    def outputs(self) -> Any: ...


class Compute(Judge, Protocol):
    """The device's own computation."""

    @property
    def samples(self) -> int:
        """Number of frames before the source repeats."""
        ...

    def picture(self, source_index: int) -> Image:
        """A captured picture (height, width, 3), uint8."""
        ...

    def head(self, source_index: int, decision: Decision, pause: Pause) -> Head: ...

    def row(self, decision: Decision) -> int:
        """The decision's row in the bundle's space, on which device and MEC agreed in the handshake."""
        ...

    def output_shape(self, decision: Decision) -> tuple[int, ...]: ...
