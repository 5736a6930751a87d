"""Functions that cause faults of a MEC, or of the link to it, in real processes."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from benchmarks.support.hostile import Hostile, leaving, polite
from benchmarks.support.mec_slowdown import MEC_SLOWDOWN
from benchmarks.support.relay import Change, Relay
from runtime.bundles.bundle import open_bundle
from runtime.link.endpoint import parse_endpoint
from runtime.protocol import wire
from runtime.testbed.processes import RunningMec, running_mec
from runtime.testbed.proxy import Mode, Proxy

#: Duration of a temporary fault.
BREAK_S = 6.0
#: The shipped profile, so that results are comparable between machines.
SHIPPED = ("--profile", "shipped")
#: Seconds before the deadline at which late replies arrive.
JUST_BEFORE_S = (0.010, 0.050)
#: A slow MEC runs for the first time of each second time, in seconds.
SLOW_RUNS_S, SLOW_OF_S = 0.02, 0.2
#: Uplink of each device in the run with a narrow link, in bit/s, and the share that is left.
UPLINK_BPS, NARROW_FRAC = 4e6, 0.01
#: Of a delayed link, in each direction.
DELAY_S = 0.15
#: A MEC that restarts does so this many times, and serves for this long in between.
RESTARTS, SERVES_S = 2, 2.0


@dataclass(frozen=True)
class Scene:
    """What a fault can act on. ``stack`` ends everything that it starts."""

    workload: str
    deadline_s: float
    mec: RunningMec
    proxy: Proxy
    stack: contextlib.ExitStack

    def start_again(self) -> RunningMec:
        """Another MEC at the endpoint of the first, which must have ended."""
        again = running_mec(self.workload, slowdown=MEC_SLOWDOWN, bind=self.mec.endpoint, options=SHIPPED)
        return self.stack.enter_context(again)


def killed(scene: Scene) -> None:
    """``kill -9`` of the MEC."""
    scene.mec.process.kill()


def stopped(scene: Scene) -> None:
    """SIGSTOP: connections stay open, but the MEC does not answer."""
    scene.mec.process.send_signal(signal.SIGSTOP)


def restarted(scene: Scene) -> None:
    """The MEC is killed; another one starts on the same port after a while."""
    killed(scene)
    scene.mec.process.wait()
    time.sleep(BREAK_S)
    scene.start_again()


def restarting(scene: Scene) -> None:
    """The MEC is killed and started again at once, and again when it has served for a moment."""
    mec = scene.mec
    for number in range(RESTARTS):
        if number:
            time.sleep(SERVES_S)
        mec.process.kill()
        mec.process.wait()
        mec = scene.start_again()


def slow(scene: Scene) -> None:
    """The MEC gets a tenth of the processor: it is stopped and continued in turn."""
    ended = threading.Event()

    def throttle() -> None:
        while not ended.is_set():
            scene.mec.process.send_signal(signal.SIGSTOP)
            ended.wait(SLOW_OF_S - SLOW_RUNS_S)
            scene.mec.process.send_signal(signal.SIGCONT)
            ended.wait(SLOW_RUNS_S)

    thread = threading.Thread(target=throttle, daemon=True)
    thread.start()
    scene.stack.callback(thread.join)
    scene.stack.callback(ended.set)  # called first


def cut(scene: Scene) -> None:
    """Connections are reset and refused for a while."""
    scene.proxy.set(Mode.CUT)
    time.sleep(BREAK_S)
    scene.proxy.set(Mode.PASS)


def held(scene: Scene) -> None:
    """All bytes are lost for a while, without a reset."""
    scene.proxy.set(Mode.SWALLOW)
    time.sleep(BREAK_S)
    scene.proxy.set(Mode.PASS)


def narrow(scene: Scene) -> None:
    """One hundredth of the uplink is left for a while."""
    scene.proxy.pace(UPLINK_BPS * NARROW_FRAC)
    time.sleep(BREAK_S)
    scene.proxy.pace(UPLINK_BPS)


def delayed(scene: Scene) -> None:
    """Every byte takes longer than the deadline allows, up and down, for a while."""
    scene.proxy.pace(delay_s=DELAY_S)
    time.sleep(BREAK_S)
    scene.proxy.pace()


def half_open(scene: Scene) -> None:
    """A router forgets its connections: old ones stay silent for ever, new ones work."""
    scene.proxy.forget()


def absent(scene: Scene) -> None:
    """No MEC can be reached from the start."""


def corrupt(scene: Scene) -> None:
    """The MEC's outputs are NaN."""
    _relayed(scene, lambda outputs, _: (np.full(len(outputs) // 4, np.nan, np.float32).tobytes(), 0.0))


def wrong_shape(scene: Scene) -> None:
    """The MEC's outputs are too short."""
    _relayed(scene, lambda outputs, _: (outputs[:-4], 0.0))


def wrong_id(scene: Scene) -> None:
    """The MEC's replies name the request before, and one that was never sent, in turn."""

    def renamed(reply: wire.InferReply, outputs: bytes) -> list[tuple[wire.InferReply, bytes]]:
        step = 1000 if reply.request_id % 2 else -1
        return [(msgspec.structs.replace(reply, request_id=max(reply.request_id + step, 1)), outputs)]

    _replaced(scene, Relay(scene.mec.endpoint, scene.deadline_s, tell=renamed))


def twice(scene: Scene) -> None:
    """The MEC sends every reply twice."""
    _replaced(scene, Relay(scene.mec.endpoint, scene.deadline_s, tell=lambda reply, outputs: [(reply, outputs)] * 2))


def late(scene: Scene) -> None:
    """Every reply comes just before the deadline."""
    rng = random.Random(0)
    _relayed(scene, lambda outputs, left_s: (outputs, max(left_s - rng.uniform(*JUST_BEFORE_S), 0.0)))


def flooding(scene: Scene) -> None:
    """The MEC sends garbage as fast as it can."""
    _replaced(scene, Hostile(polite(open_bundle(scene.workload).held), flood=[b"garbage"]))


def leaves(scene: Scene) -> None:
    """The MEC welcomes the device and leaves at once, again and again."""
    _replaced(scene, Hostile(leaving(open_bundle(scene.workload).held)))


def _relayed(scene: Scene, change: Change) -> None:
    _replaced(scene, Relay(scene.mec.endpoint, scene.deadline_s, change))


def _replaced(scene: Scene, other: Hostile | Relay) -> None:
    """Redirect the proxy to another MEC."""
    where = parse_endpoint(scene.stack.enter_context(other).endpoint)
    scene.proxy.target = where.host, where.port
    scene.proxy.set(Mode.CUT)
    scene.proxy.set(Mode.PASS)


FAULTS: dict[str, Callable[[Scene], None]] = {
    "killed": killed,
    "stopped": stopped,
    "restarted": restarted,
    "cut": cut,
    "held": held,
    "half-open": half_open,
    "absent": absent,
    "corrupt": corrupt,
    "flooding": flooding,
    "leaves": leaves,
    "late": late,
    "slow": slow,
    "wrong-shape": wrong_shape,
    "wrong-id": wrong_id,
    "twice": twice,
    "restarting": restarting,
    "narrow": narrow,
    "delayed": delayed,
    "failover-killed": killed,
    "failover-stopped": stopped,
    "failover-returns": restarted,
    "failover-lying": corrupt,
}
#: Temporary faults. Their functions return when the MEC can be used again.
ENDS = ("restarted", "cut", "held", "half-open", "restarting", "narrow", "delayed")
#: Faults of the first of two MECs. The other one has no fault.
OF_TWO = tuple(name for name in FAULTS if name.startswith("failover-"))
#: What holds from the start of a run.
FROM_THE_START: dict[str, Callable[[Proxy], None]] = {
    "absent": lambda proxy: proxy.set(Mode.CUT),
    "narrow": lambda proxy: proxy.pace(UPLINK_BPS),
    "delayed": lambda proxy: proxy.pace(),
}
