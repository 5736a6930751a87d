"""How long a payload takes to cross the uplink: a distribution, predicted from the last samples.

Fugu (Yan et al., NSDI 2020) showed that a predictor should take the size of a transfer, predict its time instead of a
bandwidth, and say how uncertain it is. This one is a small network that predicts quantiles of the time. All times and
rates are relative to the mean rate of the last samples, so it serves a device that gets a share of a link. It is
trained by quantile regression (Koenker and Bassett, 1978) in ``agents.compare.transfers``.

``log(time / usual time) = W2 relu(W1 [history, payload] + b1) + b2``, sorted, where the usual time is that of the
payload at the mean rate.

Shapes: B states, C candidates, H hidden units, Q quantiles.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.predict.uplink import FLOOR_BPS
from controller.records import UPLINK_HISTORY, Float32s, Floats, SystemState

#: The quantiles that are predicted.
LEVELS: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
#: Inputs of the history (rate, time and age of each sample) and of the payload (usual time, time until it is sent).
HISTORY_INPUTS, PAYLOAD_INPUTS = 3 * UPLINK_HISTORY, 2
#: Times below this differ as little as 0 does; keeps logarithms finite.
_SMALL_S = 0.01
#: Most that is predicted, either way: a factor of a thousand. States far from those of the training must not overflow.
_MOST_LOG_RATIO = 7.0
#: Spread of log time without training, and the quantiles of the standard normal distribution at LEVELS.
_DEFAULT_SPREAD = 0.3
_NORMAL = np.array([-1.645, -1.282, -0.842, -0.524, -0.253, 0.0, 0.253, 0.524, 0.842, 1.282, 1.645])


@dataclass(frozen=True)
class TransferPredictor:
    """Weights of the network, float32."""

    from_history: Float32s  # (HISTORY_INPUTS, H)
    from_payload: Float32s  # (PAYLOAD_INPUTS, H)
    bias: Float32s  # (H,)
    out: Float32s  # (H, Q)
    out_bias: Float32s  # (Q,)

    def quantiles(
        self, state: SystemState, payload_bytes: Floats, delay_s: Floats, which: slice = slice(None)
    ) -> Float32s:
        """(B, C, Q) seconds at ``LEVELS[which]`` that payloads (B, C) take when they begin to cross ``delay_s`` (B, C)
        from now."""
        history, mean_bps = history_inputs(state)
        usual_s = payload_bytes * 8.0 / mean_bps[:, None]
        ratio = np.exp(self.log_ratio(history, payload_inputs(usual_s, delay_s), which))
        ratio *= usual_s[:, :, None]
        return ratio

    def log_ratio(self, history: Float32s, payload: Float32s, which: slice = slice(None)) -> Float32s:
        """(B, C, Q) log of time over usual time, ascending, from inputs (B, HISTORY_INPUTS) and (B, C,
        PAYLOAD_INPUTS)."""
        hidden = payload.reshape(-1, PAYLOAD_INPUTS).dot(self.from_payload).reshape(*payload.shape[:2], -1)
        hidden += (history.dot(self.from_history) + self.bias)[:, None]
        np.maximum(hidden, 0.0, out=hidden)
        found = hidden.reshape(-1, hidden.shape[2]).dot(self.out[:, which]) + self.out_bias[which]
        np.clip(found, -_MOST_LOG_RATIO, _MOST_LOG_RATIO, out=found)
        found.sort(axis=1)
        return np.asarray(found.reshape(*payload.shape[:2], -1))

    @classmethod
    def from_tuning(cls, tuning: Mapping[str, Any]) -> TransferPredictor:
        """Inverse of ``as_tuning``; UsageError for anything else."""
        try:
            hidden = int(tuning["hidden"])
            flat = np.frombuffer(base64.b64decode(tuning["weights"], validate=True), "<f4")
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"transfer predictor: got {error}; expected hidden and weights") from None
        ends = np.cumsum([math.prod(shape) for shape in _shapes(hidden)])
        if hidden < 1 or len(flat) != ends[-1] or not np.isfinite(flat).all():
            raise UsageError(f"transfer predictor: got {len(flat)} weights; expected {ends[-1]} finite ones")
        parts = np.split(flat, ends[:-1])
        return cls(*[part.reshape(shape) for part, shape in zip(parts, _shapes(hidden), strict=True)])

    def as_tuning(self) -> dict[str, Any]:
        """As plain values, for a JSON file: the weights as float32, little-endian, in Base64."""
        flat = np.concatenate([getattr(self, name).ravel() for name in self.__dataclass_fields__])
        return {"hidden": len(self.bias), "weights": base64.b64encode(flat.astype("<f4").tobytes()).decode()}


def _shapes(hidden: int) -> tuple[tuple[int, ...], ...]:
    """Of the weights, in the order of their fields."""
    return (HISTORY_INPUTS, hidden), (PAYLOAD_INPUTS, hidden), (hidden,), (hidden, len(LEVELS)), (len(LEVELS),)


def default_predictor() -> TransferPredictor:
    """Without training: the usual time, with a normal spread of its logarithm."""
    weights = [np.zeros(shape, np.float32) for shape in _shapes(1)]
    weights[-1] += _DEFAULT_SPREAD * _NORMAL
    return TransferPredictor(*weights)


def history_inputs(state: SystemState) -> tuple[Float32s, Floats]:
    """(B, HISTORY_INPUTS) what the network sees of the samples, and (B,) their geometric mean in bit/s."""
    log_bps = np.log(np.maximum(state.uplink_bps, FLOOR_BPS))
    log_mean = log_bps.mean(axis=1)
    took_s = state.uplink_sample_bytes * 8.0 / np.maximum(state.uplink_bps, FLOOR_BPS)
    inputs = (log_bps - log_mean[:, None], _log_s(took_s), _log_s(state.uplink_sample_age_s))
    return np.concatenate(inputs, axis=1).astype(np.float32), np.exp(log_mean)


def payload_inputs(usual_s: Floats, delay_s: Floats) -> Float32s:
    """(B, C, PAYLOAD_INPUTS) what the network sees of the payloads."""
    return np.stack([_log_s(usual_s), _log_s(delay_s)], axis=2).astype(np.float32)


def _log_s(time_s: Floats) -> Floats:
    """Logarithm of times, 0 at a tenth of a second or so."""
    return np.asarray(np.log(time_s + _SMALL_S) + 2.0)
