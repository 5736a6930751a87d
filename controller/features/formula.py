"""The formula of the features: one function over a batch of states, in double precision.

It takes latency from ``controller.predict.latency`` and the rules of the fallback from
``controller.predict.expectation``, so the policy sees what the other controllers calculate with. The twin and the
device need the same numbers in microseconds: ``controller.features.fast`` computes them with fewer array operations,
and a test holds it against this function.

One choice is the features' own: the backlog of the uplink drains at the mean bandwidth under all four estimates.

Shapes: B states, C candidates, D context features, F candidate features, Q bandwidth estimates.
"""

from __future__ import annotations

import numpy as np

from controller.costs import CostTable
from controller.features.schema import BANDWIDTHS, CANDIDATE_FEATURES, CONTEXT_FEATURES, FEATURE_SCHEMA
from controller.predict.expectation import fallback_at_s, mec_s, skipped_score
from controller.predict.latency import Prediction, predict
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Bools, Floats, SystemState
from controller.utility import Utility

#: The "hopeful" estimate weighs each uplink sample half as much as the next newer one, and doubles with every
#: RECOVERY_S without a new sample. Only sending shows bandwidth, so a device that gave up on the uplink must come
#: to try it again.
RECOVERY_S = 3.0
MOST_DOUBLINGS = 10.0
HISTORY_WEIGHTS = [0.5 ** (i + 1) for i in range(UPLINK_HISTORY)]
HISTORY_WEIGHTS[-1] *= 2  # so that they sum to one
#: The greedy value counts a candidate as in time when its slack is more than this share of the remaining time...
HEADROOM_FRAC = 0.1
#: ... and loses this much utility for each capture period by which the candidate delays the next frames.
DELAY_PENALTY = 0.1
#: Keeps the logarithm of a sample's age finite.
LEAST_AGE_S = 0.01
MEAN = BANDWIDTHS.index("mean8")


def features(costs: CostTable, utility: Utility, state: SystemState) -> tuple[Floats, Floats]:
    """Context (B, D) and candidates (B, C, F), float64, clipped to the bounds of the schema."""
    bandwidths = bandwidth_estimates(state)
    context = np.stack([_context(state, bandwidths)[name] for name in CONTEXT_FEATURES], axis=1)
    predicted = predict(costs, state, bandwidths, backlog_bps=bandwidths[:, [MEAN]])
    columns = _candidates(costs, utility, state, predicted, bandwidths)
    shape = (state.batch, len(costs))
    candidates = np.stack([np.broadcast_to(columns[name], shape) for name in CANDIDATE_FEATURES], axis=2)
    low, high = FEATURE_SCHEMA.low, FEATURE_SCHEMA.high
    return context.clip(low, high), candidates.clip(low, high)


def bandwidth_estimates(state: SystemState) -> Floats:
    """(B, Q) bit/s in the order of BANDWIDTHS."""
    bps = np.maximum(state.uplink_bps, FLOOR_BPS)
    hope = np.exp2(np.minimum(state.uplink_age_s / RECOVERY_S, MOST_DOUBLINGS))
    mean = UPLINK_HISTORY / (1.0 / bps).sum(axis=1)
    return np.stack([bps[:, 0], bps @ HISTORY_WEIGHTS * hope, mean, bps.min(axis=1)], axis=1)


def _backlog_s(state: SystemState, bandwidths: Floats) -> Floats:
    """(B,) time that the uplink needs for own bytes under the mean."""
    return np.asarray(state.uplink_backlog_bytes * 8.0 / bandwidths[:, MEAN])


def _context(state: SystemState, bandwidths: Floats) -> dict[str, Floats]:
    """(B,) each, by name."""
    last, mean, least = (np.log10(bandwidths[:, q]) - 6.0 for q in (0, MEAN, -1))
    deadline = state.deadline_s
    return {
        "log_last_bps": last,
        "log_mean8_bps": mean,
        "log_least8_bps": least,
        "spread": mean - least,
        "trend": last - mean,
        "sample_age": state.uplink_age_s / deadline,
        "log_sample_age": np.log10(state.uplink_age_s + LEAST_AGE_S),
        "backlog": _backlog_s(state, bandwidths) / deadline,
        "in_flight": state.in_flight,
        "queued_frames": state.queued_frames,
        "frame_age": state.frame_age_s / deadline,
        "log_slowdown": np.log10(state.device_slowdown),
        "log_mec_slowdown": np.log10(state.mec_slowdown),
        "mec_queue": state.mec_queue_s / deadline,
        "mec_queue_mean": state.mec_queue_mean_s / deadline,
        "mec_age": state.mec_age_s,
        "rtt": state.rtt_s / deadline,
        "log_deadline": np.log10(deadline) + 1.0,
        "interval": state.capture_period_s / deadline,
        "on_time": state.on_time_frac,
        "fallback": state.fallback_frac,
        "link_up": state.link_up.astype(float),
    }


def _candidates(
    costs: CostTable, utility: Utility, state: SystemState, predicted: Prediction, bandwidths: Floats
) -> dict[str, Floats]:
    """(C,) or (B, C) each, by name."""
    deadline, period = state.deadline_s[:, None], state.capture_period_s[:, None]
    sent, transmit = ~costs.space.device_only, predicted.transmit_s[:, :, MEAN]
    link_s = _backlog_s(state, bandwidths)[:, None] * sent + transmit
    energy_j = utility.energy_j(predicted.head_s, transmit) / costs.stride
    columns = {
        "accuracy": 10.0 * (costs.accuracy_per_frame - costs.accuracy_per_frame.max()),
        "interval": (costs.stride - 1.0) / 2.0,
        "sent": sent.astype(float),
        "head": predicted.head_s / deadline,
        "occupancy": (state.frame_age_s[:, None] + predicted.head_s) / period - costs.stride,
        "link_occupancy": link_s / period - costs.stride,
        "transmit": transmit / deadline,
        "mec": mec_s(costs, state) / deadline,
        "energy": 10.0 * utility.energy_weight_per_j * energy_j,
    }
    late = np.maximum(columns["occupancy"], 0.0) + np.maximum(columns["link_occupancy"], 0.0)
    charge = 10.0 * DELAY_PENALTY * late / costs.stride + columns["energy"]
    due_s = np.where(sent, fallback_at_s(costs, state)[:, None], deadline)
    for estimate, name in enumerate(BANDWIDTHS):
        total_s = predicted.total_s[:, :, estimate]
        columns[f"slack_{name}"] = slack = (due_s - total_s) / deadline
        on_time = slack > HEADROOM_FRAC * (1.0 - state.frame_age_s[:, None] / deadline)
        score = _score_per_frame(costs, on_time, np.where(on_time | ~sent, total_s, deadline) / period)
        columns[f"promise_{name}"] = 10.0 * (score - costs.accuracy_per_frame.max()) - charge
    return columns


def _score_per_frame(costs: CostTable, on_time: Bools, answer_frames: Floats) -> Floats:
    """(B, C) expected score per frame when the answer comes ``answer_frames`` (B, C) capture periods after capture.

    An offload that is not in time is answered by the fallback.
    """
    skipped = skipped_score(costs, answer_frames)
    rescued = costs.rescued_accuracy + costs.rescued_share * skipped
    return np.asarray(np.where(on_time, costs.accuracy + skipped, rescued) / costs.stride)
