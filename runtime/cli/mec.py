"""``mecpilot mec``: a configuration in, a running MEC, an exit code out."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

from controller.costs import CostTable
from runtime.bundles.bundle import Bundle, open_served
from runtime.cli.console import log_as
from runtime.cli.shared_options import WORKLOAD_NOTE
from runtime.cli.signals import stop_on_signal
from runtime.cli.startup import no_collecting
from runtime.config.flags import takes
from runtime.config.tree import MEC_SECTIONS, Config, MecSection
from runtime.link.endpoint import parse_bind
from runtime.profiling.profile import load_costs
from runtime.testbed.processes import say_ready
from runtime.workloads.base import Workload

if TYPE_CHECKING:
    from runtime.link.transport import Router
    from runtime.mec.server import MecServer

FULL = "a message without end filled the memory; every connection was closed, devices connect again"


@takes(*MEC_SECTIONS, notes={"--workload": WORKLOAD_NOTE})
def mec(config: Config) -> int:
    """Serve tail segments until SIGTERM or Ctrl-C."""
    from runtime.testbed.processes import follow_parent, withdraw_ready

    log, workload, settings = log_as("mec"), config.workload, config.mec
    parse_bind(settings.bind)
    with stop_on_signal() as stop, ExitStack() as stack:
        stop.then(_leave_at_once)
        if settings.end_with_stdin:
            follow_parent()
        with no_collecting():
            from runtime.link.transport import Router

            served, work = open_served(workload.name, workload.bundle, None)
            costs = load_costs(served, workload.profile)
            # Before torch is imported: a port in use is reported early.
            router = stack.enter_context(closing(Router(settings.bind, on_full=lambda: log(FULL))))
            withdraw_ready(settings.ready_file)
            server = _mec_server(router, served, work, costs, settings, log)
        stop.then(lambda: None)
        router.settle()
        if not stop.asked():
            say_ready(settings.ready_file, router.endpoint)
            stack.callback(withdraw_ready, settings.ready_file, router.endpoint)
            log(f"ready at {router.endpoint}, workload {workload.name}, slowdown {settings.slowdown:g}")
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
    settings: MecSection,
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
    session = MecSession(uuid.uuid4().hex, bundle.held, settings.slowdown)
    rest: dict[str, Any] = {"queue_limit": settings.queue_limit, "warm_up": WarmUp(segments), "log": log}
    return MecServer(router, session, segments, costs, slowdown=settings.slowdown, **rest)


def _leave_at_once() -> None:
    """End a MEC that is still starting: it has promised nothing, and an import cannot be trusted to be interrupted."""
    with suppress(OSError):
        os.write(2, b"mecpilot mec: stopped while it was starting\n")
    os._exit(0)
