"""Says on the device how good an answer may be expected to be, and whether an exit on the way is sure enough of it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from controller.gates import Gates, calibrated, quantised
from controller.records import Decision
from runtime.bundles.bundle import Bundle
from runtime.gating.calibration import Calibrations
from runtime.inference.segments import Outputs
from runtime.workloads.base import Workload


class GateJudge:
    """Knows the calibrated confidence of exits, and compares it with the gates of decisions. Owns the calibrations."""

    def __init__(self, bundle: Bundle, workload: Workload, gates: Gates | None) -> None:
        self._bundle, self._workload = bundle, workload
        self._calibration: dict[tuple[str, int, int], tuple[float, float]] = {}
        if gates is not None:
            for d, slope, offset in zip(gates.early_decisions, gates.slope, gates.offset, strict=True):
                self._calibration[d.model, d.resolution_px, d.exit_branch] = float(slope), float(offset)

    def prepare(self, decisions: Iterable[Decision]) -> None:
        """Fit the calibrations now, so that the first answers need not wait for them."""
        for decision in decisions:
            self._calibrations.best_of(decision.model, decision.resolution_px, decision.exit_branch)

    def expected_score(self, decision: Decision, outputs: Outputs) -> float:
        """Of the answer that the outputs (1, ...) of the decision's exit hold, 0 to 1; outputs that are not numbers
        have none."""
        found = self._calibrations.best_of(decision.model, decision.resolution_px, decision.exit_branch)
        return float(calibrated(self._confidence(decision, decision.exit_branch, outputs), *found))

    @cached_property
    def _calibrations(self) -> Calibrations:
        return Calibrations(self._bundle)

    def is_sure(self, decision: Decision, exit_branch: int, outputs: Outputs) -> bool:
        """Whether the outputs (1, ...) of an exit on the way reach the decision's gate. Outputs that are not numbers
        never do."""
        confidence = self._confidence(decision, exit_branch, outputs)
        found = self._calibration.get((decision.model, decision.resolution_px, exit_branch))
        return found is not None and bool(np.asarray(calibrated(confidence, *found)) >= decision.gate)

    def _confidence(self, decision: Decision, exit_branch: int, outputs: Outputs) -> Any:
        temperature = self._bundle.info(decision.model).exits[exit_branch].temperature
        return quantised(self._workload.confidence(outputs, temperature)[0])
