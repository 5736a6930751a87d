"""``linucb``: a linear bandit that learns on the device how long the MEC takes to answer, after ANS (WWW 2021).

ANS (Zhang et al., "Autodidactic Neurosurgeon") runs LinUCB over the cuts of a network. The delay of what follows the
cut is linear in a context; its weights are learned from the delays of earlier frames, and the cut with the least
optimistic delay is taken. As there, optimism counts less on key frames: ``delay - alpha sqrt((1 - L) u' A^-1 u)`` with
L 0.8 on them and 0.2 on others.

What differs makes it stronger:

- No offload is forced. There one is from time to time, because device-only frames teach nothing; here the probes of the
  uplink show when offloads would pay again, and tuning on the training traces chose to force none on either workload.
- The context holds what profile and telemetry predict for the parts of the delay: crossing, tail segment, and waiting
  at the MEC with the round trip. So the weights start at 1, where a controller without learning stands, and learn by
  which factors these predictions are wrong for this device. Contexts and delays are relative to the predicted sum,
  because errors are.
- Older replies count less, because the uplink changes.
- A reply that is still out gives a lower bound of its delay. While that exceeds what was expected of it, all delays
  are expected to be longer by that factor.
- It maximises utility, not the negative delay: the mean greedy value of each candidate, in time or not. How likely
  either is follows from the learned delay and from how far delays stray from it, which is learned too.
- A frame counts as key when earlier frames were not in time, since a SystemState does not show the picture.

Shapes: B states, C candidates, 3 terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from controller.controllers.greedy import candidate_value
from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.estimators import Estimator
from controller.predict.expectation import Expectation, due_s, is_rescued
from controller.predict.uplink import FLOOR_BPS
from controller.records import NO_ROW, Bools, Floats, Ints, SystemState
from controller.utility import Utility

_TERMS = 3  # crossing, tail, wait
#: L of key frames and of others.
_KEY_WEIGHT, _USUAL_WEIGHT = 0.8, 0.2
#: A frame is key while the smoothed share of frames in time is below this.
_KEY_BELOW = 0.9
#: Bounds of a delay over what was predicted: one stalled reply must not outweigh all others.
_RATIO = (0.2, 4.0)
#: Standard deviation of the logarithm of device times: their load changes while they run.
_DEVICE_NOISE = 0.07
#: The logistic function of this times x is within 0.01 of the normal distribution's.
_LOGISTIC, _LARGE = 1.702, 50.0
_LEAST_S = 1e-6


@dataclass(frozen=True, slots=True)
class BanditTuning:
    """The tunables of ``linucb`` beside those of the bandwidth estimate and the penalty."""

    alpha: float = 0.05  # weight of the optimism
    memory: float | None = 20.0  # replies after which one counts 1 / e; None: it counts forever
    noise: float = 0.3  # first guess of the standard deviation of the logarithm of a delay
    ridge: float = 100.0  # the first weights count as if they came from so many replies

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise UsageError(f"linucb alpha: got {self.alpha}; expected a number that is not negative")
        for name in ("memory", "noise", "ridge"):
            value = getattr(self, name)
            if value is None and name == "memory":
                continue
            if not 0 < value < math.inf:
                raise UsageError(f"linucb {name}: got {value}; expected a number above 0")


class LinUcb:
    """Owns, per row of the batch: the statistics of the regression, the context in which each candidate was last
    chosen, and the last reply that it learned from."""

    name = "linucb"

    def __init__(
        self,
        costs: CostTable,
        utility: Utility,
        estimator: Estimator,
        penalty: float,
        tuning: BanditTuning,
        batch: int,
    ) -> None:
        self._costs, self._utility, self._penalty, self._tuning = costs, utility, penalty, tuning
        self._rate, self._margin = replace(estimator, margin=1.0), estimator.margin  # a margin is not to be learned
        self._kept = 1.0 if tuning.memory is None else math.exp(-1.0 / tuning.memory)
        self._matrix = np.zeros((batch, _TERMS, _TERMS))  # A
        self._vector = np.zeros((batch, _TERMS))  # b
        self._replies = np.zeros(batch)  # that count
        self._squares = np.zeros(batch)  # sum of squared logarithms of delay over learned delay
        self._chosen_in = np.zeros((batch, len(costs), _TERMS))  # seconds
        self._samples = np.zeros(batch, dtype=np.int64)
        self.reset(np.ones(batch, dtype=np.bool_))

    def reset(self, rows: Bools) -> None:
        self._matrix[rows] = self._tuning.ridge * np.eye(_TERMS)
        self._vector[rows] = self._tuning.ridge
        self._replies[rows] = self._tuning.ridge
        self._squares[rows] = self._tuning.ridge * self._tuning.noise**2
        self._chosen_in[rows] = 0.0
        self._samples[rows] = 0

    def decide(self, state: SystemState) -> Ints:
        self._learn(state)
        context = self.context(state)
        row = np.asarray(self._value(state, context).argmax(axis=1))
        every = np.arange(state.batch)
        self._chosen_in[every, row] = context[every, row]
        return row

    def _learn(self, state: SystemState) -> None:
        """Update the regression where the newest sample is that of a reply to one of its own requests."""
        is_reply = (state.uplink_sample_count > self._samples) & (state.mec_age_s <= state.uplink_age_s)
        self._samples = np.array(state.uplink_sample_count)
        context, expected_s = self._chosen(state.replied_row)
        rows = np.flatnonzero(is_reply & (expected_s > 0))
        relative = context[rows] / expected_s[rows, None]
        learned = (_weights(np.linalg.inv(self._matrix[rows]), self._vector[rows]) * relative).sum(axis=1)
        ratio = (state.replied_s[rows] / expected_s[rows]).clip(*_RATIO)
        prior = (1.0 - self._kept) * self._tuning.ridge
        outer = relative[:, :, None] * relative[:, None, :]
        self._matrix[rows] = self._kept * self._matrix[rows] + prior * np.eye(_TERMS) + outer
        self._vector[rows] = self._kept * self._vector[rows] + prior + relative * ratio[:, None]
        self._replies[rows] = self._kept * self._replies[rows] + prior + 1.0
        missed = np.log(ratio / learned)
        self._squares[rows] = self._kept * self._squares[rows] + prior * self._tuning.noise**2 + missed**2

    def _chosen(self, row: Ints) -> tuple[Floats, Floats]:
        """(B, 3) context in which the rows (B,) were last chosen, and its sum (B,); zeros where they never were."""
        context = self._chosen_in[np.arange(len(row)), row] * (row != NO_ROW)[:, None]
        return context, context.sum(axis=1)

    def context(self, state: SystemState) -> Floats:
        """(B, C, 3) predicted seconds of crossing, tail, and waiting with the round trip."""
        costs = self._costs
        crossing = costs.uplink_bytes_at(state.reference_age) * 8.0 / self._bps(state)[:, None]
        tail = costs.mec_s * state.mec_slowdown[:, None]
        wait = np.broadcast_to((state.mec_queue_mean_s + state.rtt_s)[:, None], tail.shape)
        return np.stack((crossing, tail, wait), axis=2)

    def _bps(self, state: SystemState) -> Floats:
        """(B,) bandwidth estimate, above 0."""
        return np.maximum(self._rate.of(state), FLOOR_BPS)

    def _value(self, state: SystemState, context: Floats) -> Floats:
        """(B, C) greedy value: its mean over in time and not in time, as likely as learned delays and noise make
        them."""
        expected = self.expectation(state, context)
        chance = self._chance(state, expected)
        value = (1.0 - chance) * self._value_if(state, expected, False)
        value += chance * self._value_if(state, expected, True)
        return value

    def _value_if(self, state: SystemState, expected: Expectation, in_time: bool) -> Floats:
        known = replace(expected, fits=np.full(expected.fits.shape, in_time))
        return candidate_value(self._costs, state, self._utility, known, self._penalty)

    def _chance(self, state: SystemState, expected: Expectation) -> Floats:
        """(B, C) probability of being in time, if times are log-normal: the delay of an offload, the head of a
        device-only row."""
        budget = due_s(self._costs, state, expected.rescued) - state.frame_age_s[:, None]
        budget *= 1.0 - self._rate.headroom_frac
        delay = expected.total_s - state.frame_age_s[:, None] - expected.head_s
        is_local = self._costs.space.device_only
        takes = np.where(is_local, expected.head_s, np.maximum(delay, _LEAST_S))
        left = np.where(is_local, budget, budget - expected.head_s)
        noise = np.where(is_local, _DEVICE_NOISE, np.sqrt(self._squares / self._replies)[:, None])
        deviations = np.log(np.maximum(left, _LEAST_S) / takes) / noise
        return np.asarray(1.0 / (1.0 + np.exp(-(_LOGISTIC * deviations).clip(-_LARGE, _LARGE))))

    def expectation(self, state: SystemState, context: Floats) -> Expectation:
        """What each candidate would achieve at its optimistic delay; ``context`` is that of the state."""
        costs, sent, age = self._costs, ~self._costs.space.device_only, state.frame_age_s[:, None]
        head = costs.head_s * state.device_slowdown[:, None]
        crossing, delay, backlog_s = self._delays(state, context)
        blocked = np.maximum(backlog_s[:, None] - head, 0.0)
        total = age + head + (blocked + delay) * sent
        rescued = is_rescued(costs, state, head)
        fits = total <= due_s(costs, state, rescued)
        return Expectation(head, (blocked + crossing) * sent, crossing * sent, total, fits, rescued)

    def _delays(self, state: SystemState, context: Floats) -> tuple[Floats, Floats, Floats]:
        """Learned seconds that a payload crosses (B, C), optimistic ones until the reply (B, C), and learned ones until
        the backlog has crossed (B,)."""
        inverse = np.linalg.inv(self._matrix)
        weights = _weights(inverse, self._vector)
        crossing = context[:, :, 0] * (weights[:, :1] / self._margin)
        delay = crossing + (context[:, :, 1:] * weights[:, None, 1:]).sum(axis=2)
        delay = np.maximum(delay - self._optimism(state, context, inverse), _RATIO[0] * delay)
        late = self._late(state, weights)
        backlog_s = state.uplink_backlog_bytes * 8.0 / self._bps(state) * weights[:, 0] / self._margin
        return crossing, delay * late[:, None], backlog_s * late

    def _optimism(self, state: SystemState, context: Floats, inverse: Floats) -> Floats:
        """(B, C) seconds by which a delay may be shorter than learned; ``inverse`` (B, 3, 3) of A."""
        is_key = state.on_time_frac < _KEY_BELOW
        weight = self._tuning.alpha * np.sqrt(1.0 - np.where(is_key, _KEY_WEIGHT, _USUAL_WEIGHT))
        variance = (context @ inverse * context).sum(axis=2)  # a context is its sum times u
        return np.asarray(weight[:, None] * np.sqrt(variance))

    def _late(self, state: SystemState, weights: Floats) -> Floats:
        """(B,) factor, at least 1, by which the oldest request without a reply takes longer than was learned."""
        learned_s = (self._chosen(state.waiting_row)[0] * weights).sum(axis=1)
        return np.where(learned_s > 0, np.maximum(state.waiting_s / np.maximum(learned_s, 1e-9), 1.0), 1.0)


def _weights(inverse: Floats, vector: Floats) -> Floats:
    """(n, 3) learned factors on the terms of a context, from the inverse (n, 3, 3) of A and b (n, 3)."""
    return np.asarray((inverse @ vector[:, :, None])[:, :, 0].clip(*_RATIO))
