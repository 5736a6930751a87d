"""Connect a device to its MECs: one connection where it has one, ``Mecs`` where it has several or a breaker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from controller.costs import CostTable
from runtime.link.connection import MecConnection
from runtime.link.link import Clock, Link
from runtime.link.link_watch import ANSWERING_LOCALLY
from runtime.link.mecs.address import MecAddress
from runtime.link.mecs.mecs import Mecs
from runtime.link.mecs.port import MecPort
from runtime.link.senders import Senders
from runtime.link.transport import wait_for
from runtime.protocol.device_session import DeviceSession

JobT = TypeVar("JobT")


def open_mecs(
    addresses: Sequence[MecAddress],
    costs: CostTable,
    *,
    new_link: Callable[[MecAddress], Link],
    new_session: Callable[[], DeviceSession],
    new_senders: Callable[[], Senders],
    max_in_flight: int,
    clock: Clock,
    log: Callable[[str], None],
    breaker: bool = False,
) -> MecPort[JobT]:
    """The connection of a device to these MECs, the preferred one first. ``log`` takes a line for each event.
    ``breaker``: a sole MEC has one as well."""

    def connect(address: MecAddress, log: Callable[[str], None], otherwise: str) -> MecConnection[JobT]:
        return MecConnection(
            address.name,
            new_link(address),
            new_session(),
            costs,
            max_in_flight=max_in_flight,
            clock=clock,
            log=log,
            senders=new_senders(),
            otherwise=otherwise,
        )

    if len(addresses) == 1 and not breaker:
        return connect(addresses[0], log, ANSWERING_LOCALLY)
    several = [(address.name, connect(address, _named(address, log), "")) for address in addresses]
    return Mecs(several, clock=clock, sleep=lambda ends, until_s: wait_for(ends, until_s - clock()), log=log)


def _named(address: MecAddress, log: Callable[[str], None]) -> Callable[[str], None]:
    """A log whose lines begin with the name of a MEC."""
    return lambda text: log(f"{address.name}: {text}")
