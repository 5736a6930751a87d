"""``MecServer``: the MEC as a Python class. It runs the tail segments that devices request.

    with MecServer("campus", bind="tcp://0.0.0.0:5577", security=SecuritySection(key="mec.key")) as mec:
        mec.serve()

``mecpilot mec`` uses the same class.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from controller.costs import CostTable
from controller.errors import FailureError, UsageError
from runtime.bundles.bundle import DEFAULT_NAME, Bundle, open_pair
from runtime.config.sections.admission import AdmissionSection
from runtime.config.sections.security import SecuritySection
from runtime.config.sizes import bytes_of
from runtime.config.tree import DEFAULTS
from runtime.cores import thread_count
from runtime.inference.engines import checked_engine
from runtime.link.endpoint import parse_bind
from runtime.link.router import Router
from runtime.mec.records import MecCounts, RequestRecord
from runtime.observe.sinks import Sink
from runtime.profiling.profile import load_costs
from runtime.security.resolve import is_loopback, mec_keys
from runtime.workloads.base import Workload

if TYPE_CHECKING:
    from runtime.mec.deployment import Deployment
    from runtime.mec.loop import MecLoop
    from runtime.mec.served import Served
    from runtime.security.admission import TurnedAway
    from runtime.security.curve import MecKeys

FULL = "a message without end filled the memory; every connection was closed, devices connect again"
#: Longest wait for the thread of ``start`` to end. A stop gives the current request 0.2 s.
_JOIN_S = 5.0

Log = Callable[[str], None]


class MecServer:
    """Serves the requests of any number of devices that hold its bundle, or one of its store, one at a time, or several
    of one kind together (``batch``).

    The constructor checks the arguments and binds the port: ``endpoint`` is then known, and a port in use is an error
    at once. ``serve`` loads the networks, which takes one to three seconds, and longer in libraries that compile them;
    devices that connect earlier wait.

    UsageError names the argument that cannot be used.
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
        batch: int | None = DEFAULTS.mec.batch,
        cache: str = DEFAULTS.mec.cache,
        engine: str | None = DEFAULTS.mec.engine,
        threads: int | str = DEFAULTS.mec.threads,
        security: SecuritySection = DEFAULTS.security,
        admission: AdmissionSection = DEFAULTS.admission,
        store: str | Path | None = None,
        trust: str | Path | None = None,
        sinks: Iterable[Sink[RequestRecord]] = (),
        log: Log = lambda _: None,
    ) -> None:
        """
        bundle: name of a shipped bundle, a bundle directory, or an open bundle; default: the workload's, or campus.
        bind: tcp://HOST:PORT; host * is every address, port * any free port.
        workload: a name, package.module:Class, or an object; needed for your own workload, or to check the bundle.
        profile: file of `mecpilot profile`, or "shipped"; default: this machine's, else the shipped one.
        slowdown: emulate a MEC that is this many times slower.
        queue_limit: number of requests that may wait; further ones are rejected.
        batch: waiting requests of one kind that are computed together at most; None: what the engine gains by, 32 on
            a GPU and 1 elsewhere. An emulated MEC computes one at a time.
        cache: memory for the outputs of requests that come again byte by byte, such as "64MB"; "0" for none.
        engine: what runs the models: "auto" for the fastest of a short measurement, "torch", "onnxruntime", "openvino",
            "cuda" or an installed one; None: the engine that recorded a model's answers.
        threads: that compute, at most the cores that the process may use; "auto": as many.
        security: the MEC's key file and the list of admitted devices, or plain; needed where other machines reach it.
        admission: what one device may take, and in which order requests are served.
        store: folder for releases that operators push; None: none are taken. Needs the extra "deploy".
        trust: the root.json by whose keys releases must be signed; needed for the first start with a store.
        sinks: each receives a record of every request; they are closed with the server.
        log: called with one line of text for each event.
        """
        keys = mec_keys(security, bind, log)
        self.bundle, self.workload = open_pair(bundle or (None if workload else DEFAULT_NAME), workload)
        self._profile = None if profile is None else Path(profile)
        self._costs = load_costs(self.bundle, self._profile)
        self._slowdown, self._queue_limit, self._log = slowdown, queue_limit, log
        self._batch = self._checked_batch(batch)
        self._cache_bytes = bytes_of(cache)
        self._engine, self._threads = checked_engine(engine), thread_count(threads, log)
        self._is_operator = _operators(keys, bind)
        self._sinks = list(sinks)
        self.is_encrypted = keys is not None
        self._admission = admission
        self._router = Router(
            bind,
            on_full=lambda: log(FULL),
            keys=keys,
            log=log,
            most_connections=admission.connections,
            idle_s=admission.idle_s,
        )
        self._deployment = None if store is None else self._open_store(Path(store), trust)
        self._loop: MecLoop | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def endpoint(self) -> str:
        """Address for devices, tcp://HOST:PORT with the actual port."""
        return self._router.endpoint

    @property
    def counts(self) -> MecCounts:
        """Counts of requests, devices and protocol errors so far."""
        return MecCounts() if self._loop is None else self._loop.counts

    @property
    def turned_away(self) -> TurnedAway | None:
        """Handshakes and messages of keys that are not on the list so far; None on a plain port."""
        return self._router.turned_away

    def add_sink(self, sink: Sink[RequestRecord]) -> None:
        """Add a sink; call it before ``prepare``."""
        self._sinks.append(sink)

    def prepare(self) -> None:
        """Load the networks, for programs that report when they are ready. ``serve`` does it otherwise."""
        if self._loop is None:
            self._loop = self._new_loop()
            self._router.settle()

    def serve(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Serve in this thread until ``stop`` is called or ``stopping`` returns True.

        Then reject the waiting requests and close the session of every device.
        """
        self.prepare()
        assert self._loop is not None
        self._loop.serve(lambda: self._stop.is_set() or stopping())

    def start(self) -> MecServer:
        """Serve in a thread of this process, for tests and notebooks; returns the server.

        The thread shares the interpreter with the program, so measured times are not those of a separate MEC.
        """
        self.prepare()
        self._thread = threading.Thread(target=self._serve_in_thread, name="MEC", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Make ``serve`` return soon. Safe in a signal handler and from any thread; may be called twice."""
        self._stop.set()

    def close(self) -> None:
        """Stop, wait for the thread of ``start``, free the port and close the sinks; may be called twice.

        FailureError, with its cause, when an error had ended the thread.
        """
        self.stop()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        self._router.close()
        if self._deployment is not None:
            self._deployment.close()
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

    def _checked_batch(self, batch: int | None) -> int | None:
        """``batch``, but 1 for an emulated MEC: the times that it emulates are those of one request at a time."""
        if batch is not None and batch < 1:
            raise UsageError(f"got batch={batch}; expected 1 or more, or None for what the engine gains by")
        if self._slowdown == 1.0:
            return batch
        if batch is not None and batch > 1:
            self._log(f"a MEC that is emulated to be {self._slowdown:g} times slower computes one request at a time")
        return 1

    def _open_store(self, folder: Path, trust: str | Path | None) -> Deployment:
        try:
            from runtime.mec.deployment import Deployment

            root = None if trust is None else Path(trust)
            return Deployment(folder, root, self.workload, self._serve_stored, self._log)
        except BaseException:
            self._router.close()
            raise

    def _new_loop(self) -> MecLoop:
        import torch

        from runtime.mec.bundles import Bundles
        from runtime.mec.desk import Desk
        from runtime.mec.loop import MecLoop
        from runtime.protocol.mec_session import MecSession

        torch.set_num_threads(self._threads)  # by default one, as in the profile
        base = self._served(self.bundle, self.workload, self._costs)
        if self._builds_models(self.bundle):
            base.load()
            base.warm_up(self._log)
        bundles = Bundles([base]) if self._deployment is None else self._deployment.bundles(base)
        return MecLoop(
            self._router,
            MecSession(uuid.uuid4().hex, bundles.held, self._slowdown),
            bundles,
            slowdown=self._slowdown,
            queue_limit=self._queue_limit,
            admission=self._admission,
            desk=Desk(
                None if self._deployment is None else self._deployment.installer,
                self._is_operator,
                self._log,
                self._router.fingerprint_of,
            ),
            sinks=self._sinks,
            log=self._log,
        )

    def _served(self, bundle: Bundle, workload: Workload, costs: CostTable | None) -> Served:
        from runtime.inference.segments import Segments
        from runtime.mec.served import Served
        from runtime.mec.tails import Tails
        from runtime.mec.warm_up import WarmUp

        segments = Segments(bundle, workload, self._engine, self._log)
        segments.prepare_codecs()
        tails = Tails(self._cache_bytes) if self._cache_bytes else None
        return Served(segments, costs, warm_up=WarmUp(segments), tails=tails, batch=self._batch)

    def _serve_stored(self, bundle: Bundle, workload: Workload) -> Served:
        """What serves a bundle of the store. Its models are loaded at once: this is not the thread that serves."""
        try:
            costs = load_costs(bundle, self._profile)
        except UsageError:
            costs = None
        served = self._served(bundle, workload, costs)
        served.load()
        if self._builds_models(bundle):
            served.warm_up(self._log)
        return served

    def _builds_models(self, bundle: Bundle) -> bool:
        """Whether a library converts or compiles models when they first run. That takes up to half a second a stage, in
        which devices would find the MEC silent, so it is done before the bundle is served."""
        if self._engine is not None:
            return self._engine != "torch"
        return any(model.engine != "torch" for model in bundle.manifest.models)


def _operators(keys: MecKeys | None, bind: str) -> Callable[[str], bool]:
    """Whether a user, by name, may deploy and see the status. Those of a plain connection have no name; they may if
    the MEC is bound to this machine."""
    if keys is not None:
        return lambda user: keys.allowed.may(user, "operator")
    is_local = is_loopback(parse_bind(bind).host)
    return lambda _: is_local
