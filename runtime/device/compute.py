"""The contract between the device's loop and its computation: run heads, turn outputs into predictions and scores.

``runtime.device.local_compute`` implements it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from controller.records import Decision
from controller.regions import Window
from runtime.workloads.types import Image

#: Called between stages. The device polls there, and may compute a fallback before the head goes on.
Pause = Callable[[], None]


class Judge(Protocol):
    """Turns outputs into predictions and scores."""

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float | None]:
        """Prediction, truth and score; the score is None where there is no truth."""
        ...

    def confidence(self, outputs: Any, decision: Decision) -> float:
        """Expected score of the answer that outputs hold, 0 to 1 (``runtime.gating.calibration``)."""
        ...

    def truth(self, source_index: int) -> Any:
        """Truth of a frame; None if it has none."""
        ...

    def score(self, prediction: Any, truth: Any) -> float:
        """Score of a prediction, made for the truth's frame or an earlier one, against that truth."""
        ...

    def source_index(self, index: int) -> int:
        """Number of a sample in its source: of the test image, or of the frame of a video."""
        ...


class Head(Protocol):
    """Result of a head: a payload to send, or the outputs of an exit (see ``runtime.inference.segments.Head``)."""

    @property
    def payload(self) -> bytes: ...
    @property
    def outputs(self) -> Any: ...
    @property
    def early_exit(self) -> int | None: ...


class Compute(Judge, Protocol):
    """The device's own computation."""

    @property
    def samples(self) -> int:
        """Number of frames before the source repeats."""
        ...

    def picture(self, source_index: int) -> Image:
        """A captured picture: uint8, (height, width, 3) blue-green-red or (height, width) grey."""
        ...

    def head(
        self,
        source_index: int,
        decision: Decision,
        pause: Pause,
        encode_as: Callable[[Any], bytes] | None = None,
        window: Window | None = None,
    ) -> Head:
        """Run the decision's stages that belong to the device; call ``pause`` between two stages. ``encode_as`` makes
        the payload from what they computed; without it, the payload stands alone. Of a gated decision, the first exit
        on the way that is sure enough answers. ``window``: the part of the picture to run, with a crop."""
        ...

    def row(self, decision: Decision) -> int:
        """The row of the decision, without its gate and its crop, in the bundle's space, which the handshake showed to
        be equal on device and MEC."""
        ...

    def output_shape(self, decision: Decision) -> tuple[int, ...]:
        """Shape of the outputs of the decision's exit, float32."""
        ...
