"""The kernel's token bucket filter on the uplink: its rate follows a trace, through one ``tc`` that stays open.

Theory of operation. A bucket of ``burst`` bytes fills at the rate, and a packet leaves when it holds as many. So after
a pause the first packets leave at once: as many as the bucket holds. The bucket must hold one packet, because a larger
packet would never leave; it should hold no more, because what it holds does not feel the rate. A payload that fits into
one packet therefore crosses in no time after a pause: only smaller packets (``mtu``) help.

Two more differences from a link. When the rate changes the kernel fills the bucket. And it does not look again at a
packet that waits: one that began to wait during an outage would wait as long as if that went on. So after the rate has
grown, a packet of 28 bytes is sent into the queue, at which the kernel looks; the far end drops it.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess

import numpy as np

from controller.predict.uplink import FLOOR_BPS, TraceBank
from runtime.testbed.lab.namespaces import run

#: What the queue holds. A radio link has a deep one too: a device's modem buffers hundreds of kilobytes.
QUEUE_BYTES = 512 << 10
#: Beyond the size of a packet, because the kernel counts in ticks of time, and rounds.
_SPARE_BYTES = 16
_NOBODY_PORT = 9
_UNSHAPED_BPS = 1e9


def burst_bytes(mtu: int) -> int:
    """The smallest bucket from which every packet of an interface can leave."""
    return mtu + _SPARE_BYTES


class TokenBucket:
    """Owns the qdisc of an interface in the namespace of this thread, and the ``tc`` that changes it."""

    def __init__(self, interface: str, mtu: int, far_address: str) -> None:
        self._interface, self._mtu, self._far = interface, mtu, far_address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rate_bps = _UNSHAPED_BPS
        run("tc", "qdisc", "add", *self._filter())  # before the first packet: one that waits elsewhere would be lost
        self._tc = subprocess.Popen(("tc", "-batch", "-"), stdin=subprocess.PIPE, text=True, bufsize=1)

    def set_rate(self, rate_bps: float) -> None:
        """Change the rate; at least ``FLOOR_BPS``, because the kernel knows no rate of 0."""
        rate_bps = max(rate_bps, FLOOR_BPS)
        if rate_bps == self._rate_bps:
            return
        grows, self._rate_bps = rate_bps > self._rate_bps, rate_bps
        assert self._tc.stdin is not None
        self._tc.stdin.write(f"qdisc change {' '.join(self._filter())}\n")
        if grows:
            with contextlib.suppress(OSError):  # the queue is full, so there is one to look at the waiting packet
                self._socket.sendto(b"", socket.MSG_DONTWAIT, (self._far, _NOBODY_PORT))

    def _filter(self) -> tuple[str, ...]:
        rate, burst = f"{self._rate_bps:.0f}bit", str(burst_bytes(self._mtu))
        return ("dev", self._interface, "root", "tbf", "rate", rate, "burst", burst, "limit", str(QUEUE_BYTES))

    def close(self) -> None:
        self._socket.close()
        assert self._tc.stdin is not None
        self._tc.stdin.close()
        self._tc.wait()


class Steps:
    """The steps of one trace of a bank: its rate now, and when it changes next. Times are those of the trace."""

    def __init__(self, bank: TraceBank, index: int = 0) -> None:
        trace = bank.traces[index]
        self._rates = trace.uplink_bps
        self._edges = np.append(trace.t_s, trace.duration_s)  # (n + 1,)

    def at(self, t_s: float) -> tuple[float, float]:
        """The rate in bit/s at a time, and the seconds until the next step; the trace starts over at its end."""
        here_s = t_s % self._edges[-1]
        step = min(int(np.searchsorted(self._edges, here_s, side="right")) - 1, len(self._rates) - 1)
        return float(self._rates[step]), float(self._edges[step + 1] - here_s)
