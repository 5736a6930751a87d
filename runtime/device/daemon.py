"""Connect a device's loop to a MEC, and let a controller decide in it until its source ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence

from controller.controllers.base import Controller
from controller.costs import CostTable
from controller.forecast import Forecaster
from controller.predict.uplink import TraceBank
from controller.records import Outcome
from controller.scenario import Scenario
from controller.utility import Utility
from runtime.config.sections.device import LimitsSection
from runtime.config.tree import DEFAULTS
from runtime.device.local_compute import LocalCompute
from runtime.device.loop import DeviceLoop
from runtime.device.outcomes import Job
from runtime.device.shadowing import BoundedShadow
from runtime.link.link import Clock, DirectLink, Link
from runtime.link.mecs.address import MecAddress
from runtime.link.mecs.opening import open_mecs
from runtime.link.mecs.port import MecPort
from runtime.link.senders import Senders
from runtime.link.shaped_link import ShapedLink, Shaper
from runtime.protocol.device_session import DeviceSession
from runtime.shortcuts.base import Shortcut
from runtime.sources.frames import Feed

Log = Callable[[str], None]


def open_loop(
    mecs: Sequence[MecAddress],
    compute: LocalCompute,
    costs: CostTable,
    scenario: Scenario,
    utility: Utility,
    bank: TraceBank | None = None,
    limits: LimitsSection = DEFAULTS.limits,
    *,
    breaker: bool = False,
    closed_loop: bool = False,
    feed: Feed | None = None,
    shortcuts: Sequence[Shortcut] = (),
    forecaster: Forecaster | None = None,
    clock: Clock = time.perf_counter,
    log: Log = lambda _: None,
    link_log: Log | None = None,
    on_start: Callable[[float], None] = lambda _: None,
) -> DeviceLoop:
    """The loop of a device, connected to these MECs, the preferred one first, whose caller decides: ``Device`` with a
    controller, the live environment with its actions. With a bank the uplink replays the scenario's trace, share and
    round trip; without one, it is the network as it is. Rows of ``costs`` are what ``execute`` takes. ``shortcuts`` may
    answer a frame before it is decided; a ``forecaster``, a new one for each loop, moves reused answers on.
    ``breaker``: a sole MEC has one as well. ``log`` takes a line for each event, ``link_log`` those about the MEC
    (default: ``log``). ``on_start`` is told when the first frame is captured, where the network is used as it is."""
    largest_bytes = compute.largest_output_bytes(costs.space.decisions)
    shaper = None  # one for all MECs: they share the uplink
    if bank is not None:
        shaper = Shaper(bank, scenario.trace_index, scenario.trace_start_s, scenario.uplink_share_frac)

    def new_link(address: MecAddress) -> Link:
        link = DirectLink(address.endpoint, clock, largest_bytes, address.keys, on_start)
        return link if shaper is None else ShapedLink(link, shaper, scenario.rtt_s, clock, costs.sealed)

    mec: MecPort[Job] = open_mecs(
        mecs,
        costs,
        new_link=new_link,
        new_session=lambda: DeviceSession(socket.gethostname()[:64] or "device", compute.held),
        new_senders=lambda: Senders(compute.sender),
        max_in_flight=limits.max_in_flight,
        clock=clock,
        log=link_log or log,
        breaker=breaker,
    )
    return DeviceLoop(
        compute,
        mec,
        costs,
        scenario,
        utility,
        queue_limit=limits.queue_limit,
        closed_loop=closed_loop,
        feed=feed,
        shortcuts=shortcuts,
        log=log,
        clock=clock,
        epoch_s=time.time() - clock() if clock is time.perf_counter else None,
        forecaster=forecaster,
    )


def drive(
    device: DeviceLoop, controller: Controller, log: Log, shadow: BoundedShadow | None = None
) -> Iterator[Outcome]:
    """Decide and execute until the source has ended. Yields each outcome as soon as it is known. A ``shadow`` decides
    each frame once more, after it was carried out or sent."""
    while (state := device.next_frame()) is not None or not device.is_over:
        yield from device.take_outcomes()
        if state is None:
            continue
        try:
            row = int(controller.decide(state)[0])
        except Exception as error:  # noqa: BLE001 - a device goes on: the frame gets a local answer
            log(f"controller {controller.name} failed: {type(error).__name__}: {error}; answering locally")
            row = device.local_row(state)
        device.execute(row)
        if shadow is not None:
            shadow.look(state, row)
        yield from device.take_outcomes()
    yield from device.take_outcomes()
