"""The command ``mecpilot mec``: options in, a running MEC, an exit code out."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.console import log_as
from runtime.cli.device_options import MAX_SLOWDOWN, BundleDir, ProfileFile, WorkloadName
from runtime.cli.signals import keep_through_hang_up, stop_on_signal
from runtime.cli.startup import no_collecting
from runtime.files.atomic import check_writable
from runtime.link.endpoint import DEFAULT_ENDPOINT
from runtime.mec.records import RequestRecord
from runtime.observe.record_log import REQUESTS, RecordLog
from runtime.testbed.processes import say_ready
from runtime.workloads.base import WORKLOADS

Log = Callable[[str], None]


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
    requests: Annotated[
        str | None,
        typer.Option(
            help="Append one JSON line per request to this file or FIFO, - for stdout. SIGHUP reopens it. A log that "
            "is full or not read costs lines, never requests."
        ),
    ] = None,
    end_with_stdin: Annotated[
        bool, typer.Option("--end-with-stdin", help="End when stdin ends: with the program that started the MEC.")
    ] = False,
) -> int:
    """Serve tail segments until SIGTERM or Ctrl-C. SIGHUP ends it too, but with --requests reopens that file."""
    from runtime.testbed.processes import follow_parent, withdraw_ready

    log = log_as("mec")
    check_writable(requests, "--requests")
    if requests:
        keep_through_hang_up()
    with stop_on_signal() as stop, ExitStack() as stack:
        stop.then(_leave_at_once)
        if end_with_stdin:
            follow_parent()
        with no_collecting():
            from runtime.mec.server import MecServer

            # Binds before torch is imported: a port in use is reported early.
            server = stack.enter_context(
                MecServer(
                    bundle or workload,
                    bind,
                    workload=workload,
                    profile=profile,
                    slowdown=slowdown,
                    queue_limit=queue_limit,
                    log=log,
                )
            )
            withdraw_ready(ready_file)
            request_log = _request_log(requests, server.stop, log)
            if request_log:
                server.add_sink(request_log)
                stop.reopen_with(request_log.reopen)
            server.prepare()
        stop.then(lambda: None)
        if not stop.asked():
            say_ready(ready_file, server.endpoint)
            stack.callback(withdraw_ready, ready_file, server.endpoint)
            log(f"ready at {server.endpoint}, workload {workload}, slowdown {slowdown:g}")
        server.serve(stop.asked)
    counts = server.counts
    log(
        f"served {counts.served} requests, rejected {counts.rejected}, failed {counts.failed}; "
        f"turned away {counts.refused} hellos; protocol errors {counts.peer_faults}"
    )
    return _exit_code(request_log, log)


def _request_log(target: str | None, stop: Callable[[], None], log: Log) -> RecordLog[RequestRecord] | None:
    return RecordLog(target, REQUESTS, log, when_ended=stop) if target else None


def _exit_code(request_log: RecordLog[RequestRecord] | None, log: Log) -> int:
    """1 when what the user asked for is not there."""
    if request_log and request_log.lost:
        log(f"{request_log.lost} request records could not be written")
        return 1
    return 0


def _leave_at_once() -> None:
    """End a MEC that is still starting: it has promised nothing, and an import cannot be trusted to be interrupted."""
    with suppress(OSError):
        os.write(2, b"mecpilot mec: stopped while it was starting\n")
    os._exit(0)
