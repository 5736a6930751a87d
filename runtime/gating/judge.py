"""Says on the device whether an exit on the way is sure enough of its answer."""

from __future__ import annotations

import numpy as np

from controller.gates import Gates, calibrated, quantised
from controller.records import Decision
from runtime.bundles.bundle import Bundle
from runtime.inference.segments import Outputs
from runtime.workloads.base import Workload


class GateJudge:
    """Compares the calibrated confidence of exits with the gates of decisions. Owns their calibrations."""

    def __init__(self, bundle: Bundle, workload: Workload, gates: Gates | None) -> None:
        self._bundle, self._workload = bundle, workload
        self._calibration: dict[tuple[str, int, int], tuple[float, float]] = {}
        if gates is not None:
            for d, slope, offset in zip(gates.early_decisions, gates.slope, gates.offset, strict=True):
                self._calibration[d.model, d.resolution_px, d.exit_branch] = float(slope), float(offset)

    def is_sure(self, decision: Decision, exit_branch: int, outputs: Outputs) -> bool:
        """Whether the outputs (1, ...) of an exit on the way reach the decision's gate. Outputs that are not numbers
        never do."""
        temperature = self._bundle.info(decision.model).exits[exit_branch].temperature
        confidence = quantised(self._workload.confidence(outputs, temperature)[0])
        found = self._calibration.get((decision.model, decision.resolution_px, exit_branch))
        return found is not None and bool(np.asarray(calibrated(confidence, *found)) >= decision.gate)
