"""What does ``mecpilot mec`` do? Options in, a running MEC, an exit code out."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.costs import CostTable
from runtime.bundles.bundle import Bundle, open_served
from runtime.cli.console import log_as
from runtime.cli.device_options import MAX_SLOWDOWN, BundleDir, ProfileFile, WorkloadName
from runtime.cli.signals import stop_on_signal
from runtime.cli.startup import no_collecting
from runtime.link.endpoint import DEFAULT_ENDPOINT, parse_bind
from runtime.profiling.profile import load_costs
from runtime.testbed.processes import say_ready
from runtime.workloads.base import WORKLOADS, Workload

if TYPE_CHECKING:
    from runtime.link.transport import Router
    from runtime.mec.server import MecServer

FULL = "a message without end filled the memory; every connection was closed, devices connect again"


def mec(
    bind: Annotated[str, typer.Option(help="tcp://HOST:PORT; port * lets the system choose.")] = DEFAULT_ENDPOINT,
    workload: WorkloadName = WORKLOADS[0],
    bundle: BundleDir = None,
    profile: ProfileFile = None,
    slowdown: Annotated[
        float, typer.Option(min=1.0, max=MAX_SLOWDOWN, help="Emulate a MEC this many times slower.")
    ] = 1.0,
    queue_limit: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are rejected.")] = 64,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the endpoint here once ready; removed at the end.")
    ] = None,
    end_with_stdin: Annotated[
        bool, typer.Option("--end-with-stdin", help="End when stdin ends: with the program that started the MEC.")
    ] = False,
) -> int:
    """Serve tail segments until SIGTERM or Ctrl-C."""
    from runtime.testbed.processes import follow_parent, withdraw_ready

    log = log_as("mec")
    parse_bind(bind)
    with stop_on_signal() as stop, ExitStack() as stack:
        stop.then(_leave_at_once)
        if end_with_stdin:
            follow_parent()
        with no_collecting():
            from runtime.link.transport import Router

            served, work = open_served(workload, bundle, None)
            costs = load_costs(served, profile)
            # Before torch is imported: a port in use is reported early.
            router = stack.enter_context(closing(Router(bind, on_full=lambda: log(FULL))))
            withdraw_ready(ready_file)
            server = _mec_server(router, served, work, costs, slowdown, queue_limit, log)
        stop.then(lambda: None)
        router.settle()
        if not stop.asked():
            say_ready(ready_file, router.endpoint)
            stack.callback(withdraw_ready, ready_file, router.endpoint)
            log(f"ready at {router.endpoint}, workload {workload}, slowdown {slowdown:g}")
        server.serve(stop.asked)
    counts = server.counts
    log(
        f"served {counts.served} requests, rejected {counts.rejected}, failed {counts.failed}; "
        f"turned away {counts.refused} hellos; {counts.peer_faults} messages broke the protocol"
    )
    return 0


def _mec_server(
    router: Router,
    bundle: Bundle,
    work: Workload,
    costs: CostTable,
    slowdown: float,
    queue_limit: int,
    log: Callable[[str], None],
) -> MecServer:
    """A server that can answer at once, and warms up while it has nothing to do."""
    import torch

    from runtime.inference.segments import Segments
    from runtime.mec.server import MecServer
    from runtime.mec.warm_up import WarmUp
    from runtime.protocol.mec_session import MecSession

    torch.set_num_threads(1)
    segments = Segments(bundle, work)
    session = MecSession(uuid.uuid4().hex, bundle.held, slowdown)
    rest: dict[str, Any] = {"queue_limit": queue_limit, "warm_up": WarmUp(segments), "log": log}
    return MecServer(router, session, segments, costs, slowdown=slowdown, **rest)


def _leave_at_once() -> None:
    """End a MEC that is still starting: it has promised nothing, and an import cannot be trusted to be interrupted."""
    with suppress(OSError):
        os.write(2, b"mecpilot mec: stopped while it was starting\n")
    os._exit(0)
