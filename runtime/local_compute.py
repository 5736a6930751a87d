"""How does the device compute? Its heads on the workload's real frames, and what outputs mean there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from controller.records import Decision
from runtime.bundle import Bundle
from runtime.compute import Pause
from runtime.segments import Head, Segments
from runtime.workloads.base import Split, Workload


class LocalCompute:
    """One bundle on one split of its workload; see ``runtime.compute.Compute``."""

    def __init__(self, bundle: Bundle, workload: Workload, split: Split = "test") -> None:
        self._bundle, self._workload, self._split = bundle, workload, split
        self._segments = Segments(bundle, workload)
        self._output_shapes: dict[tuple[str, int, int], tuple[int, ...]] = {}

    @property
    def bundle_digest(self) -> str:
        return self._bundle.digest

    @property
    def samples(self) -> int:
        return self._workload.sample_count(self._split)

    def warm_up(self, decisions: tuple[Decision, ...]) -> None:
        """Run what may be decided once, so that no frame pays for a first run."""
        image, _ = self._workload.sample(0, self._split)
        for decision in decisions:
            self._segments.head(image, decision)
            self.output_shape(decision)

    def head(self, source_index: int, decision: Decision, pause: Pause) -> Head:
        image, _ = self._workload.sample(source_index, self._split)
        return self._segments.head(image, decision, pause)

    def payload_shape(self, decision: Decision) -> tuple[int, ...]:
        return self._bundle.payload_shape(decision.model, decision.resolution_px, decision.partition_point)

    def output_shape(self, decision: Decision) -> tuple[int, ...]:
        """What the MEC has to send back; found once for each exit by running it."""
        key = (decision.model, decision.resolution_px, decision.exit_branch)
        if key not in self._output_shapes:
            image, _ = self._workload.sample(0, self._split)
            self._output_shapes[key] = self._segments.whole(image, decision).shape
        return self._output_shapes[key]

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float]:
        """Prediction, truth and score of outputs, an array or a buffer from the wire."""
        shape = self.output_shape(decision)
        array = np.frombuffer(outputs, np.float32, math.prod(shape)).reshape(shape)
        prediction = self._segments.answer(array, decision)
        truth = self.truth(source_index)
        return prediction, truth, self._workload.score(prediction, truth)

    def truth(self, source_index: int) -> Any:
        return self._workload.sample(source_index, self._split)[1]
