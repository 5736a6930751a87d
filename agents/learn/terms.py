"""Sums reward terms and frame counts over the learner's episodes, and returns the means that TensorBoard shows."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from controller.records import SIDES, STATUSES, Decision, Floats, Status
from controller.utility import Utility
from envs.twin.record import StepRecord

_FALLBACK = STATUSES.index(Status.FALLBACK)


class Terms:
    """Owns the sums since the last ``clear``."""

    def __init__(self, decisions: tuple[Decision, ...]) -> None:
        self.decisions = decisions
        self._side = np.array([decision.side for decision in decisions])
        self.clear()

    def clear(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._rows = np.zeros(len(self.decisions), np.int64)

    def add(self, record: StepRecord, utility: Utility, capture_period_s: Floats) -> None:
        """Add one step of every environment; ``capture_period_s``: (B,)."""
        dropped = record.dropped.sum()
        terms = {
            "decided": len(record.row),
            "dropped": dropped,
            "reused": record.reused_frames.sum(),
            "in_time": record.on_time.sum(),
            "fallback": (record.status == _FALLBACK).sum(),
            "utility": record.reward.sum(),
            "score": (record.accuracy * record.on_time + record.reused_score).sum(),
            "energy_cost": utility.energy_weight_per_j * (record.energy_j + record.reused_energy_j).sum(),
            "drop_cost": utility.drop_penalty * dropped,
            "camera_s": (capture_period_s * record.frames).sum(),
        }
        for term, value in terms.items():
            self._sums[term] += float(value)
        self._rows += np.bincount(record.row, minlength=len(self._rows))

    def scalars(self) -> dict[str, float]:
        """Tags and values for TensorBoard, see ``agents.training.curves``; empty if nothing was added."""
        sums = self._sums
        frames = sums["decided"] + sums["reused"] + sums["dropped"]
        if not frames:
            return {}
        run = frames - sums["reused"]
        return {
            **{f"reward/{term}": sums[term] / frames for term in ("utility", "score", "energy_cost", "drop_cost")},
            "slo/attainment": sums["in_time"] / run,
            "slo/in_time": sums["in_time"] / frames,
            "slo/late": (sums["decided"] - sums["in_time"]) / frames,
            "slo/dropped": sums["dropped"] / frames,
            "slo/reused": sums["reused"] / frames,
            "slo/fallback": sums["fallback"] / frames,
            "goodput/fps": sums["in_time"] / sums["camera_s"],
            **{f"decision/{name}": value for name, value in self._decision_means().items()},
        }

    def _decision_means(self) -> dict[str, float]:
        share = self._rows / self._rows.sum()
        means = {name: float(share[self._side == name].sum()) for name in SIDES}
        for name in ("resolution_px", "exit_branch", "frame_stride"):
            means[name] = float(share @ [getattr(decision, name) for decision in self.decisions])
        return means
