"""What each candidate would achieve under a bandwidth estimate: in time or not, with which score and utility.

Latency comes from ``controller.predict.latency.predict``. This file adds the rule of the fallback: shortly before the
deadline the device answers a frame alone (``fallback_at_s``), unless the frame's head segment is still running then, or
the reply is worth waiting for (``is_waited_for``). Shapes: B states, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from controller.costs import CostTable
from controller.predict.estimators import Estimator
from controller.predict.latency import predict
from controller.records import NO_ROW, UPLINK_HISTORY, Bools, Float32s, Floats, Ints, SystemState
from controller.timeline import GIVE_UP_DEADLINES, fallback_reserve_s
from controller.utility import Utility

#: The chance that ``controller.waiting`` gives a reply which all reports promise in time.
PROMISED = UPLINK_HISTORY / (UPLINK_HISTORY + 1.0)
#: (C,) or (B, C) scores, float64 or float32.
Scores = TypeVar("Scores", Floats, Float32s)


@dataclass(frozen=True, slots=True)
class Expectation:
    """Expectations per candidate; times in seconds."""

    head_s: Floats  # (B, C) device time of this frame
    link_s: Floats  # (B, C) backlog and transmission after the head has ended; 0 when device-only
    transmit_s: Floats  # (B, C) own payload only
    total_s: Floats  # (B, C) capture to answer
    fits: Bools  # (B, C) predicted to be in time
    rescued: Bools  # (B, C) if it is not in time, the fallback answers


def expectation(costs: CostTable, state: SystemState, estimator: Estimator) -> Expectation:
    """Expectations if the uplink keeps the estimated bandwidth."""
    predicted = predict(costs, state, estimator.of(state)[:, None])
    total, transmit = predicted.total_s[:, :, 0], predicted.transmit_s[:, :, 0]
    age = state.frame_age_s[:, None]
    rescued = is_rescued(costs, state, predicted.head_s)
    budget = due_s(costs, state, rescued) - age
    link = total - age - predicted.head_s - mec_s(costs, state)
    fits = total - age <= (1.0 - estimator.headroom_frac) * budget
    return Expectation(predicted.head_s, link, transmit, total, fits, rescued)


def mec_s(costs: CostTable, state: SystemState) -> Floats:
    """(B, C) queue, tail segment and round trip; 0 when device-only."""
    wait = state.mec_queue_mean_s + state.rtt_s
    served = costs.mec_s * state.mec_slowdown[:, None] + wait[:, None]
    return np.asarray(served * ~costs.space.device_only)


def is_rescued(costs: CostTable, state: SystemState, head_s: Floats) -> Bools:
    """(B, C) offloads whose head segment ends before the fallback would start; ``head_s`` (B, C)."""
    head_end = state.frame_age_s[:, None] + head_s
    return np.asarray(~costs.space.device_only & (head_end <= fallback_at_s(costs, state)[:, None]))


def due_s(costs: CostTable, state: SystemState, rescued: Bools) -> Floats:
    """(B, C) time from capture by which each candidate must answer to be in time; ``rescued`` (B, C)."""
    falls_back = rescued & ~is_waited_for(costs, state)
    return np.where(falls_back, fallback_at_s(costs, state)[:, None], state.deadline_s[:, None])


def is_waited_for(costs: CostTable, state: SystemState) -> Bools:
    """(B, C) candidates whose reply the device still waits for at the last moment if all reports promise it in time.

    The rule is that of ``controller.waiting``, without the energy of the fallback.
    """
    period = state.capture_period_s[:, None] * costs.stride
    busy = (costs.head_s + costs.fastest_local_s) * state.device_slowdown[:, None]
    lost = np.maximum(busy - period, 0.0) / period
    return np.asarray(PROMISED * costs.accuracy * (1.0 + lost) > costs.rescued_accuracy)


def fallback_at_s(costs: CostTable, state: SystemState) -> Floats:
    """(B,) time from capture at which the device answers a frame that has no reply."""
    return state.deadline_s - fallback_reserve_s(costs.fastest_local_s * state.device_slowdown)


def over_paths(costs: CostTable, value: Callable[[CostTable], Floats]) -> Floats:
    """(B, C) expectation of what is valued for a table (B, rows): the mean over what may become of a frame
    (``controller.gates``)."""
    return costs.mean(value(costs.paths))


def expected_utility(costs: CostTable, state: SystemState, utility: Utility, expected: Expectation) -> Floats:
    """(B, C) utility per frame that the decision is for.

    Its own frame earns the accuracy of the candidate if that is in time, else the accuracy of the fallback, else 0.
    """
    falls_back = ~expected.fits & expected.rescued
    busy = expected.head_s + falls_back * (costs.fastest_local_s * state.device_slowdown)[:, None]
    score = np.where(expected.fits, costs.accuracy, costs.rescued_accuracy * falls_back)
    earned = score - utility.energy_weight_per_j * utility.energy_j(busy, expected.transmit_s)
    if costs.longest_stride == 1:
        return np.asarray(earned)
    answer_s = np.where(falls_back, state.deadline_s[:, None], expected.total_s)
    skipped = skipped_score(costs, answer_s / state.capture_period_s[:, None])
    skipped *= np.where(falls_back, costs.rescued_share, 1.0)
    return np.asarray((earned + skipped) / costs.stride)


def skipped_score(costs: CostTable, answer_frames: Floats) -> Floats:
    """(B, C) sum of the expected scores of the skipped frames, when the answer comes ``answer_frames`` (B, C) capture
    periods after capture.

    A skipped frame that is captured before the answer gets the previous answer, which is assumed to come from a
    decision like this one.
    """
    return score_of_skipped(costs.skipped_score, costs.stale_losses, answer_frames)


def score_of_skipped(in_time: Scores, stale_losses: Sequence[Scores], answer_frames: Scores) -> Scores:
    """The formula of ``skipped_score`` in any precision.

    ``in_time`` (C,) is the sum when the answer comes before the first skipped frame. ``stale_losses[i]`` (C,) is what
    the sum loses when the answer comes after the capture of skipped frame i + 1.
    """
    score = np.broadcast_to(in_time, answer_frames.shape).copy()
    for place, loss in enumerate(stale_losses, start=1):
        score -= loss * (answer_frames > place)
    return score


def expected_streaming(costs: CostTable, state: SystemState, expected: Expectation) -> Floats:
    """(B, C) streaming accuracy if every frame is decided like this one; a fallback answers at the deadline."""
    deadline = state.deadline_s[:, None]
    answer_s = np.where(
        ~expected.fits & expected.rescued, deadline, np.minimum(expected.total_s, GIVE_UP_DEADLINES * deadline)
    )
    return streaming_at(costs, np.arange(len(costs)), answer_s / state.capture_period_s[:, None])


def streaming_at(costs: CostTable, rows: Ints, answer_frames: Floats) -> Floats:
    """Streaming accuracy if every frame is decided like ``rows`` and answered ``answer_frames`` capture periods after
    capture; the shapes of the two broadcast."""
    table = costs.streaming_accuracy
    lag = np.ceil(answer_frames).astype(np.int64).clip(1, len(table) - 1)
    return np.asarray(table[lag, rows])


def delay_frac(costs: CostTable, state: SystemState, expected: Expectation) -> Floats:
    """(B, C) delay of the next decision by device and link, in frames per frame that this decision is for."""
    period = state.capture_period_s[:, None] * costs.stride
    device = np.maximum(state.frame_age_s[:, None] + expected.head_s - period, 0.0)
    link = np.maximum(expected.link_s - period, 0.0)
    return np.asarray((device + link) / period)


def keeps_pace(costs: CostTable, state: SystemState, expected: Expectation) -> Bools:
    """(B, C) candidates that can be chosen at every decision without a growing queue."""
    period = state.capture_period_s[:, None] * costs.stride
    return np.asarray((expected.head_s <= period) & (expected.transmit_s <= period))


def idle_state(
    *,
    deadline_s: Floats,
    capture_period_s: Floats,
    device_slowdown: Floats,
    mec_slowdown: Floats,
    mec_wait_s: Floats,
    uplink_bps: Floats,
    reference_age: Ints | None = None,
) -> SystemState:
    """A state (B,) to plan with: the given conditions, no frame queued, no byte on the link.

    ``mec_wait_s`` is the round trip plus the MEC's queue; ``uplink_bps`` fills the history. Without ``reference_age``
    payloads are in the steady state.
    """
    none, no_frames = np.zeros(len(deadline_s)), np.zeros(len(deadline_s), dtype=np.int64)
    no_row = np.full(len(deadline_s), NO_ROW)
    history = np.zeros((len(deadline_s), UPLINK_HISTORY))
    return SystemState(
        deadline_s=deadline_s,
        capture_period_s=capture_period_s,
        frame_age_s=none,
        uplink_bps=np.repeat(uplink_bps[:, None], UPLINK_HISTORY, axis=1),
        uplink_sample_bytes=history,
        uplink_sample_age_s=history,
        uplink_sample_count=no_frames,
        uplink_age_s=none,
        uplink_backlog_bytes=none,
        rtt_s=mec_wait_s,
        device_slowdown=device_slowdown,
        queued_frames=no_frames,
        in_flight=no_frames,
        mec_queue_s=none,
        mec_queue_mean_s=none,
        mec_slowdown=mec_slowdown,
        mec_age_s=none,
        replied_row=no_row,
        replied_s=none,
        waiting_row=no_row,
        waiting_s=none,
        link_up=np.ones(len(deadline_s), dtype=np.bool_),
        on_time_frac=none,
        fallback_frac=none,
        reference_age=reference_age,
    )
