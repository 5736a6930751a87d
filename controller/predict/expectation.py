"""What would come of each candidate under a bandwidth estimate: in time or not, and worth how much?

Latency is ``controller.predict.latency.predict``; what this file adds is the device's own rule of the game. An answer
of the
MEC counts only while the frame still waits for it: when a reserve before the deadline begins, the device answers
alone (the fallback), unless its head segment was still running then. Shapes: B rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from controller.costs import CostTable
from controller.predict.estimators import Estimator
from controller.predict.latency import predict
from controller.records import UPLINK_HISTORY, Bools, Float32s, Floats, Ints, SystemState
from controller.timeline import GIVE_UP_DEADLINES, fallback_reserve_s
from controller.utility import Utility

#: (C,) or (B, C) scores, float64 or float32.
Scores = TypeVar("Scores", Floats, Float32s)


@dataclass(frozen=True, slots=True)
class Expectation:
    """Expectations per candidate; times count from capture unless said otherwise."""

    head_s: Floats  # (B, C) device time of this frame
    link_s: Floats  # (B, C) backlog and transmission after the head has ended; 0 when device-only
    transmit_s: Floats  # (B, C) own payload only
    total_s: Floats  # (B, C) capture to answer
    fits: Bools  # (B, C) predicted to be in time
    rescued: Bools  # (B, C) if it is not, the fallback answers


def expectation(costs: CostTable, state: SystemState, estimator: Estimator) -> Expectation:
    """Expectations if the uplink kept the estimated bandwidth."""
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
    """(B, C) candidates whose head ends early enough for the fallback to step in."""
    head_end = state.frame_age_s[:, None] + head_s
    return np.asarray(~costs.space.device_only & (head_end <= fallback_at_s(costs, state)[:, None]))


def due_s(costs: CostTable, state: SystemState, rescued: Bools) -> Floats:
    """(B, C) time from capture by which each candidate must have answered to count as decided."""
    return np.where(rescued, fallback_at_s(costs, state)[:, None], state.deadline_s[:, None])


def fallback_at_s(costs: CostTable, state: SystemState) -> Floats:
    """(B,) time from capture at which a frame without an answer is answered locally."""
    return state.deadline_s - fallback_reserve_s(costs.fastest_local_s * state.device_slowdown)


def expected_utility(costs: CostTable, state: SystemState, utility: Utility, seen: Expectation) -> Floats:
    """(B, C) utility per frame that the decision answers.

    Its own frame earns the candidate's accuracy if it fits, otherwise the fallback's or nothing.
    """
    falls_back = ~seen.fits & seen.rescued
    busy = seen.head_s + falls_back * (costs.fastest_local_s * state.device_slowdown)[:, None]
    score = np.where(seen.fits, costs.accuracy, costs.rescued_accuracy * falls_back)
    earned = score - utility.energy_weight_per_j * utility.energy_j(busy, seen.transmit_s)
    if costs.longest_interval == 1:
        return np.asarray(earned)
    answer_s = np.where(falls_back, state.deadline_s[:, None], seen.total_s)
    skipped = skipped_score(costs, answer_s / state.capture_period_s[:, None])
    skipped *= np.where(falls_back, costs.rescued_share, 1.0)
    return np.asarray((earned + skipped) / costs.interval)


def skipped_score(costs: CostTable, answer_frames: Floats) -> Floats:
    """(B, C) expected scores, in all, of the frames that are not run, when the answer comes so many frame intervals
    (B, C) after capture: those captured before that have the answer before, of a decision taken to be like this one."""
    return score_of_skipped(costs.skipped_score, costs.stale_losses, answer_frames)


def score_of_skipped(in_time: Scores, stale_losses: Sequence[Scores], answer_frames: Scores) -> Scores:
    """The same from the columns of a table in any precision; ``in_time`` and each of ``stale_losses`` are (C,)."""
    score = np.broadcast_to(in_time, answer_frames.shape).copy()
    for place, loss in enumerate(stale_losses, start=1):
        score -= loss * (answer_frames > place)
    return score


def expected_streaming(costs: CostTable, state: SystemState, seen: Expectation) -> Floats:
    """(B, C) streaming accuracy if every frame were decided like this one; a fallback comes at the deadline."""
    deadline = state.deadline_s[:, None]
    answer_s = np.where(~seen.fits & seen.rescued, deadline, np.minimum(seen.total_s, GIVE_UP_DEADLINES * deadline))
    return streaming_at(costs, np.arange(len(costs)), answer_s / state.capture_period_s[:, None])


def streaming_at(costs: CostTable, rows: Ints, answer_frames: Floats) -> Floats:
    """Streaming accuracy if every frame were decided like ``rows``, and answered so many frame intervals after capture;
    the two are broadcast against each other."""
    table = costs.streaming_worth
    lag = np.ceil(answer_frames).astype(np.int64).clip(1, len(table) - 1)
    return np.asarray(table[lag, rows])


def delay_frac(costs: CostTable, state: SystemState, seen: Expectation) -> Floats:
    """(B, C) by how many frames the device and the link would be late for the next decision, per frame until then."""
    interval = state.capture_period_s[:, None] * costs.interval
    device = np.maximum(state.frame_age_s[:, None] + seen.head_s - interval, 0.0)
    link = np.maximum(seen.link_s - interval, 0.0)
    return np.asarray((device + link) / interval)


def keeps_pace(costs: CostTable, state: SystemState, seen: Expectation) -> Bools:
    """(B, C) candidates that could be chosen at every decision without a queue building up."""
    interval = state.capture_period_s[:, None] * costs.interval
    return np.asarray((seen.head_s <= interval) & (seen.transmit_s <= interval))


def idle_state(
    *,
    deadline_s: Floats,
    capture_period_s: Floats,
    device_slowdown: Floats,
    mec_slowdown: Floats,
    mec_wait_s: Floats,
    uplink_bps: Floats,
) -> SystemState:
    """A state (B,) to plan with: the given conditions, nothing queued, nothing on the link. ``mec_wait_s`` is the
    round trip with the MEC's queue; ``uplink_bps`` fills the history."""
    none, no_frames = np.zeros(len(deadline_s)), np.zeros(len(deadline_s), dtype=np.int64)
    return SystemState(
        deadline_s=deadline_s,
        capture_period_s=capture_period_s,
        frame_age_s=none,
        uplink_bps=np.repeat(uplink_bps[:, None], UPLINK_HISTORY, axis=1),
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
        link_up=np.ones(len(deadline_s), dtype=np.bool_),
        on_time_frac=none,
        fallback_frac=none,
    )
