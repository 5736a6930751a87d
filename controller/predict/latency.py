"""How long each candidate takes if the uplink keeps a given bandwidth.

``total = age + head + (backlog that the head does not hide) + transmission + round trip + MEC queue + tail``

Where payloads refer to earlier ones, their bytes are those for the references that the state tells.

Controllers that trust a bandwidth estimate and the shortlist call ``predict``; ``linucb`` and ``fugu-mpc`` have models
of their own. The policy's features (``controller.features``) repeat its arithmetic for speed; a test compares the two.

Shapes: B states, C candidates, Q bandwidth estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.costs import CostTable
from controller.predict.uplink import FLOOR_BPS
from controller.records import Floats, SystemState


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted terms per candidate, in seconds."""

    head_s: Floats  # (B, C) device time
    transmit_s: Floats  # (B, C, Q) own message only
    total_s: Floats  # (B, C, Q) capture to answer


def predict(costs: CostTable, state: SystemState, uplink_bps: Floats) -> Prediction:
    """Latency of every candidate under each of the bandwidth estimates (B, Q)."""
    per_bit = 1.0 / np.maximum(uplink_bps, FLOOR_BPS)
    head = costs.head_s * state.device_slowdown[:, None]
    sent = ~costs.space.device_only
    mec = state.mec_queue_mean_s[:, None] + costs.mec_s * state.mec_slowdown[:, None] + state.rtt_s[:, None]
    fixed = state.frame_age_s[:, None] + head + mec * sent
    transmit = (costs.uplink_bytes_at(state.reference_age) * 8.0)[..., None] * per_bit[:, None, :]
    backlog = (state.uplink_backlog_bytes * 8.0)[:, None] * per_bit
    blocked = np.maximum(backlog[:, None, :] - head[:, :, None], 0.0) * sent[:, None]
    return Prediction(head, transmit, fixed[:, :, None] + blocked + transmit)
