"""``fugu-mpc``: model-predictive control on a distribution of transfer times.

As in Fugu (Yan et al., NSDI 2020) the uplink is a distribution of the transfer time of each payload
(``controller.predict.transfer``), here five equally likely scenarios, and the controller plans several decisions ahead.
A plan is a candidate now and then, ``horizon`` times, the row that earns most in the long run. The candidate's payload
is that of now, those of later decisions are in the steady state (``controller.references``). A plan follows the
timeline of docs/architecture.md: a device that is late for the next decision, the backlog of the link, the random wait
at the MEC, the fallback, replies that are given up, answers that age while frames are skipped, and dropped frames.

The value of a plan is what its frames earn, less what as many frames earn in the long run: the differential value of
average-reward problems (Sutton and Barto, section 10.3). So plans of different frame strides compare.

Shapes: B states, Q scenarios, R rows of the cost table. All arrays of a plan broadcast to (B, Q, R), and are float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from controller.controllers.simple import Memoryless
from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.expectation import fallback_at_s, score_of_skipped, skipped_score
from controller.predict.transfer import LEVELS, TransferPredictor
from controller.records import Bools, Float32s, Floats, Ints, SystemState
from controller.scenario import QUEUE_LIMIT
from controller.timeline import GIVE_UP_DEADLINES
from controller.utility import Utility

#: The scenarios: every other quantile. They are the middles of five equal parts of the distribution.
_SCENARIOS = slice(1, None, 2)
assert LEVELS[_SCENARIOS] == (0.1, 0.3, 0.5, 0.7, 0.9)
#: So many candidates, the best by their own frames, are planned to the end.
_PLANNED = 16
_MOST_HORIZON = 20
#: A device that is at least QUEUE_LIMIT capture periods late has dropped a frame; on average, from half a period less.
_DROPS_FROM = QUEUE_LIMIT - 0.5
#: The wait at an idle MEC: so short that an answer is either in time or not.
_LEAST_WAIT_S = 1e-5


@dataclass(frozen=True, slots=True)
class MpcTuning:
    """The tunables of ``fugu-mpc``."""

    horizon: int = 2  # decisions after the present one
    margin: float = 1.0  # factor on the predicted bandwidth; below 1 is careful
    device_margin: float = 1.1  # factor on the predicted device time; above 1 is careful
    headroom_frac: float = 0.05  # as in Estimator
    penalty: float = 0.05  # as in Greedy: for delays beyond what the plan sees

    def __post_init__(self) -> None:
        if not (isinstance(self.horizon, int) and 0 <= self.horizon <= _MOST_HORIZON):
            raise UsageError(f"fugu-mpc horizon: got {self.horizon}; expected 0 to {_MOST_HORIZON} decisions")
        for name in ("margin", "device_margin"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"fugu-mpc {name}: got {getattr(self, name)}; expected a factor above 0")
        if not 0 <= self.headroom_frac < 1:
            raise UsageError(f"fugu-mpc headroom_frac: got {self.headroom_frac}; expected 0 or more, below 1")


class FuguMpc(Memoryless):
    """Plans with each candidate in each scenario, and takes the best one on average."""

    name = "fugu-mpc"

    def __init__(self, costs: CostTable, utility: Utility, predictor: TransferPredictor, tuning: MpcTuning) -> None:
        self._costs, self._utility, self._predictor, self._tuning = costs, utility, predictor, tuning
        # Rows with equal heads and payloads, such as those that differ in their frame stride alone, share a prediction.
        sends = np.stack([costs.head_s, costs.uplink_bytes], axis=1)
        sends, self._send_of = np.unique(sends, axis=0, return_inverse=True)
        self._send_head_s, self._send_bytes = sends.T

    def decide(self, state: SystemState) -> Ints:
        rows, steady, at = self._begin(state)
        timeline = _Timeline(self._costs, state, self._utility, self._tuning.headroom_frac)
        lasting = timeline.lasting(steady)
        best = lasting.argmax(axis=1)[:, None]
        gain = np.take_along_axis(lasting, best, axis=1)[:, None]
        earned, then = timeline.follow(rows, at, gain)
        value = (earned - self._tuning.penalty * timeline.delay_frac(rows, then)).mean(axis=1)
        planned = np.argpartition(-value, min(_PLANNED, len(self._costs)) - 1, axis=1)[:, :_PLANNED]
        value = np.take_along_axis(value, planned, axis=1)
        value += self._continued(timeline, _pick(steady, best), _pick(then, planned), gain)
        return np.take_along_axis(planned, value.argmax(axis=1)[:, None], axis=1)[:, 0]

    def _continued(self, timeline: _Timeline, row: _Rows, at: _Moment, gain: Float32s) -> Float32s:
        """(B, R) what the rest of each plan earns beyond ``gain``: ``row``, time and again."""
        value = np.zeros(at.age_s[:, 0].shape, np.float32)
        for _ in range(self._tuning.horizon):
            earned, at = timeline.follow(row, at, gain)
            value += earned.mean(axis=1)
        return value

    def _begin(self, state: SystemState) -> tuple[_Rows, _Rows, _Moment]:
        """Every row under the present conditions, with the payloads of now and of the steady state, and the present
        moment."""
        costs, slowdown = self._costs, state.device_slowdown[:, None] * self._tuning.device_margin
        sends = np.broadcast_to(self._send_bytes, (state.batch, len(self._send_bytes)))
        sizes, delays_s = [sends], [self._send_head_s * slowdown]
        if is_aged := state.reference_age is not None:
            sizes.append(costs.uplink_bytes_at(state.reference_age))
            delays_s.append(costs.head_s * slowdown)
        # The backlog as one more payload.
        delay_s = np.concatenate([*delays_s, np.zeros_like(slowdown)], axis=1)
        size = np.concatenate([*sizes, state.uplink_backlog_bytes[:, None]], axis=1)
        took_s = self._predictor.quantiles(state, size, delay_s, _SCENARIOS).transpose(0, 2, 1) / self._tuning.margin
        steady = _rows_of(costs, state, costs.head_s * slowdown, took_s[:, :, self._send_of])
        rows = steady
        if is_aged:
            now_s = took_s[:, :, len(self._send_bytes) : -1]
            rows = steady._replace(transmit_s=now_s * steady.sent)
        return rows, steady, _Moment(_column(state.frame_age_s), took_s[:, :, -1:])


class _Moment(NamedTuple):
    """Where a plan stands when it decides."""

    age_s: Float32s  # since the frame's capture
    backlog_s: Float32s  # until the link is free


class _Rows(NamedTuple):
    """What a plan needs to know of rows; times in seconds."""

    stride: Float32s
    sent: Bools
    head_s: Float32s
    transmit_s: Float32s
    mec_s: Float32s  # without the wait
    per_wait_s: Float32s  # one over the mean wait at the MEC
    accuracy: Float32s
    fallback_accuracy: Float32s  # of the frame itself
    rescued_score: Float32s  # of all frames of the decision when the fallback answers at the deadline
    skipped_score: Float32s  # as in CostTable
    stale_losses: Float32s  # (places, B, Q, R), likewise


def _rows_of(costs: CostTable, state: SystemState, head_s: Floats, transmit_s: Float32s) -> _Rows:
    """All rows of the table, from device times (B, R) and transfer times (B, Q, R)."""
    sent = ~costs.space.device_only
    tail_s = costs.mec_s * state.mec_slowdown[:, None]
    # The MEC serves what is in flight first, here as if each of these took as long as this request.
    wait_s = (state.mec_queue_mean_s[:, None] + state.in_flight[:, None] * tail_s) * sent + _LEAST_WAIT_S
    deadline_frames = np.broadcast_to((state.deadline_s / state.capture_period_s)[:, None], head_s.shape)
    rescued = skipped_score(costs, deadline_frames) * costs.rescued_share
    losses = np.array(costs.stale_losses).reshape(-1, 1, 1, len(costs))

    def wide(values: Floats) -> Float32s:
        """(R,) or (B, R) with an axis for the scenarios."""
        return np.atleast_2d(values)[:, None].astype(np.float32)

    return _Rows(
        stride=wide(costs.stride),
        sent=sent[None, None],
        head_s=wide(head_s),
        transmit_s=transmit_s * sent,
        mec_s=wide(tail_s + state.rtt_s[:, None]),
        per_wait_s=wide(1.0 / wait_s),
        accuracy=wide(costs.accuracy),
        fallback_accuracy=wide(costs.rescued_accuracy),
        rescued_score=wide(costs.rescued_accuracy + rescued),
        skipped_score=wide(costs.skipped_score),
        stale_losses=losses.astype(np.float32),
    )


class _Answer(NamedTuple):
    """What becomes of a decision."""

    end_s: Float32s  # of the head, from capture
    answer_s: Float32s  # of device or MEC, without a wait there, from capture
    rescued: Bools  # the fallback answers in time if the MEC does not, and the device does not wait for the reply
    in_time: Float32s  # probability
    missed: Float32s  # probability that the fallback answers


class _Timeline:
    """What becomes of a decision under the conditions of B states."""

    def __init__(self, costs: CostTable, state: SystemState, utility: Utility, headroom_frac: float) -> None:
        self._utility = utility
        self._kept_frac = np.float32(1.0 - headroom_frac)
        self._strides = costs.longest_stride > 1
        self._period_s, self._deadline_s = _column(state.capture_period_s), _column(state.deadline_s)
        self._fallback_at_s = _column(fallback_at_s(costs, state))
        self._fallback_s = _column(costs.fastest_local_s * state.device_slowdown)

    def follow(self, rows: _Rows, at: _Moment, gain: Float32s) -> tuple[Float32s, _Moment]:
        """What the frames of a decision earn beyond ``gain`` each, and the moment of the next decision."""
        answer = self._answer(rows, at)
        then, dropped = self._then(rows, at, answer)
        earned = self._earned(rows, answer) - gain * rows.stride
        return earned - (self._utility.drop_penalty + gain) * dropped, then

    def lasting(self, rows: _Rows) -> Float32s:
        """(B, R) what each row earns per frame if it is decided time and again.

        A row that takes longer than its frames last loses some of them.
        """
        nothing = np.zeros_like(self._period_s)
        answer = self._answer(rows, _Moment(nothing, nothing))
        earned = self._earned(rows, answer) / rows.stride
        busy_s = rows.head_s + answer.missed * self._fallback_s
        served = 1.0 / np.maximum(np.maximum(busy_s, rows.transmit_s) / self._span_s(rows), 1.0)
        return np.asarray((earned * served - self._utility.drop_penalty * (1.0 - served)).mean(axis=1))

    def delay_frac(self, rows: _Rows, then: _Moment) -> Float32s:
        """How late device and link are for the next decision, in frames per frame of the decision."""
        return np.asarray((then.age_s + then.backlog_s) / self._span_s(rows))

    def _span_s(self, rows: _Rows) -> Float32s:
        return self._period_s * rows.stride

    def _answer(self, rows: _Rows, at: _Moment) -> _Answer:
        """Whether and when a decision is answered. The wait at the MEC is taken to be exponential."""
        end_s = at.age_s + rows.head_s
        answer_s = end_s + rows.sent * (_link_s(rows, at) + rows.mec_s)
        rescued = rows.sent & (end_s <= self._fallback_at_s)
        soon = self._in_time(rows, self._fallback_at_s - at.age_s, answer_s - at.age_s)
        by_deadline = self._in_time(rows, self._deadline_s - at.age_s, answer_s - at.age_s)
        # At the last moment a device waits for the reply if that is worth more than a fallback.
        rescued = rescued & (
            rows.accuracy * by_deadline <= rows.accuracy * soon + rows.fallback_accuracy * (1.0 - soon)
        )
        in_time = np.asarray(np.where(rescued, soon, by_deadline), np.float32)
        return _Answer(end_s, answer_s, rescued, in_time, rescued * (1.0 - in_time))

    def _in_time(self, rows: _Rows, left_s: Float32s, takes_s: Float32s) -> Float32s:
        """Probability that what takes so long without a wait at the MEC ends within ``left_s``."""
        spare_s = np.maximum(self._kept_frac * left_s - takes_s, 0.0)
        return np.asarray(-np.expm1(-spare_s * rows.per_wait_s), np.float32)

    def _earned(self, rows: _Rows, answer: _Answer) -> Float32s:
        """Expected utility of all frames of a decision."""
        energy_j = self._utility.energy_j(rows.head_s + answer.missed * self._fallback_s, rows.transmit_s)
        earned = rows.accuracy * answer.in_time + rows.rescued_score * answer.missed
        earned -= self._utility.energy_weight_per_j * energy_j
        if self._strides:
            known = ~rows.sent | (answer.answer_s <= GIVE_UP_DEADLINES * self._deadline_s)
            skipped = score_of_skipped(rows.skipped_score, list(rows.stale_losses), answer.answer_s / self._period_s)
            earned += known * skipped * np.where(answer.rescued, answer.in_time, 1.0)
        return np.asarray(earned)

    def _then(self, rows: _Rows, at: _Moment, answer: _Answer) -> tuple[_Moment, Float32s]:
        """The moment of the next decision, and how many frames were dropped before."""
        span_s, end_s = self._span_s(rows), answer.end_s
        next_s = np.maximum(span_s, end_s + answer.missed * self._fallback_s)
        free_s = np.where(rows.sent, end_s + _link_s(rows, at), at.age_s + at.backlog_s)
        late_s = next_s - span_s
        dropped = np.maximum(late_s / self._period_s - _DROPS_FROM, 0.0)
        return _Moment(late_s - dropped * self._period_s, np.maximum(free_s - next_s, 0.0)), dropped


def _link_s(rows: _Rows, at: _Moment) -> Float32s:
    """From the end of the head until the payload has crossed."""
    return np.asarray(np.maximum(at.backlog_s - rows.head_s, 0.0) + rows.transmit_s)


def _column(values: Floats) -> Float32s:
    """(B, 1, 1) from (B,)."""
    return values[:, None, None].astype(np.float32)


_Columns = TypeVar("_Columns", _Rows, _Moment)


def _pick(columns: _Columns, rows: Ints) -> _Columns:
    """The given rows (B, R') of every column."""
    index = rows[:, None]
    picked: Any = [np.take_along_axis(c, index if c.ndim == 3 else index[None], axis=-1) for c in columns]
    return type(columns)(*picked)
