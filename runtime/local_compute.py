"""How does the device compute? Its heads on the workload's real frames, and what outputs mean there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from controller.records import Decision
from runtime.bundle import Bundle
from runtime.compute import Pause
from runtime.segments import Head, Segments
from runtime.sources import Samples, Source
from runtime.wire import Held
from runtime.workloads.base import Split, Workload


class LocalCompute:
    """One bundle on the frames of a source, by default its workload's; see ``runtime.compute.Compute``."""

    def __init__(self, bundle: Bundle, workload: Workload, split: Split = "test", source: Source | None = None) -> None:
        self._bundle, self._workload = bundle, workload
        self._source = Samples(workload, split) if source is None else source
        self._blank = np.zeros(bundle.frame_shape, np.uint8)
        self._segments = Segments(bundle, workload)
        self._output_shapes: dict[tuple[str, int, int], tuple[int, ...]] = {}

    @property
    def held(self) -> Held:
        return self._bundle.held

    @property
    def samples(self) -> int:
        return self._source.count

    def warm_up(self, decisions: tuple[Decision, ...]) -> None:
        """Run what may be decided once, so that no frame pays for a first run."""
        self._source.prepare()
        for decision in decisions:
            self._segments.head(self._blank, decision)
            self.output_shape(decision)

    def head(self, source_index: int, decision: Decision, pause: Pause) -> Head:
        return self._segments.head(self._source.picture(source_index), decision, pause)

    def row(self, decision: Decision) -> int:
        return self._bundle.space.index(decision)

    def output_shape(self, decision: Decision) -> tuple[int, ...]:
        """What the MEC has to send back; found once for each exit by running it."""
        key = (decision.model, decision.resolution_px, decision.exit_branch)
        if key not in self._output_shapes:
            self._output_shapes[key] = self._segments.whole(self._blank, decision).shape
        return self._output_shapes[key]

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float | None]:
        """Prediction, truth and score of outputs, an array or a buffer from the wire."""
        shape = self.output_shape(decision)
        array = np.frombuffer(outputs, np.float32, math.prod(shape)).reshape(shape)
        prediction = self._segments.answer(array, decision)
        truth = self.truth(source_index)
        return prediction, truth, None if truth is None else self._workload.score(prediction, truth)

    def score(self, prediction: Any, truth: Any) -> float:
        return self._workload.score(prediction, truth)

    def truth(self, source_index: int) -> Any:
        return self._source.truth(source_index)

    def source_index(self, index: int) -> int:
        return self._source.source_index(index)
