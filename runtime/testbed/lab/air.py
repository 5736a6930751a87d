"""The process between modem and MEC: every packet crosses it, late by half the round trip.

``python -m runtime.testbed.lab.air MODEM_FD MEC_FD MTU SHAPER``, with the descriptors of two TUN devices. What leaves
the modem is the uplink, shaped in one of two ways:

- ``packets``: this process holds the queue. A packet has crossed when, by the integral of the trace, its last bit has
  been sent, behind all earlier packets: what a radio link does, which hands over a packet when it is complete.
- ``kernel``: the kernel's token bucket (``tbf``) holds the queue, and packets come here when they have left it.

Lines of JSON on stdin say what is replayed: a ``Replay`` begins with the next packet, and ``{"origin_s": T}`` puts its
beginning at a time of the clock that all processes share. The end of stdin ends the process.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import socket
import sys
import time

import msgspec
import numpy as np

from controller.predict.uplink import Trace, TraceBank
from runtime.link.shaped_link import Shaper
from runtime.testbed.lab.names import FAR_ADDRESS, UPLINK
from runtime.testbed.lab.tbf import QUEUE_BYTES, Steps, TokenBucket
from runtime.testbed.lab.tun import packets_of

_IDLE_S = 1.0
_PROTOCOL = 9  # offset in an IPv4 header


class Replay(msgspec.Struct, frozen=True):
    """One episode on the uplink."""

    t_s: list[float]
    uplink_bps: list[float]  # with the share of the devices taken already
    last_step_s: float
    start_s: float  # in the trace
    rtt_s: float

    def shaper(self, now_s: float) -> Shaper:
        """The trace from ``start_s`` on, which is now."""
        trace = Trace("replayed", np.array(self.t_s), np.array(self.uplink_bps), self.last_step_s)
        return Shaper(TraceBank([trace]), trace_start_s=self.start_s, origin_s=now_s)


class Air:
    """Owns the packets on their way: ``_due`` is a heap of (time, order, to the MEC, packet)."""

    def __init__(self, modem: int, mec: int, bucket: TokenBucket | None) -> None:
        self._modem, self._mec, self._bucket = modem, mec, bucket
        self._due: list[tuple[float, int, bool, bytes]] = []
        self._order = itertools.count()
        self._queued_bytes = 0  # on their way up
        self._shaper: Shaper | None = None
        self._steps: Steps | None = None
        self._half_rtt_s = 0.0
        self._waiting = False  # for the first packet of what is replayed

    def replay(self, replay: Replay) -> None:
        self._shaper = replay.shaper(time.perf_counter())
        self._steps, self._half_rtt_s = Steps(self._shaper.bank), replay.rtt_s / 2
        self._waiting = True

    def begin(self, origin_s: float) -> None:
        """The trace is at its start at this time."""
        if self._shaper is not None:
            self._shaper.origin_s, self._waiting = origin_s, False

    def turn(self, commands: int) -> bool:
        """Wait for the next packet, step or command, and handle packets; whether there is a command to read."""
        until_s = min(self._follow_trace(), _IDLE_S)
        if self._due:
            until_s = min(until_s, self._due[0][0] - time.perf_counter())
        ready, _, _ = select.select((self._modem, self._mec, commands), (), (), max(until_s, 0.0))
        if self._modem in ready:
            for packet in packets_of(self._modem):
                self._up(packet)
        if self._mec in ready:
            for packet in packets_of(self._mec):
                self._push(time.perf_counter() + self._half_rtt_s, False, packet)
        self._deliver()
        return commands in ready

    def _follow_trace(self) -> float:
        """Set the rate of the token bucket; returns the seconds to the next step."""
        if self._bucket is None or self._shaper is None or self._steps is None:
            return _IDLE_S
        shift_s = self._shaper.trace_start_s - self._shaper.origin_s
        rate_bps, left_s = self._steps.at(max(time.perf_counter() + shift_s, 0.0))
        self._bucket.set_rate(rate_bps)
        return left_s

    def _up(self, packet: bytes) -> None:
        now_s = time.perf_counter()
        if packet[_PROTOCOL] != socket.IPPROTO_TCP:
            return  # it woke the bucket
        if self._waiting:
            self.begin(now_s)
        if self._bucket is not None:
            self._push(now_s + self._half_rtt_s, True, packet)
        elif self._queued_bytes + len(packet) <= QUEUE_BYTES:
            crossed_s = now_s if self._shaper is None else self._shaper.cross(len(packet), now_s).finish_s
            self._push(crossed_s + self._half_rtt_s, True, packet)

    def _push(self, due_s: float, up: bool, packet: bytes) -> None:
        self._queued_bytes += len(packet) if up else 0
        heapq.heappush(self._due, (due_s, next(self._order), up, packet))

    def _deliver(self) -> None:
        now_s = time.perf_counter()
        while self._due and self._due[0][0] <= now_s:
            _, _, up, packet = heapq.heappop(self._due)
            self._queued_bytes -= len(packet) if up else 0
            with contextlib.suppress(OSError):  # the interface is down or full: a lost packet
                os.write(self._mec if up else self._modem, packet)


def main() -> int:
    modem, mec, mtu = map(int, sys.argv[1:4])
    with contextlib.suppress(OSError):  # a late packet is an error of the measurement
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    bucket = TokenBucket(UPLINK, mtu, FAR_ADDRESS) if sys.argv[4] == "kernel" else None
    air, rest = Air(modem, mec, bucket), b""
    print("ready", flush=True)
    while True:
        if not air.turn(0):
            continue
        if not (read := os.read(0, 1 << 20)):
            break
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            command = msgspec.json.decode(line)
            if "origin_s" in command:
                air.begin(command["origin_s"])
            else:
                air.replay(msgspec.convert(command, Replay))
    if bucket is not None:
        bucket.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
