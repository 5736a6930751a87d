"""What is between device and MEC where both are real: ``emulated`` in the device's process, or a ``lab``.

- ``emulated``: loopback, and ``runtime.link.shaped_link`` delays each message as the twin does.
- ``lab``: namespaces of their own, with the kernel's TCP (``runtime.testbed.lab``); the uplink is shaped by packet.
- ``lab-kernel``: the same, shaped by the kernel's token bucket.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from controller.errors import unknown_name
from controller.predict.uplink import TraceBank
from controller.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.testbed.lab.network import ShaperKind

NetworkName = Literal["emulated", "lab", "lab-kernel"]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)


class Network(Protocol):
    """Where processes of an episode run, and what shapes the uplink."""

    bind: str  # where the MEC listens
    emulated: TraceBank | None  # what the device itself replays; None where the network does

    def at_mec(self) -> AbstractContextManager[None]:
        """Processes that are started in this block are where the MEC is."""
        ...

    def at_device(self, scenario: Scenario) -> AbstractContextManager[None]:
        """This thread is where the device is, during an episode."""
        ...

    def begin(self, origin_s: float) -> None:
        """The first frame is captured at this time of ``time.perf_counter``."""
        ...

    def close(self) -> None:
        """Remove the network; may be called twice."""
        ...


class Emulated:
    """The loopback interface; the device shapes its messages."""

    bind = "tcp://127.0.0.1:*"

    def __init__(self, bank: TraceBank) -> None:
        self.emulated: TraceBank | None = bank

    def at_mec(self) -> AbstractContextManager[None]:
        return nullcontext()

    def at_device(self, _: Scenario) -> AbstractContextManager[None]:
        return nullcontext()

    def begin(self, origin_s: float) -> None:
        """Nothing to do: the device's own link is told."""

    def close(self) -> None:
        """Nothing to do."""


class InLab:
    """A lab with one device. Owns it until ``close``."""

    emulated: TraceBank | None = None

    def __init__(self, bank: TraceBank, shaper: ShaperKind) -> None:
        from runtime.testbed.lab.network import open_lab

        self._stack, self._bank = ExitStack(), bank
        self._lab = self._stack.enter_context(open_lab(shaper=shaper))
        self.bind = self._lab.bind

    def at_mec(self) -> AbstractContextManager[None]:
        from runtime.testbed.lab.namespaces import inside

        return inside(self._lab.mec)

    @contextmanager
    def at_device(self, scenario: Scenario) -> Iterator[None]:
        from runtime.testbed.lab.namespaces import inside

        self._lab.replay(self._bank, scenario)
        with inside(self._lab.devices[0]):
            yield

    def begin(self, origin_s: float) -> None:
        self._lab.begin(origin_s)

    def close(self) -> None:
        self._stack.close()


def checked_name(name: str) -> NetworkName:
    """UsageError for an unknown network."""
    for network in NETWORKS:
        if network == name:
            return network
    raise unknown_name("network", name, NETWORKS)


def network_of(name: NetworkName, bank: TraceBank) -> Network:
    """A network by its name; UsageError where it cannot be made."""
    if name == "emulated":
        return Emulated(bank)
    return InLab(bank, "kernel" if name == "lab-kernel" else "packets")
