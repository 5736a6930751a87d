"""What does ``mecpilot device`` do? Options in, a running device, a summary and an exit code out.

Four steps. What the options name is opened and checked; the device is made ready; it serves; it reports. Nothing is
written before everything that can be refused has been.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from controller.controllers.base import Controller
from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.uplink import TraceBank
from controller.records import Outcome
from controller.streaming import Stream
from controller.utility import Utility
from runtime.bundles.bundle import Bundle, open_served
from runtime.cli.console import log_as, print_summary, progress
from runtime.cli.controllers import controller_name, make_pilot, provenance_of, rows_in_use
from runtime.cli.device_options import DeviceOptions, takes
from runtime.cli.signals import Stop, keep_through_hang_up, stop_on_signal
from runtime.cli.startup import no_collecting, settle
from runtime.files.atomic import STDOUT
from runtime.files.provenance import Provenance
from runtime.link.background import Ahead
from runtime.link.endpoint import parse_endpoint
from runtime.observe.outcome_log import OutcomeLog
from runtime.observe.summary import RunSummary
from runtime.profiling.profile import load_costs
from runtime.workloads.base import Split, Workload, stream_score

if TYPE_CHECKING:
    from runtime.device.device import Device
    from runtime.device.local_compute import LocalCompute
    from runtime.sources.samples import Source

Log = Callable[[str], None]


@takes(DeviceOptions)
def device(options: DeviceOptions) -> int:
    """Answer frames, deciding each one. SIGTERM and Ctrl-C end it orderly, with the summary; so does SIGHUP without
    --outcomes, with it SIGHUP reopens that file."""
    log, plan = log_as("device"), _plan(options)
    if options.outcomes:
        keep_through_hang_up()
    with ExitStack() as stack:
        ready = _get_ready(plan, stack, log)
        if ready.stop.asked():
            log("stopped before the first frame")
            return 0
        run = _start(ready, stack, log)
        _serve(run, log)
        _report(run)
    return _exit_code(run, log)


# The steps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What the options come to. Nothing is started or written yet."""

    options: DeviceOptions
    controller: str  # as the user calls it
    bundle: Bundle
    work: Workload
    costs: CostTable
    pilot: Controller
    bank: TraceBank | None
    provenance: Provenance


def _plan(options: DeviceOptions) -> _Plan:
    """Check the options and open the files that they name."""
    if options.video is not None:
        from runtime.observe.pictures import check_picture_path

        check_picture_path(options.video, "--video")
    options.check()
    name = controller_name(options.controller, options.policy, options.decision)
    parse_endpoint(options.mec)
    bundle, work = open_served(options.workload, options.bundle, options.data)
    costs, pilot = make_pilot(name, load_costs(bundle, options.profile), Utility(), options)
    bank = _trace_bank(options.uplink)
    return _Plan(options, name, bundle, work, costs, pilot, bank, provenance_of(bundle, name, options))


@dataclass(frozen=True)
class _Ready:
    """What a device needs before its first frame."""

    plan: _Plan  # its options at the frame rate of the source
    source: Source
    compute: LocalCompute
    stop: Stop


def _get_ready(plan: _Plan, stack: ExitStack, log: Log) -> _Ready:
    """Open the source, import the networks and run them for the first time. A stop ends this early."""
    with no_collecting():
        source = stack.enter_context(closing(_source(plan, log)))
        plan = replace(plan, options=plan.options.paced(source.fps))
        pictures = Ahead(source.prepare)  # while the networks are imported and run for the first time
        stack.callback(pictures.abandon)
        import runtime.device.daemon  # noqa: F401 - an import under our handlers would delay a stop
        from runtime.device.local_compute import LocalCompute

        compute = LocalCompute(plan.bundle, plan.work, source=source)  # imports the engines
        stop = stack.enter_context(stop_on_signal())  # until here a signal simply ends the process
        settle()
        decisions = plan.costs.space.decisions
        compute.warm_up([decisions[row] for row in rows_in_use(plan.costs, plan.pilot)], stop.asked)
        pictures.wait(stop.asked)
    return _Ready(plan, source, compute, stop)


@dataclass(frozen=True)
class _Run:
    """What serves, and what is kept of it."""

    plan: _Plan
    source: Source
    unit: Device
    journal: OutcomeLog | None
    stop: Stop
    summary: RunSummary
    seen: list[Outcome] = field(default_factory=list)  # for the pictures

    def record(self, outcome: Outcome) -> None:
        """Take in what became of a frame."""
        self.summary.add(outcome)
        if self.journal:
            self.journal.write(outcome)
            if self.journal.ended:
                self.unit.stop()
        self.source.release(outcome.source_index)
        if self.plan.options.video:
            self.seen.append(outcome)


def _start(ready: _Ready, stack: ExitStack, log: Log) -> _Run:
    """Connect the device and open the journal."""
    from runtime.device.daemon import open_device

    plan, source, options = ready.plan, ready.source, ready.plan.options
    unit = open_device(
        options.mec,
        ready.compute,
        plan.costs,
        options.scenario(),
        Utility(),
        plan.bank,
        closed_loop=options.fps == 0,
        feed=source.feed,
        log=log,
    )
    stack.callback(unit.close)
    journal = OutcomeLog(options.outcomes, log) if options.outcomes else None  # nothing is refused any more
    if journal:
        stack.callback(journal.close)
        ready.stop.reopen_with(journal.reopen)
    ready.stop.then(unit.stop)
    summary = RunSummary(_stream(plan.work, options), _interval_s(source, options))
    return _Run(plan, source, unit, journal, ready.stop, summary)


def _serve(run: _Run, log: Log) -> None:
    """Answer frames until the source ends or a stop is asked for."""
    from runtime.device.daemon import drive

    with progress(run.plan.options.frames_ahead, log) as advance:
        for outcome in drive(run.unit, run.plan.pilot, log):
            run.record(outcome)
            advance(outcome)
        run.unit.close()
        for outcome in run.unit.take_outcomes():  # of frames that an end in mid-frame left behind
            run.record(outcome)
            advance(outcome)
    if run.journal:
        run.journal.close()


def _report(run: _Run) -> None:
    """Print and write what the user asked for; nothing when the source's failure is all that there is to say."""
    options = run.plan.options
    if run.source.failure and not run.summary.frames:
        return
    try:
        print_summary(
            run.summary,
            f"{run.plan.bundle.workload}: {run.plan.pilot.name}, {options.mec}",
            options.json_out,
            run.plan.controller,
            run.unit.counts.as_json(),
            options.mec,
            run.plan.provenance,
            run.source.notes(),
            quiet=options.quiet,
            stdout_taken=options.outcomes == STDOUT,
        )
    finally:
        if options.video:
            from runtime.observe.pictures import write_pictures

            write_pictures(options.video, run.seen, run.source.replay, run.plan.work.draw, options.scenario().fps)


def _exit_code(run: _Run, log: Log) -> int:
    """Frames were answered whatever happened; what else failed is said here."""
    failure = _failure(run)
    if failure:
        log(failure)
    return 1 if failure else 0


def _failure(run: _Run) -> str:
    """The first thing that failed, or nothing."""
    options, counts = run.plan.options, run.unit.counts
    if trouble := _trouble(run.source, run.summary, options, run.stop.asked()):
        return trouble
    if run.journal and run.journal.lost:
        return f"{run.journal.lost} outcomes could not be written"
    if counts.refused:
        return f"the MEC did not serve this device: {counts.refused}"
    if options.require_mec and not counts.welcomed:
        return f"no MEC was met at {options.mec} during the whole run, and --require-mec was given"
    return ""


# Their parts -------------------------------------------------------------------------------------------------


def _stream(work: Workload, options: DeviceOptions) -> Stream | None:
    """What judges streaming accuracy: for a workload of consecutive frames that are captured by the clock."""
    score = stream_score(work)
    return None if score is None or options.fps == 0 else Stream(1.0 / options.scenario().fps, score)


def _interval_s(source: Source, options: DeviceOptions) -> float | None:
    """Time between captures, where it is known beforehand."""
    return 1.0 / options.fps if source.feed is None and options.fps else None


def _trace_bank(path: Path | None) -> TraceBank | None:
    if path is None:
        return None
    from runtime.files.traces import load_traces

    return load_traces([path])


def _source(plan: _Plan, log: Log) -> Source:
    from runtime.sources.samples import Samples, open_source

    options, work = plan.options, plan.work
    if options.source is not None:
        return open_source(
            options.source,
            plan.bundle.frame_shape,
            options.start or 0,
            keep=options.video is not None,
            retry_s=options.source_retry,
            own_times=options.source_fps is not None,
            log=log,
        )
    split: Split = "test" if options.start is None else "all"
    first, count = options.start or 0, work.sample_count(split)
    if first >= count:
        raise UsageError(f"--start {first}; expected at most {count - 1}, for {work.name} has {count} samples")
    return Samples(work, split, range(first, first + (options.frames_ahead or 1)))


def _trouble(source: Source, summary: RunSummary, options: DeviceOptions, stopped: bool) -> str:
    """How the source ended before it should have, or nothing."""
    if source.failure:
        return source.failure
    missing = summary.frames < (options.frames or 1)
    if options.source is None or stopped or not missing:
        return ""
    asked = f"{options.frames} were asked for with --frames" if options.frames else "expected at least one"
    return f"source {source.name} ended after {summary.frames} frames; {asked}"
