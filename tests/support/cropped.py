"""Cropped rows of the shipped models of campus, and a device in simulated time that really runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from controller.costs import CostTable
from controller.records import Decision
from controller.regions import Window
from runtime.bundles.bundle import open_bundle
from runtime.bundles.recorded import Recorded
from runtime.device.local_compute import LocalCompute
from runtime.files.provenance import SHIPPED
from runtime.gating.calibration import Calibrations
from runtime.inference.segments import Segments
from runtime.profiling.profile import load_costs
from runtime.regions.scores import scores_of, with_crop_scores
from support.simulated import SimCompute, SimHead, Simulation

SHARES = (0.75,)
LOCAL, CROPPED, CROPPED_STRIDE, WHOLE_STRIDE, SENT, SENT_CROP, FAST = range(7)
DECISIONS = (
    Decision("nano", 256, 2, 4, "none"),
    Decision("nano", 256, 2, 4, "none", crop=0.75),
    Decision("nano", 256, 2, 4, "none", frame_stride=2, crop=0.75),
    Decision("nano", 256, 2, 4, "none", frame_stride=2),
    Decision("nano", 384, 2, 0, "jpeg10"),
    Decision("nano", 384, 2, 0, "jpeg10", crop=0.75),
    Decision("nano", 256, 0, 2, "none"),
)


@cache
def every_row() -> CostTable:
    """All rows of campus, with a crop and without."""
    return load_costs(open_bundle("campus"), Path(SHIPPED), crops=SHARES, forecast=False)


@cache
def cropped_costs(times: float = 1.0) -> CostTable:
    """The rows of ``DECISIONS``, on a device that is so many times slower (one that is emulated would add noise)."""
    every = every_row()
    costs = every.take(np.array([every.space.index(decision) for decision in DECISIONS]))
    assert costs.crops is not None
    paths = replace(costs.crops.paths, head_s=times * costs.crops.paths.head_s)
    return replace(costs, head_s=times * costs.head_s, crops=replace(costs.crops, paths=paths))


@cache
def cropped_recorded() -> Recorded:
    """The validation split, standing still."""
    bundle = open_bundle("campus")
    scores = scores_of(bundle)
    assert scores is not None
    calibrations = Calibrations(bundle)
    recorded = calibrations.expected_scores(bundle.recorded("validation"))
    return with_crop_scores(recorded, scores, "validation", calibrations)


class CroppedCompute(SimCompute):
    """Takes the times of the table, and computes the answers of the models at once."""

    _real: LocalCompute
    _segments: Segments
    _outputs: dict[tuple[int, Decision], Any]
    _newest: Any  # of them, which were judged

    def with_models(self) -> CroppedCompute:
        bundle = open_bundle("campus")
        self._real = LocalCompute(bundle, bundle.work, "validation")
        self._segments, self._outputs = Segments(bundle, bundle.work), {}
        return self

    def head(
        self,
        source_index: int,
        decision: Decision,
        pause: Callable[[], None],
        encode_as: Callable[[Any], bytes] | None = None,
        window: Window | None = None,
    ) -> SimHead:
        row = self._costs.space.index(decision)
        self.ran.append((self._clock(), source_index, row))
        head = self._real.head(source_index, decision, lambda: None, window=window)
        self._take(float(self._costs.head_s[row]), pause)
        outputs = head.outputs if head.outputs is not None else self._segments.tail(head.payload, decision)
        self._outputs[source_index, decision] = outputs
        return SimHead(head.payload, head.outputs)

    def picture(self, source_index: int) -> Any:
        return self._real.picture(source_index)

    def row(self, decision: Decision) -> int:
        return self._costs.space.index(decision.whole)

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float]:
        self._newest = self._outputs[source_index, decision]
        prediction, truth, score = self._real.judge(source_index, self._newest, decision)
        assert score is not None
        return prediction, truth, score

    def confidence(self, outputs: Any, decision: Decision) -> float:
        return self._real.confidence(self._newest, decision)

    def score(self, prediction: Any, truth: Any) -> float:
        return self._real.score(prediction, truth)

    def truth(self, source_index: int) -> Any:
        return self._real.truth(source_index)


class CroppedSimulation(Simulation):
    compute_type = CroppedCompute

    def __init__(self, times: float = 3.0, **options: Any) -> None:
        defaults: dict[str, Any] = {"frames": 60, "fps": 8.0, "deadline_s": 0.3}
        super().__init__(costs=cropped_costs(times), recorded=cropped_recorded(), **(defaults | options))
        assert isinstance(self.compute, CroppedCompute)
        self.compute.with_models()
