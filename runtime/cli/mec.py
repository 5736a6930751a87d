"""The command ``mecpilot mec``: a configuration in, a running MEC, an exit code out."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from runtime.cli.child import follow_parent, say_ready, withdraw_ready
from runtime.cli.console import counted, log_as
from runtime.cli.notify import Notifier
from runtime.cli.signals import Stop, kept_through_hang_up, stop_on_signal
from runtime.cli.startup import no_collecting
from runtime.config.flags import takes
from runtime.config.tree import MEC_SECTIONS, Config
from runtime.files.atomic import check_writable
from runtime.mec.records import RequestRecord
from runtime.observe.record_log import REQUESTS, RecordLog

if TYPE_CHECKING:
    from runtime.mec.server import MecServer

Log = Callable[[str], None]


@takes(*MEC_SECTIONS)
def mec(config: Config) -> int:
    """Serve tail segments until SIGTERM or Ctrl-C, or SIGHUP when a terminal closes. Otherwise SIGHUP reloads: it
    reopens the file of --requests."""
    log, settings, notifier = log_as("mec"), config.mec, Notifier.of(os.environ)
    check_writable(settings.requests, "--requests")
    with kept_through_hang_up(bool(settings.requests)), stop_on_signal(notifier) as stop, ExitStack() as stack:
        stop.then(_leave_at_once)
        if settings.end_with_stdin:
            follow_parent()
        with no_collecting():
            server = stack.enter_context(_server(config, log))  # bound before torch is imported
            withdraw_ready(settings.ready_file)
            request_log = _request_log(settings.requests, server, stop, log)
            server.prepare()
        stop.then(lambda: None)
        if not stop.asked():
            say_ready(settings.ready_file, server.endpoint)
            stack.callback(withdraw_ready, settings.ready_file, server.endpoint)
            how = "encrypted" if server.is_encrypted else "plain"
            log(f"ready at {server.endpoint}, {how}, workload {server.bundle.workload}, slowdown {settings.slowdown:g}")
            notifier.ready(f"serving {server.bundle.workload} at {server.endpoint}")

        def stopping() -> bool:
            notifier.alive()  # the loop asks this at every turn and between two stages
            return stop.asked()

        server.serve(stopping)
    counts = server.counts
    cached = f" ({counts.cached} from the cache)" if counts.cached else ""
    shed = (
        f"; shed {counted(counts.shed, 'message')}, cut off {counted(counts.cut_off, 'connection')}"
        if counts.shed
        else ""
    )
    log(
        f"served {counted(counts.served, 'request')}{cached}, rejected {counts.rejected}, failed {counts.failed}; "
        f"turned away {counted(counts.refused, 'device')}{shed}; protocol errors {counts.peer_faults}"
        f"{_unknown_keys(server)}"
    )
    return _exit_code(request_log, log)


def _unknown_keys(server: MecServer) -> str:
    """What the list of admitted devices kept out; nothing on a plain port."""
    if (away := server.turned_away) is None:
        return ""
    return f"; keys not on the list: {counted(away.handshakes, 'handshake')}, {counted(away.messages, 'message')}"


def _server(config: Config, log: Log) -> MecServer:
    from runtime.decoders.given import give_all
    from runtime.mec.server import MecServer

    workload, settings, deploy = config.workload, config.mec, config.deploy
    give_all(workload.decode, workload.scorer)
    return MecServer(
        workload.bundle,
        settings.bind,
        workload=workload.name,
        profile=workload.profile,
        slowdown=settings.slowdown,
        queue_limit=settings.queue_limit,
        batch=settings.batch,
        cache=settings.cache,
        engine=settings.engine,
        threads=settings.threads,
        security=config.security,
        admission=config.admission,
        store=deploy.store,
        trust=deploy.trust,
        log=log,
    )


def _request_log(target: str | None, server: MecServer, stop: Stop, log: Log) -> RecordLog[RequestRecord] | None:
    """The log of --requests, which the server owns from now on."""
    if target is None:
        return None
    request_log: RecordLog[RequestRecord] = RecordLog(target, REQUESTS, log, when_ended=server.stop)
    server.add_sink(request_log)
    stop.on_reload(request_log.reopen)
    return request_log


def _exit_code(request_log: RecordLog[RequestRecord] | None, log: Log) -> int:
    """1 when records are missing that the user asked for."""
    if request_log and request_log.lost:
        log(f"{counted(request_log.lost, 'request record')} could not be written")
        return 1
    return 0


def _leave_at_once() -> None:
    """End a MEC that is still starting: it has promised nothing, and an import cannot be trusted to be interrupted."""
    with suppress(OSError):
        os.write(2, b"mecpilot mec: stopped while it was starting\n")
    os._exit(0)
