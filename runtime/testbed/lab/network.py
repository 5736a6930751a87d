"""A lab: devices and a MEC in namespaces of their own, and an uplink between them that replays a trace.

    device 0 --cable--+
    device 1 --cable--+- modem ==uplink==> air ==> MEC          (<== is only late)

Devices share the modem's uplink, as the cameras of one site do. The modem's queue is shaped by the kernel or packet by
packet (``runtime.testbed.lab.air``); what comes back is late by half the round trip. All that runs in the namespaces
uses the kernel's TCP: slow start, acknowledgements, retransmissions.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from controller.errors import FailureError, UsageError
from controller.predict.uplink import TraceBank
from controller.scenario import Scenario
from runtime.testbed.lab.air import Replay
from runtime.testbed.lab.names import (
    DOWNLINK,
    FAR_ADDRESS,
    MOST_DEVICES,
    NEAR_ADDRESS,
    UPLINK,
    device_address,
    gateway_address,
)
from runtime.testbed.lab.namespaces import check_possible, inside, namespace, remove_stale, run, set_kernel
from runtime.testbed.lab.tun import open_tun

ShaperKind = Literal["packets", "kernel"]
SHAPERS: tuple[ShaperKind, ...] = ("packets", "kernel")
MTU = 1500
#: What Linux uses unless it is told otherwise. That of this machine may be another one, and does matter.
CONGESTION = "cubic"


@dataclass(frozen=True)
class Lab:
    """A running lab. ``mec`` and ``devices`` are names of namespaces, to be entered with ``inside``."""

    mec: str
    devices: tuple[str, ...]
    air: subprocess.Popen[bytes]

    @property
    def bind(self) -> str:
        """Where a MEC in its namespace listens."""
        return f"tcp://{FAR_ADDRESS}:*"

    def replay(self, bank: TraceBank, scenario: Scenario) -> None:
        """The uplink becomes that of a scenario, from its ``trace_start_s`` on; FailureError if the lab has broken."""
        trace = bank.traces[scenario.trace_index]
        share = scenario.uplink_share_frac
        self._tell(
            Replay(
                trace.t_s.tolist(),
                (trace.uplink_bps * share).tolist(),
                trace.last_step_s,
                scenario.trace_start_s,
                scenario.rtt_s,
            )
        )

    def begin(self, origin_s: float) -> None:
        """Put the start of what is replayed at this time of ``time.perf_counter``."""
        self._tell({"origin_s": origin_s})

    def _tell(self, command: object) -> None:
        assert self.air.stdin is not None
        try:
            self.air.stdin.write(msgspec.json.encode(command) + b"\n")
            self.air.stdin.flush()
        except BrokenPipeError:
            raise FailureError(
                "the lab's uplink has ended; expected it to carry packets until the lab is closed"
            ) from None


@contextlib.contextmanager
def open_lab(
    devices: int = 1, shaper: ShaperKind = "packets", mtu: int = MTU, congestion: str = CONGESTION
) -> Iterator[Lab]:
    """A lab during a block. UsageError where none can be made; what an earlier lab left behind is removed first.

    ``congestion``: the congestion control of the TCP in all namespaces.
    """
    check_possible()
    if not 1 <= devices <= MOST_DEVICES:
        raise UsageError(f"got {devices} devices; expected 1 to {MOST_DEVICES}")
    remove_stale()
    with contextlib.ExitStack() as stack:
        modem, mec = stack.enter_context(namespace("modem")), stack.enter_context(namespace("mec"))
        set_kernel(modem, "ipv4/ip_forward", "1")
        ends = []
        for where, interface, ours, theirs in (
            (modem, UPLINK, NEAR_ADDRESS, FAR_ADDRESS),
            (mec, DOWNLINK, FAR_ADDRESS, NEAR_ADDRESS),
        ):
            with inside(where):
                ends.append(open_tun(interface))
            stack.callback(os.close, ends[-1])
            run("ip", "-n", where, "addr", "add", ours, "peer", theirs, "dev", interface)
            run("ip", "-n", where, "link", "set", interface, "mtu", str(mtu), "up")
        _route(mec, NEAR_ADDRESS, congestion)
        names = tuple(stack.enter_context(_device(number, modem, mtu, congestion)) for number in range(devices))
        with inside(modem):
            air = stack.enter_context(_air(ends, shaper, mtu))
        yield Lab(mec, names, air)


@contextlib.contextmanager
def _device(number: int, modem: str, mtu: int, congestion: str) -> Iterator[str]:
    """The namespace of a device, with a cable to the modem."""
    with namespace(f"device{number}") as name:
        ours, theirs = device_address(number), gateway_address(number)
        cable = f"device{number}"
        run("ip", "-n", name, "link", "add", "eth0", "mtu", str(mtu), "type", "veth", "peer", cable, "netns", modem)
        run("ip", "-n", modem, "link", "set", cable, "mtu", str(mtu))
        # One packet at a time: the headers of a packet of 64 kB would be counted once.
        run("ip", "-n", name, "link", "set", "eth0", "gso_max_segs", "1")
        for where, interface, address in ((name, "eth0", ours), (modem, cable, theirs)):
            run("ip", "-n", where, "addr", "add", f"{address}/24", "dev", interface)
            run("ip", "-n", where, "link", "set", interface, "up")
        _route(name, theirs, congestion)
        yield name


def _route(name: str, gateway: str, congestion: str) -> None:
    """All that leaves a namespace goes to a gateway. The route names the congestion control, because a namespace cannot
    make every one that the kernel has its default."""
    run("ip", "-n", name, "route", "add", "default", "via", gateway, "congctl", congestion)


@contextlib.contextmanager
def _air(ends: list[int], shaper: ShaperKind, mtu: int) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-m", "runtime.testbed.lab.air", *map(str, ends), str(mtu), shaper]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=ends)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise FailureError(f"the lab's uplink did not start: exit code {process.wait()}")
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
