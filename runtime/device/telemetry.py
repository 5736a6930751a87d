"""Estimates of the device itself, smoothed: its slowdown, the shares of frames in time, of fallbacks and of frames that
shortcuts answer; and what the newest answer says of the scene.

``runtime.link.mec_telemetry`` estimates the MEC and the uplink; ``state`` joins the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from controller import timeline as formulas
from controller.costs import CostTable
from controller.records import Status, SystemState
from runtime.link.mec_telemetry import MecObservation


class DeviceTelemetry:
    """Owns the smoothed estimates of the device itself."""

    def __init__(self, costs: CostTable, slowdown: float) -> None:
        self._head_s = costs.paths.head_s
        self.slowdown = slowdown  # device time / profiled time
        self._on_time_frac = 1.0
        self._fallback_frac = 0.0
        self._reused_frac = 0.0
        self._newest = -1  # frame of the newest answer
        self._confidence = self._speed = math.nan  # of that answer

    def on_head(self, path: int, took_s: float) -> None:
        """The head of a path of the cost table took this long, fallbacks not counted."""
        sample = took_s / float(self._head_s[path])
        self.slowdown += formulas.SLOWDOWN_ALPHA * (sample - self.slowdown)

    def on_outcome(self, status: Status) -> None:
        """A decided or dropped frame ended."""
        self._on_time_frac += formulas.OUTCOME_ALPHA * (status.on_time - self._on_time_frac)
        self._fallback_frac += formulas.OUTCOME_ALPHA * ((status is Status.FALLBACK) - self._fallback_frac)

    def on_shortcuts(self, answered: bool) -> None:
        """Shortcuts answered a frame, or it is decided. Frames that a stride covers do not count."""
        self._reused_frac += formulas.OUTCOME_ALPHA * (answered - self._reused_frac)

    def on_answer(self, frame: int, confidence: float, speed: float | None) -> None:
        """An answer is out. ``confidence``: its expected score; ``speed``: of what it shows, in heights per frame."""
        if frame > self._newest:
            self._newest, self._confidence, self._speed = frame, confidence, math.nan if speed is None else speed

    def state(
        self,
        mec: MecObservation,
        *,
        deadline_s: float,
        capture_period_s: float,
        frame_age_s: float,
        queued_frames: int,
        motion: float = math.nan,
        reference_age: Sequence[int] = (),
        whole_age: int | None = None,
    ) -> SystemState:
        """What a controller sees, as a batch of one; the uplink's history has shape (1, UPLINK_HISTORY).

        ``motion``: see ``SystemState``. ``reference_age``: of each stream of the cost table, in frames; empty if it has
        none. ``whole_age``: of the answer that a crop would refer to, 0 without one; None if nothing is cropped.
        """
        return SystemState(
            deadline_s=np.array([deadline_s]),
            capture_period_s=np.array([capture_period_s]),
            frame_age_s=np.array([frame_age_s]),
            uplink_bps=np.array([mec.uplink_bps]),
            uplink_sample_bytes=np.array([mec.uplink_sample_bytes]),
            uplink_sample_age_s=np.array([mec.uplink_sample_age_s]),
            uplink_sample_count=np.array([mec.uplink_sample_count]),
            uplink_age_s=np.array([mec.uplink_age_s]),
            uplink_backlog_bytes=np.array([mec.uplink_backlog_bytes]),
            rtt_s=np.array([mec.rtt_s]),
            device_slowdown=np.array([self.slowdown]),
            queued_frames=np.array([queued_frames]),
            in_flight=np.array([mec.in_flight]),
            mec_queue_s=np.array([mec.mec_queue_s]),
            mec_queue_mean_s=np.array([mec.mec_queue_mean_s]),
            mec_slowdown=np.array([mec.mec_slowdown]),
            mec_age_s=np.array([mec.mec_age_s]),
            replied_row=np.array([mec.replied_row]),
            replied_s=np.array([mec.replied_s]),
            waiting_row=np.array([mec.waiting_row]),
            waiting_s=np.array([mec.waiting_s]),
            link_up=np.array([mec.link_up]),
            on_time_frac=np.array([self._on_time_frac]),
            fallback_frac=np.array([self._fallback_frac]),
            motion=np.array([motion]),
            confidence=np.array([self._confidence]),
            reused_frac=np.array([self._reused_frac]),
            tracked_speed=np.array([self._speed]),
            reference_age=np.array([reference_age]) if reference_age else None,
            whole_age=None if whole_age is None else np.array([whole_age]),
        )
