"""Rules of the timeline that the device and its twin share: smoothing, probes, silence, fallback.

Constants with the formulas that use them, on plain numbers. The device calls them, and the compiled twin does
(``envs.twin.compiled``), so both observe alike.
"""

from __future__ import annotations

import math
from typing import TypeVar

from controller.records import Floats

#: A number; (B,) of them where features are computed for a batch.
Seconds = TypeVar("Seconds", float, Floats)

#: Smoothing of measured / profiled device and MEC time: three samples halve the weight of an old value.
SLOWDOWN_ALPHA = 0.2
#: Smoothing of the on-time and fallback fractions: about the last ten frames.
OUTCOME_ALPHA = 0.1
#: Shortest transfer time that is believed: a socket and a scheduler cannot time a transfer more finely.
MIN_TRANSFER_S = 1e-4

#: While the link is up the device pings the MEC this often.
HEARTBEAT_S = 0.25
#: The link counts as down when what was sent is followed by this much silence.
SILENCE_S = 3 * HEARTBEAT_S

#: A fallback reserves its predicted device time times this factor, and this slack besides.
FALLBACK_MARGIN = 1.15
FALLBACK_SLACK_S = 0.002
#: A request is given up this many deadlines after capture.
GIVE_UP_DEADLINES = 2.0
#: While this many payloads on the uplink are unanswered, offloads are answered locally as if the link were down: a
#: payload that was handed to a link cannot be taken back, and more of them would only take longer.
MAX_UNANSWERED = 8

#: Size of the first probe of an uplink; small enough for a slow one: a second at 8 kbit/s.
PROBE_BYTES = 1024
_MOST_PROBE_BYTES = 4 * PROBE_BYTES
#: The newest uplink sample is no longer believed after this time without an offload. The uplink is then probed for
#: _PROBE_S at the last bandwidth: a 400th of the time of a link that carries 1.6 Mbit/s or more, which many devices
#: may share, and 2 kB/s at most.
SAMPLE_AGE_S = 2.0
_PROBE_S = 0.005
#: Only replies report the MEC's queue and slowdown. After SAMPLE_AGE_S without a reply, the last report counts half
#: as much with each such time: a queue of one deadline is tried again within some seconds.
_HALVES_S = 1.0


def smooth(old: float, sample: float, alpha: float) -> float:
    """Exponentially weighted mean."""
    return old + alpha * (sample - old)


def uplink_sample_bps(payload_bytes: float, crossing_s: float) -> float:
    """Bandwidth in bit/s from one reply: the payload's bits over the time in which they crossed.

    That time begins when the payload began to cross (its own hand-over to the link, or the end of the payload before
    it, whichever is later) and ends with its reply, less what the MEC and the bare round trip took.
    """
    return payload_bytes * 8.0 / max(crossing_s, MIN_TRANSFER_S)


def believed_frac(reply_age_s: float) -> float:
    """Weight, 0 to 1, of the last replies' report about the MEC when they are this old.

    Without fading, a device that computes locally because the MEC was busy for a moment would stay local.
    """
    return float(0.5 ** (max(reply_age_s - SAMPLE_AGE_S, 0.0) / _HALVES_S))


def slowdown_now(measured: float, announced: float, believed: float) -> float:
    """Slowdown of the MEC between the measured (``believed`` 1) and the announced one (0), on a log scale."""
    return float(announced * (measured / announced) ** believed)


def probe_bytes(uplink_bps: float) -> int:
    """Size of the probe of an uplink whose last bandwidth is given in bit/s."""
    return min(max(math.floor(uplink_bps * (_PROBE_S / 8.0)), PROBE_BYTES), _MOST_PROBE_BYTES)


def fallback_reserve_s(fastest_local_s: Seconds) -> Seconds:
    """How long before the deadline a fallback must start, given the predicted time of the fastest local answer."""
    return FALLBACK_MARGIN * fastest_local_s + FALLBACK_SLACK_S
