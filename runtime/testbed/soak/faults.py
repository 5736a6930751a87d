"""The faults of a soak, and the order in which they come.

Each fault has a beginning and an end, between which time passes for the fleet. They come in rounds: each round holds
every fault once, shuffled by the seed, with pauses between them. What a seed leads to does not depend on time.

The system's clock is not stepped: there is one per machine, and other programs need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from runtime.testbed.proxy import Mode
from runtime.testbed.soak.fleet import Fleet, Pair

#: Pause between the end of a fault and the next one, in seconds.
PAUSE_S = (4.0, 8.0)
_RELOADS, _RELOAD_EVERY_S = 20, 0.05

Act = Callable[[Fleet, Pair], None]


@dataclass(frozen=True)
class Fault:
    """What is done to a pair of device and MEC, and undone after ``lasts_s``."""

    name: str
    begin: Act
    end: Act
    lasts_s: tuple[float, float] = (0.0, 0.0)
    numbers: tuple[int, ...] = (0, 1)  # of the pairs that it may befall
    reach: Literal["device", "path", "all"] = "path"  # path: MEC and link, which other devices may use too

    def concerned(self, fleet: Fleet, pair: Pair) -> list[str]:
        """Names of the devices that it concerns."""
        is_shared = self.reach == "all" or (self.reach == "path" and fleet.settings.failover)
        return [one.device.name for one in fleet.pairs] if is_shared else [pair.device.name]


@dataclass(frozen=True)
class Step:
    """One fault of a plan."""

    fault: Fault
    number: int  # of the pair
    lasts_s: float
    pause_s: float  # before it


def plan(seed: int) -> Iterator[Step]:
    """Faults without end."""
    random = np.random.default_rng(seed)
    while True:
        for at in random.permutation(len(FAULTS)):
            fault = FAULTS[at]
            yield Step(
                fault, int(random.choice(fault.numbers)), random.uniform(*fault.lasts_s), random.uniform(*PAUSE_S)
            )


def _nothing(fleet: Fleet, pair: Pair) -> None:
    pass


def _kill_mec(fleet: Fleet, pair: Pair) -> None:
    fleet.kill(pair.mec)


def _stop_mec(fleet: Fleet, pair: Pair) -> None:
    fleet.stop(pair.mec)


def _start_mec(fleet: Fleet, pair: Pair) -> None:
    pair.mec.start()


def _hold_mec(fleet: Fleet, pair: Pair) -> None:
    pair.mec.hold()


def _release_mec(fleet: Fleet, pair: Pair) -> None:
    pair.mec.go_on()


def _kill_device(fleet: Fleet, pair: Pair) -> None:
    fleet.kill(pair.device)


def _stop_device(fleet: Fleet, pair: Pair) -> None:
    fleet.stop(pair.device)


def _start_device(fleet: Fleet, pair: Pair) -> None:
    pair.device.start()


def _hold_device(fleet: Fleet, pair: Pair) -> None:
    pair.device.hold()


def _release_device(fleet: Fleet, pair: Pair) -> None:
    pair.device.go_on()


def _link(mode: Mode) -> Act:
    return lambda fleet, pair: pair.link.set(mode)


def _forget(fleet: Fleet, pair: Pair) -> None:
    pair.link.forget()


def _reload(fleet: Fleet, pair: Pair) -> None:
    for _ in range(_RELOADS):
        for daemon in fleet.daemons():
            daemon.hang_up()
        fleet.run_for(_RELOAD_EVERY_S)


def _fill_disk(fleet: Fleet, pair: Pair) -> None:
    fleet.disk.fill()


def _free_disk(fleet: Fleet, pair: Pair) -> None:
    fleet.disk.free()


FAULTS = (
    Fault("MEC killed", _kill_mec, _start_mec, (0.5, 6.0), numbers=(0,)),
    Fault("MEC restarted", _stop_mec, _start_mec, numbers=(0,)),
    Fault("MEC stopped", _hold_mec, _release_mec, (1.0, 6.0)),
    Fault("link cut", _link(Mode.CUT), _link(Mode.PASS), (1.0, 6.0)),
    Fault("link stalled", _link(Mode.HOLD), _link(Mode.PASS), (1.0, 6.0)),
    Fault("link silent", _link(Mode.SWALLOW), _link(Mode.PASS), (1.0, 6.0)),
    Fault("link half-open", _forget, _nothing),
    Fault("device killed", _kill_device, _start_device, (0.5, 3.0), numbers=(1,), reach="device"),
    Fault("device restarted", _stop_device, _start_device, numbers=(1,), reach="device"),
    Fault("device stopped", _hold_device, _release_device, (1.0, 4.0), reach="device"),
    Fault("reloads", _reload, _nothing, reach="all"),
    Fault("disk full", _fill_disk, _free_disk, (2.0, 6.0), reach="all"),
)
