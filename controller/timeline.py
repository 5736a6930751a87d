"""How are measurements turned into the estimates of a SystemState?

Pure formulas shared by the twin (batched) and the device (one row), so that both observe alike.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from controller.records import Floats

#: A number, or (B,) of them.
Seconds = TypeVar("Seconds", float, Floats)

#: Smoothing of measured / profiled device and MEC time: half of an old value is forgotten in three samples.
SLOWDOWN_ALPHA = 0.2
#: Smoothing of the on-time and fallback fractions: about the last ten frames.
OUTCOME_ALPHA = 0.1
#: A transfer cannot be timed more finely than this through a socket and a scheduler.
MIN_TRANSFER_S = 1e-4
#: A fallback keeps this much more than its predicted time, and this much besides.
FALLBACK_MARGIN = 1.15
FALLBACK_SLACK_S = 0.002
#: A request is given up this many deadlines after capture.
GIVE_UP_DEADLINES = 2.0
#: With so many payloads on the uplink unanswered, offloads are answered locally as if the link were down: what
#: is handed to a link cannot be taken back, and would only be delayed by more.
MAX_UNANSWERED = 8
#: The first probe of an uplink; small enough for a slow one: a second at 8 kbit/s.
PROBE_BYTES = 1024
#: What the newest sample told is no longer believed after so long, if nothing was offloaded since. The uplink is then
#: probed for as long as it takes to time it: a 400th of a link that carries 1.6 Mbit/s or more, which many devices may
#: share, and 2 kB/s at most.
SAMPLE_AGE_S = 2.0
_PROBE_S = 0.005
#: Only replies tell of a MEC's queue and pace. After ``SAMPLE_AGE_S`` without one, what the last ones told is believed
#: half as much with each such time: a queue of one deadline is tried again within some seconds.
_HALVES_S = 1.0
_MOST_PROBE_BYTES = 4 * PROBE_BYTES


def smooth(old: Floats, sample: Floats, alpha: float | Floats) -> Floats:
    """Exponentially weighted mean."""
    return old + alpha * (sample - old)


def uplink_sample_bps(
    payload_bytes: Floats | float, elapsed_s: Floats, mec_s: Floats | float, rtt_s: Floats | float
) -> Floats:
    """Bandwidth that one reply reveals: bits over the time that neither the MEC nor the bare round trip took.

    ``elapsed_s`` counts from when the payload began to cross (its own hand-over to the link or the end of the
    payload before it, whichever is later) until its reply.
    """
    transfer = np.maximum(elapsed_s - mec_s - rtt_s, MIN_TRANSFER_S)
    return np.asarray(payload_bytes * 8.0 / transfer)


def believed_frac(reply_age_s: Floats | float) -> Floats:
    """How much of what the last replies told of the MEC is still believed. Else a device that computes locally because
    the MEC was busy for a moment never learns that it is not any more."""
    return np.asarray(0.5 ** (np.maximum(reply_age_s - SAMPLE_AGE_S, 0.0) / _HALVES_S))


def slowdown_now(measured: Floats | float, announced: Floats | float, believed: Floats) -> Floats:
    """The MEC's pace between what was measured and what it said of itself, by factors."""
    return np.asarray(announced * (measured / announced) ** believed)


def probe_bytes(uplink_bps: Floats | float) -> Floats:
    """Size of the probe of an uplink that last carried so much."""
    return np.asarray(np.clip(np.floor(uplink_bps * (_PROBE_S / 8.0)), PROBE_BYTES, _MOST_PROBE_BYTES))


def fallback_reserve_s(fastest_local_s: Seconds) -> Seconds:
    """How long before the deadline a fallback must start, given the predicted time of the fastest local answer."""
    return FALLBACK_MARGIN * fastest_local_s + FALLBACK_SLACK_S
