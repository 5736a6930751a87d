"""A MEC, as a program of one's own uses it: it runs the tail segments that devices ask for.

    with MecServer("campus", bind="tcp://0.0.0.0:5577") as mec:
        mec.serve()

``mecpilot mec`` is made of the same class.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from controller.errors import FailureError
from runtime.bundles.bundle import DEFAULT_NAME, Bundle, open_pair
from runtime.config.tree import DEFAULTS
from runtime.link.endpoint import parse_bind
from runtime.link.transport import Router
from runtime.mec.records import MecCounts, RequestRecord
from runtime.observe.sinks import Sink
from runtime.profiling.profile import load_costs
from runtime.workloads.base import Workload

if TYPE_CHECKING:
    from runtime.mec.loop import MecLoop

FULL = "a message without end filled the memory; every connection was closed, devices connect again"
#: Longest that a server in the background may take to end: a request in hand gets 0.2 s.
_JOIN_S = 5.0

Log = Callable[[str], None]


class MecServer:
    """Serves the requests of any number of devices that hold the same bundle, one after the other, on one thread.

    Making one checks the arguments and binds the port, so that ``endpoint`` is known and a port in use is an error at
    once. ``serve`` then imports the networks, which takes one to three seconds; devices that connect before wait.

    UsageError says which argument cannot be used.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = None,
        bind: str = DEFAULTS.mec.bind,
        *,
        workload: str | Workload | None = None,
        profile: str | Path | None = None,
        slowdown: float = 1.0,
        queue_limit: int = DEFAULTS.mec.queue_limit,
        sinks: Iterable[Sink[RequestRecord]] = (),
        log: Log = lambda _: None,
    ) -> None:
        """
        bundle: name of a shipped bundle, the directory of one, or an opened one; default: the workload's, or campus.
        bind: tcp://HOST:PORT; host * is every address, port * any free port.
        workload: a name, package.module:Class, or an object; only needed for one's own, or to check the bundle.
        profile: file of `mecpilot profile`, or "shipped"; default: this machine's, else the shipped one.
        slowdown: emulate a MEC that is this many times slower.
        queue_limit: requests that may wait; further ones are rejected.
        sinks: each gets a record of every request; they are closed with the server.
        log: takes one line of text for each event.
        """
        parse_bind(bind)
        self.bundle, self.workload = open_pair(bundle or (None if workload else DEFAULT_NAME), workload)
        self._costs = load_costs(self.bundle, None if profile is None else Path(profile))
        self._slowdown, self._queue_limit, self._log = slowdown, queue_limit, log
        self._sinks = list(sinks)
        self._router = Router(bind, on_full=lambda: log(FULL))
        self._loop: MecLoop | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def endpoint(self) -> str:
        """Where devices reach it, tcp://HOST:PORT with the port that is really used."""
        return self._router.endpoint

    @property
    def counts(self) -> MecCounts:
        """What it has done so far."""
        return MecCounts() if self._loop is None else self._loop.counts

    def add_sink(self, sink: Sink[RequestRecord]) -> None:
        """One more sink; only before ``prepare``."""
        self._sinks.append(sink)

    def prepare(self) -> None:
        """Import the networks, for programs that say when they are ready. ``serve`` does it if nobody did."""
        if self._loop is None:
            self._loop = self._new_loop()
            self._router.settle()

    def serve(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Serve in this thread until ``stop`` is called or ``stopping`` returns True. Then reject what waits, and say
        good-bye to every device."""
        self.prepare()
        assert self._loop is not None
        self._loop.serve(lambda: self._stop.is_set() or stopping())

    def start(self) -> MecServer:
        """Serve in a thread of this process, for tests and notebooks; returns itself. The thread shares the interpreter
        with the program, so times are those of neither a MEC nor a program of its own."""
        self.prepare()
        self._thread = threading.Thread(target=self._serve_in_thread, name="MEC", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Have ``serve`` return soon. Safe in a signal handler and from any thread; may be called twice."""
        self._stop.set()

    def close(self) -> None:
        """Stop, wait for the thread of ``start``, and free the port; may be called twice. FailureError with what ended
        the thread early."""
        self.stop()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        self._router.close()
        for sink in self._sinks:
            sink.close()
        error, self._error = self._error, None
        if error is not None:
            raise FailureError(f"the MEC ended: {type(error).__name__}: {error}") from error

    def __enter__(self) -> MecServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve_in_thread(self) -> None:
        try:
            self.serve()
        except BaseException as error:  # noqa: BLE001 - raised again by close()
            self._error = error

    def _new_loop(self) -> MecLoop:
        import torch

        from runtime.inference.segments import Segments
        from runtime.mec.loop import MecLoop
        from runtime.mec.warm_up import WarmUp
        from runtime.protocol.mec_session import MecSession

        torch.set_num_threads(1)  # as in the profile
        segments = Segments(self.bundle, self.workload)
        return MecLoop(
            self._router,
            MecSession(uuid.uuid4().hex, self.bundle.held, self._slowdown),
            segments,
            self._costs,
            slowdown=self._slowdown,
            queue_limit=self._queue_limit,
            warm_up=WarmUp(segments),
            sinks=self._sinks,
            log=self._log,
        )
