"""Bandwidth traces, and when a payload that starts at time t has crossed the uplink.

A trace is a piecewise constant bandwidth. Its running integral is the number of bits that can have crossed by time t.
A transfer ends where the integral has grown by its size. The twin and the user-space shaper both call
``TraceBank.finish_s``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.errors import UsageError
from controller.records import Floats, Ints

#: Least bandwidth of a dead link, so that the integral is strictly increasing and every transfer ends.
FLOOR_BPS = 1_000.0


@dataclass(frozen=True)
class Trace:
    """``uplink_bps[i]`` holds from ``t_s[i]`` to ``t_s[i + 1]``; the last value holds for ``last_step_s``."""

    name: str
    t_s: Floats  # (n,) from 0, strictly increasing
    uplink_bps: Floats  # (n,)
    last_step_s: float
    rtt_s: float = 0.0  # round trip of the link itself, in addition to that of the network behind it
    is_shared: bool = True  # the bandwidth of a cell, of which a device has a share; else all of it is the device's

    def __post_init__(self) -> None:
        if self.t_s.ndim != 1 or self.t_s.shape != self.uplink_bps.shape or not len(self.t_s):
            raise UsageError(f"trace {self.name}: expected one time per value, and at least one value")
        if not (np.isfinite(self.t_s).all() and np.isfinite(self.uplink_bps).all()):
            raise UsageError(f"trace {self.name}: a value is not finite; expected numbers")
        if (np.diff(self.t_s) <= 0).any() or self.t_s[0] != 0 or (self.uplink_bps < 0).any():
            raise UsageError(f"trace {self.name}: expected times from 0, strictly increasing, and Mbit/s >= 0")
        if not self.last_step_s > 0:
            raise UsageError(f"trace {self.name}: the last step lasts {self.last_step_s} s; expected more than 0")
        if not 0 <= self.rtt_s < np.inf:
            raise UsageError(f"trace {self.name}: got a round trip of {self.rtt_s} s; expected 0 or more")

    @property
    def duration_s(self) -> float:
        return float(self.t_s[-1] + self.last_step_s)


class TraceBank:
    """Several traces end to end, so that one vectorised look-up serves a batch of different traces.

    A trace starts over when time passes its end.
    """

    def __init__(self, traces: Sequence[Trace]) -> None:
        if not traces:
            raise UsageError("got no trace; expected at least one")
        self.traces = tuple(traces)
        steps = [np.append(np.diff(trace.t_s), trace.last_step_s) for trace in traces]
        bits = [np.maximum(t.uplink_bps, FLOOR_BPS) * step for t, step in zip(traces, steps, strict=True)]
        self._edge_t = np.concatenate([[0.0], np.cumsum(np.concatenate(steps))])
        self._edge_bits = np.concatenate([[0.0], np.cumsum(np.concatenate(bits))])
        ends = np.cumsum([len(step) for step in steps])
        first = np.concatenate([[0], ends[:-1]])
        self._start_t, self._start_bits = self._edge_t[first], self._edge_bits[first]
        self.total_bits = self._edge_bits[ends] - self._start_bits
        self.duration_s = self._edge_t[ends] - self._start_t
        # Tables of _interpolate for both directions: inner edges, starts, values at the starts, slopes.
        t, bits_at = self._edge_t, self._edge_bits
        self.bits_of_time = (t[1:-1], t[:-1], bits_at[:-1], np.diff(bits_at) / np.diff(t))
        self.time_of_bits = (bits_at[1:-1], bits_at[:-1], t[:-1], np.diff(t) / np.diff(bits_at))

    def __len__(self) -> int:
        return len(self.traces)

    def rate_bps(self, trace: Ints, t_s: Floats) -> Floats:
        """(B,) bit/s of the traces with these indices (B,) at the times (B,)."""
        inner, _, _, rate = self.bits_of_time
        return np.asarray(rate[inner.searchsorted(self._start_t[trace] + np.mod(t_s, self.duration_s[trace]), "right")])

    def finish_s(self, trace: Ints, start_s: Floats, bits: Floats) -> Floats:
        """Time at which ``bits`` that start at ``start_s`` have crossed; the shapes broadcast."""
        duration, total = self.duration_s[trace], self.total_bits[trace]
        base_t, base_bits = self._start_t[trace], self._start_bits[trace]
        laps = np.floor(start_s / duration)
        offset = _interpolate(self.bits_of_time, base_t + (start_s - laps * duration))
        target = offset - base_bits + bits
        more = np.floor(target / total)
        end = _interpolate(self.time_of_bits, base_bits + (target - more * total))
        return np.asarray((laps + more) * duration + (end - base_t))


def _interpolate(table: tuple[Floats, Floats, Floats, Floats], value: Floats) -> Floats:
    """Piecewise linear map. It runs for every frame of every environment, so its slopes are computed beforehand."""
    inner, start, base, slope = table
    step = inner.searchsorted(value, side="right")
    return np.asarray(base[step] + (value - start[step]) * slope[step])
