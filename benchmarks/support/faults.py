"""Functions that cause faults of a MEC, or of the link to it, in real processes."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.support.hostile import Hostile, leaving, polite
from benchmarks.support.mec_slowdown import MEC_SLOWDOWN
from benchmarks.support.relay import Change, Relay
from runtime.bundles.bundle import open_bundle
from runtime.link.endpoint import parse_endpoint
from runtime.testbed.processes import RunningMec, running_mec
from runtime.testbed.proxy import Mode, Proxy

#: Duration of a temporary fault.
BREAK_S = 6.0
#: The shipped profile, so that results are comparable between machines.
SHIPPED = ("--profile", "shipped")
#: Seconds before the deadline at which late replies arrive.
JUST_BEFORE_S = (0.010, 0.050)


@dataclass(frozen=True)
class Scene:
    """What a fault can act on. ``stack`` ends everything that it starts."""

    workload: str
    deadline_s: float
    mec: RunningMec
    proxy: Proxy
    stack: contextlib.ExitStack


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
    mec = running_mec(scene.workload, slowdown=MEC_SLOWDOWN, bind=scene.mec.endpoint, options=SHIPPED)
    scene.stack.enter_context(mec)


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


def half_open(scene: Scene) -> None:
    """A router forgets its connections: old ones stay silent for ever, new ones work."""
    scene.proxy.forget()


def absent(scene: Scene) -> None:
    """No MEC can be reached from the start."""


def corrupt(scene: Scene) -> None:
    """The MEC's outputs are NaN."""
    _relayed(scene, lambda outputs, _: (np.full(len(outputs) // 4, np.nan, np.float32).tobytes(), 0.0))


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
}
#: Temporary faults. Their functions return when the MEC can be used again.
ENDS = ("restarted", "cut", "held", "half-open")
