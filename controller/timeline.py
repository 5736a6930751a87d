"""Rules of the timeline that the device and its twin share: smoothing, probes, silence, fallback.

Constants with the formulas that use them, on plain numbers. The device calls them, and the compiled twin does
(``envs.twin.compiled``), so both observe alike.
"""

from __future__ import annotations

import math
from typing import TypeVar

from controller.packets import ping_bytes
from controller.records import Floats

#: A number; (B,) of them where features are computed for a batch.
Seconds = TypeVar("Seconds", float, Floats)

#: Smoothing of measured / profiled device and MEC time: three samples halve the weight of an old value.
SLOWDOWN_ALPHA = 0.2
#: Smoothing of the on-time and fallback fractions: about the last ten frames.
OUTCOME_ALPHA = 0.1
#: Shortest transfer time that is believed: a socket and a scheduler cannot time a transfer more finely.
MIN_TRANSFER_S = 1e-4

#: While the link is up and nothing else is sent, the device pings the MEC this often, but pings take at most
#: _HEARTBEAT_FRAC of the uplink: at 16 kbit/s that is one in 1.1 s. It pings at least every RAREST_HEARTBEAT_S.
HEARTBEAT_S = 0.25
_HEARTBEAT_FRAC = 0.05
RAREST_HEARTBEAT_S = 2.0
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

#: Padding of the first probe of an uplink, small enough for a slow one: a quarter of a second at 8 kbit/s, headers
#: included. It only tells how large the next one should be.
PROBE_BYTES = 128
_MOST_PROBE_BYTES = 4096
#: The newest uplink sample is no longer believed after this time without an offload. The uplink is then probed for
#: _PROBE_S at the last bandwidth: a 400th of the time of a link of 400 kbit/s or more, which many devices may share,
#: and 2 kB/s at most. Of a narrower link it takes more: a tenth at 8 kbit/s.
SAMPLE_AGE_S = 2.0
_PROBE_S = 0.005
#: A probe is followed by a larger one when its bandwidth asks for one of more than so many times its size.
_PROBE_GROWTH = 2.0
#: Only replies report the MEC's queue and slowdown. After SAMPLE_AGE_S without a reply, the last report counts half
#: as much with each such time: a queue of one deadline is tried again within some seconds.
_HALVES_S = 1.0


def smooth(old: Seconds, sample: Seconds, alpha: float) -> Seconds:
    """Exponentially weighted mean."""
    return old + alpha * (sample - old)


def uplink_sample_bps(uplink_bytes: float, crossing_s: float) -> float:
    """Bandwidth in bit/s from one reply: the message's bits on the wire over the time in which they crossed.

    That time begins when the message began to cross (its own hand-over to the link, or the end of the message before
    it, whichever is later) and ends with its reply, less what the MEC and the bare round trip took.
    """
    return uplink_bytes * 8.0 / max(crossing_s, MIN_TRANSFER_S)


def believed_frac(reply_age_s: float) -> float:
    """Weight, 0 to 1, of the last replies' report about the MEC when they are this old.

    Without fading, a device that computes locally because the MEC was busy for a moment would stay local.
    """
    return float(0.5 ** (max(reply_age_s - SAMPLE_AGE_S, 0.0) / _HALVES_S))


def slowdown_now(measured: float, announced: float, believed: float) -> float:
    """Slowdown of the MEC between the measured (``believed`` 1) and the announced one (0), on a log scale."""
    return float(announced * (measured / announced) ** believed)


def probe_bytes(uplink_bps: float) -> int:
    """Padding of the probe of an uplink whose last bandwidth is given in bit/s."""
    return min(max(math.floor(uplink_bps * (_PROBE_S / 8.0)), PROBE_BYTES), _MOST_PROBE_BYTES)


def next_probe_bytes(padding_bytes: int, uplink_bps: float) -> int:
    """Padding of the probe that follows one of ``padding_bytes``, given what that one found; 0 if it was enough.

    A small probe of a fast link measures little but the noise of sockets and schedulers.
    """
    wanted = probe_bytes(uplink_bps)
    return wanted if wanted > _PROBE_GROWTH * padding_bytes else 0


def heartbeat_s(uplink_bps: float) -> float:
    """Time between pings on an uplink whose last bandwidth is given in bit/s."""
    return min(max(ping_bytes(0) * 8.0 / (_HEARTBEAT_FRAC * uplink_bps), HEARTBEAT_S), RAREST_HEARTBEAT_S)


def fallback_reserve_s(fastest_local_s: Seconds) -> Seconds:
    """How long before the deadline a fallback must start, given the predicted time of the fastest local answer."""
    return FALLBACK_MARGIN * fastest_local_s + FALLBACK_SLACK_S
