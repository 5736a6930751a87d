"""What do ``mecpilot mec`` and ``mecpilot device`` do? Options in, a running process, an exit code out."""

from __future__ import annotations

import gc
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.base import Controller
from controller.classical import FixedRow
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.records import Decision, Outcome
from controller.registry import CONTROLLER_NAMES, make_controller
from controller.streaming import Stream
from controller.uplink import TraceBank
from controller.utility import Utility
from runtime.atomic import STDOUT
from runtime.bundle import Bundle, open_bundle
from runtime.console import log_as, print_summary, progress
from runtime.device_options import (
    DEFAULT_ENDPOINT,
    MAX_SLOWDOWN,
    BundleDir,
    DeviceOptions,
    ProfileFile,
    WorkloadName,
    takes,
)
from runtime.endpoint import parse_bind, parse_endpoint
from runtime.outcome_log import OutcomeLog
from runtime.policy_file import load_policy, shipped_policy, used_policy
from runtime.processes import say_ready
from runtime.profile import candidates, load_costs, used_profile
from runtime.provenance import Provenance
from runtime.signals import keep_through_hang_up, stop_on_signal
from runtime.summary import RunSummary
from runtime.tuning_file import load_tunings, tuning_of, used_tuning
from runtime.workloads.base import WORKLOADS, Workload, get_workload, stream_score

if TYPE_CHECKING:
    from runtime.mec import MecServer
    from runtime.sources import Source
    from runtime.transport import Router


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
    from runtime.processes import follow_parent, withdraw_ready

    log = log_as("mec")
    parse_bind(bind)
    with stop_on_signal() as stop, ExitStack() as stack:
        stop.then(_leave_at_once)
        if end_with_stdin:
            follow_parent()
        with _no_collecting():
            from runtime.transport import Router

            served, work = _open(workload, bundle, None)
            costs = load_costs(served, profile)
            router = stack.enter_context(closing(Router(bind)))  # before torch: a port in use is reported early
            withdraw_ready(ready_file)
            server = _mec_server(router, served, work, costs, slowdown, queue_limit, log)
        stop.then(lambda: None)
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

    from runtime.mec import MecServer
    from runtime.mec_session import MecSession
    from runtime.segments import Segments
    from runtime.warm_up import WarmUp

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


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Load what lives as long as the process: nobody need look for garbage in it, now or later."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


@takes(DeviceOptions)
def device(options: DeviceOptions) -> int:
    """Answer frames, deciding each one. SIGTERM and Ctrl-C end it orderly, with the summary; so does SIGHUP without
    --outcomes, with it SIGHUP reopens that file."""
    from runtime.background import Ahead

    name, log = _checked(options), log_as("device")
    if options.outcomes:
        keep_through_hang_up()
    parse_endpoint(options.mec)
    held, work = _open(options.workload, options.bundle, options.data)
    utility = Utility()
    costs, pilot = _pilot(name, load_costs(held, options.profile), utility, options)
    bank, provenance = _trace_bank(options.uplink), _provenance(held, name, options)
    with ExitStack() as stack:
        stack.callback(gc.enable)
        gc.disable()  # what is imported stays: looking through it takes a tenth of the start
        source = stack.enter_context(closing(_source(options, held, work, log)))
        options = options.paced(source.fps)
        pictures = Ahead(source.prepare)  # while the networks are imported and run for the first time
        stack.callback(pictures.abandon)
        from runtime.daemon import drive, open_device
        from runtime.local_compute import LocalCompute

        stop = stack.enter_context(stop_on_signal())  # until here a signal simply ends the process
        compute = LocalCompute(held, work, source=source)
        _settle()
        compute.warm_up([costs.space.decisions[row] for row in _rows_in_use(costs, pilot)], stop.asked)
        pictures.wait(stop.asked)
        if stop.asked():
            log("stopped before the first frame")
            return 0
        gc.freeze()
        gc.enable()
        loop: dict[str, Any] = {"closed_loop": options.fps == 0, "feed": source.feed, "log": log}
        unit = open_device(options.mec, compute, costs, options.scenario(), utility, bank, **loop)
        stack.callback(unit.close)
        journal = OutcomeLog(options.outcomes, log) if options.outcomes else None  # nothing is refused any more
        if journal:
            stack.callback(journal.close)
            stop.reopen_with(journal.reopen)
        stop.then(unit.stop)
        summary, seen = RunSummary(_stream(work, options), _interval_s(source, options)), list[Outcome]()
        advance = stack.enter_context(progress(options.frames_ahead, log))

        def record(outcome: Outcome) -> None:
            summary.add(outcome)
            if journal:
                journal.write(outcome)
                if journal.ended:
                    unit.stop()
            source.release(outcome.source_index)
            if options.video:
                seen.append(outcome)
            advance(outcome)

        for outcome in drive(unit, pilot, log):
            record(outcome)
        unit.close()
        for outcome in unit.take_outcomes():  # of frames that an end in mid-frame left behind
            record(outcome)
        if journal:
            journal.close()
        title = f"{held.workload}: {pilot.name}, {options.mec}"
        nothing = not summary.frames and source.failure  # which is all that there is to say
        try:
            if not nothing:
                print_summary(
                    summary,
                    title,
                    options.json_out,
                    name,
                    unit.counts.__dict__,
                    options.mec,
                    provenance,
                    source.notes(),
                    quiet=options.quiet,
                    stdout_taken=options.outcomes == STDOUT,
                )
        finally:
            if options.video and not nothing:
                _write_pictures(options.video, seen, source, work, options.scenario().fps)
    unmet = options.mec if options.require_mec and not unit.counts.welcomed else ""
    return _exit_code(journal, unit.counts.refused, _trouble(source, summary, options, stop.asked()), log, unmet)


def _stream(work: Workload, options: DeviceOptions) -> Stream | None:
    """What judges streaming accuracy: for a workload of consecutive frames that are captured by the clock."""
    score = stream_score(work)
    return None if score is None or options.fps == 0 else Stream(1.0 / options.scenario().fps, score)


def _interval_s(source: Source, options: DeviceOptions) -> float | None:
    """Time between captures, where it is known beforehand."""
    return 1.0 / options.fps if source.feed is None and options.fps else None


def _provenance(bundle: Bundle, name: str, options: DeviceOptions) -> Provenance:
    """What this run rests on: only what its controller uses."""
    policy = options.policy or shipped_policy(options.workload)
    return Provenance(
        bundle.workload,
        bundle.digest,
        used_profile(bundle, options.profile),
        (used_policy(policy),) if name == "ppo" and policy else (),
        None if name in ("ppo", "pinned") else used_tuning(options.workload, options.tuning),
    )


# Building blocks -------------------------------------------------------------------------------------------


def default_decision(costs: CostTable) -> Decision:
    """The most accurate model's last exit at the largest resolution, all of it on the MEC, fed with the raw image."""
    space = costs.space
    raw = [row for row, d in enumerate(space.decisions) if d.partition_point == 0 and d.payload == "raw"]
    largest = max(space.decisions[row].resolution_px for row in raw)
    fullest = [row for row in raw if space.decisions[row].resolution_px == largest]
    return space.decisions[max(fullest, key=lambda row: (costs.accuracy[row], space.decisions[row].exit_branch))]


def pinned_row(costs: CostTable, decision: str) -> int:
    """Row of the decision that a JSON object names, as far as it names it."""
    try:
        wanted = json.loads(decision)
    except json.JSONDecodeError as error:
        raise UsageError(f"--decision {decision!r} is not JSON ({error.msg}); expected an object") from None
    if not isinstance(wanted, dict):
        raise UsageError(f'--decision {decision!r}; expected a JSON object such as {{"partition_point": 2}}')
    return costs.space.pin(wanted, default_decision(costs))


def _checked(options: DeviceOptions) -> str:
    """Name of the controller, once nothing is left to complain about."""
    if options.video is not None:
        from runtime.pictures import check_picture_path

        check_picture_path(options.video, "--video")
    options.check()
    return _controller_name(options.controller, options.policy, options.decision)


def _controller_name(controller: str | None, policy: Path | None, decision: str | None) -> str:
    if decision is not None:
        if controller is not None:
            raise UsageError(f"got --decision and --controller {controller}; expected one of them")
        return "pinned"
    name = controller or "ppo"
    if name not in CONTROLLER_NAMES:
        raise unknown_name("controller", name, CONTROLLER_NAMES)
    if name == "hindsight":
        raise UsageError("controller hindsight knows the future, which only the twin has; choose another one")
    if policy is not None and name != "ppo":
        raise UsageError(f"got --policy and --controller {name}; expected --controller ppo")
    return name


def _pilot(name: str, table: CostTable, utility: Utility, options: DeviceOptions) -> tuple[CostTable, Controller]:
    """The decisions to choose from, and who chooses."""
    tunings = load_tunings(options.workload, options.tuning)
    if options.decision is not None:
        return table, FixedRow("pinned", pinned_row(table, options.decision))
    frozen = None
    if name == "ppo" and (path := options.policy or shipped_policy(options.workload)):
        frozen, _ = load_policy(path, options.workload)
    costs = candidates(table, get_workload(options.workload).scenario_range())
    tuning = tuning_of(name, tunings, costs)
    return costs, make_controller(name, costs, utility, tuning, options.seed, frozen)


def _rows_in_use(costs: CostTable, pilot: Controller) -> list[int]:
    """What may have to be computed here: for a pinned decision that one and the local answers, else everything."""
    if isinstance(pilot, FixedRow):
        return [pilot.row, *(int(row) for row in costs.local_frontier)]
    return list(range(len(costs)))


def _open(workload: str, bundle: Path | None, data: Path | None) -> tuple[Bundle, Workload]:
    work = get_workload(workload, data)
    opened = open_bundle(bundle or workload)
    if opened.workload != workload:
        raise UsageError(f"the bundle {bundle} is for workload {opened.workload!r}; expected {workload!r}")
    return opened, work


def _trace_bank(path: Path | None) -> TraceBank | None:
    if path is None:
        return None
    from runtime.traces import load_traces

    return load_traces([path])


def _settle() -> None:
    """One thread, and no pauses to look for garbage in what lives as long as the process."""
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()


def _source(options: DeviceOptions, bundle: Bundle, work: Workload, log: Callable[[str], None]) -> Source:
    from runtime.sources import Samples, open_source

    if options.source is None:
        first, count = options.start or 0, work.sample_count("test" if options.start is None else "all")
        if first >= count:
            raise UsageError(f"--start {first}; expected at most {count - 1}, for {work.name} has {count} samples")
        played = range(first, first + (options.frames_ahead or 1))
        return Samples(work, "test" if options.start is None else "all", played)
    keep, own_times = options.video is not None, options.source_fps is not None
    return open_source(
        options.source,
        bundle.frame_shape,
        options.start or 0,
        keep,
        retry_s=options.source_retry,
        own_times=own_times,
        log=log,
    )


def _write_pictures(path: Path, seen: list[Outcome], source: Source, work: Workload, fps: float) -> None:
    from runtime.pictures import write_pictures

    write_pictures(path, seen, source.replay, work.draw, fps)


def _trouble(source: Source, summary: RunSummary, options: DeviceOptions, stopped: bool) -> str:
    """How the source ended before it should have, or nothing."""
    if source.failure:
        return source.failure
    missing = summary.frames < (options.frames or 1)
    if options.source is None or stopped or not missing:
        return ""
    asked = f"{options.frames} were asked for with --frames" if options.frames else "expected at least one"
    return f"source {source.name} ended after {summary.frames} frames; {asked}"


def _exit_code(
    journal: OutcomeLog | None, refused: str, trouble: str, log: Callable[[str], None], unmet: str = ""
) -> int:
    """Frames were answered whatever happened; what else failed is told here."""
    if trouble:
        log(trouble)
        return 1
    if journal and journal.lost:
        log(f"{journal.lost} outcomes could not be written")
        return 1
    if refused:
        log(f"the MEC did not serve this device: {refused}")
        return 1
    if unmet:
        log(f"no MEC was met at {unmet} during the whole run, and --require-mec was given")
        return 1
    return 0
