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
from runtime.bundles.bundle import Bundle, open_served
from runtime.cli.console import log_as, print_summary, progress
from runtime.cli.controllers import controller_name, make_pilot, provenance_of, rows_in_use
from runtime.cli.device_checks import check_paths, deadline_warning
from runtime.cli.shared_options import WORKLOAD_NOTE
from runtime.cli.signals import Stop, keep_through_hang_up, stop_on_signal
from runtime.cli.startup import no_collecting, settle
from runtime.config.flags import takes
from runtime.config.scenario import device_scenario, frames_ahead, paced
from runtime.config.tree import DEVICE_SECTIONS, Config
from runtime.files.atomic import STDOUT
from runtime.files.provenance import Provenance
from runtime.files.trace_formats import TRACE_HELP
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


@takes(*DEVICE_SECTIONS, notes={"--workload": WORKLOAD_NOTE, "--uplink": TRACE_HELP})
def device(options: Config) -> int:
    """Answer frames, deciding each one. SIGTERM and Ctrl-C end it orderly, with the summary; so does SIGHUP without
    --outcomes, with it SIGHUP reopens that file."""
    log, plan = log_as("device"), _plan(options)
    if warning := deadline_warning(plan.costs, device_scenario(options)):
        log(warning)
    if options.outputs.outcomes:
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

    options: Config
    controller: str  # as the user calls it
    bundle: Bundle
    work: Workload
    costs: CostTable
    pilot: Controller
    bank: TraceBank | None
    provenance: Provenance


def _plan(options: Config) -> _Plan:
    """Check the options and open the files that they name."""
    if options.outputs.video is not None:
        from runtime.observe.pictures import check_picture_path

        check_picture_path(options.outputs.video, "--video")
    check_paths(options)
    name = controller_name(options.controller)
    parse_endpoint(options.device.mec)
    bundle, work = open_served(options.workload.name, options.workload.bundle, options.source.data)
    costs, pilot = make_pilot(name, load_costs(bundle, options.workload.profile), options)
    bank = _trace_bank(options.emulation.uplink)
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
        plan = replace(plan, options=paced(plan.options, source.fps))
        pictures = Ahead(source.prepare)  # while the networks are imported and run for the first time
        stack.callback(pictures.abandon)
        import runtime.device.daemon  # noqa: F401 - an import under our handlers would delay a stop
        from runtime.device.local_compute import LocalCompute

        stop = stack.enter_context(stop_on_signal())  # until here a signal simply ends the process
        compute = LocalCompute(plan.bundle, plan.work, source=source)
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
        if self.plan.options.outputs.video:
            self.seen.append(outcome)


def _start(ready: _Ready, stack: ExitStack, log: Log) -> _Run:
    """Connect the device and open the journal."""
    from runtime.device.daemon import open_device
    from runtime.device.device import Limits

    plan, source, options = ready.plan, ready.source, ready.plan.options
    unit = open_device(
        options.device.mec,
        ready.compute,
        plan.costs,
        device_scenario(options),
        options.objective.utility(),
        plan.bank,
        Limits(options.limits.queue_limit, options.limits.max_in_flight),
        closed_loop=options.source.fps == 0,
        feed=source.feed,
        log=log,
    )
    stack.callback(unit.close)
    journal = OutcomeLog(options.outputs.outcomes, log) if options.outputs.outcomes else None
    if journal:
        stack.callback(journal.close)
        ready.stop.reopen_with(journal.reopen)
    ready.stop.then(unit.stop)
    summary = RunSummary(_stream(plan.work, options), _interval_s(source, options))
    return _Run(plan, source, unit, journal, ready.stop, summary)


def _serve(run: _Run, log: Log) -> None:
    """Answer frames until the source ends or a stop is asked for."""
    from runtime.device.daemon import drive

    with progress(frames_ahead(run.plan.options), log) as advance:
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
            f"{run.plan.bundle.workload}: {run.plan.pilot.name}, {options.device.mec}",
            options.outputs.json,
            run.plan.controller,
            run.unit.counts.as_json(),
            options.device.mec,
            run.plan.provenance,
            run.source.notes(),
            quiet=options.outputs.quiet,
            stdout_taken=options.outputs.outcomes == STDOUT,
        )
    finally:
        if options.outputs.video:
            from runtime.observe.pictures import write_pictures

            write_pictures(
                options.outputs.video, run.seen, run.source.replay, run.plan.work.draw, device_scenario(options).fps
            )


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
    if options.device.require_mec and not counts.welcomed:
        return f"no MEC was met at {options.device.mec} during the whole run, and --require-mec was given"
    return ""


# Their parts -------------------------------------------------------------------------------------------------


def _stream(work: Workload, options: Config) -> Stream | None:
    """What judges streaming accuracy: for a workload of consecutive frames that are captured by the clock."""
    score = stream_score(work)
    return None if score is None or options.source.fps == 0 else Stream(1.0 / device_scenario(options).fps, score)


def _interval_s(source: Source, options: Config) -> float | None:
    """Time between captures, where it is known beforehand."""
    return 1.0 / options.source.fps if source.feed is None and options.source.fps else None


def _trace_bank(path: Path | None) -> TraceBank | None:
    if path is None:
        return None
    from runtime.files.traces import load_traces

    return load_traces([path])


def _source(plan: _Plan, log: Log) -> Source:
    from runtime.sources.samples import Samples, open_source

    options, work = plan.options, plan.work
    if options.source.input is not None:
        return open_source(
            options.source.input,
            plan.bundle.frame_shape,
            options.source.start or 0,
            keep=options.outputs.video is not None,
            retry_s=options.source.retry_s,
            own_times=options.source.fps_from is not None,
            log=log,
        )
    split: Split = "test" if options.source.start is None else "all"
    first, count = options.source.start or 0, work.sample_count(split)
    if first >= count:
        raise UsageError(f"--start {first}; expected at most {count - 1}, for {work.name} has {count} samples")
    return Samples(work, split, range(first, first + (frames_ahead(options) or 1)))


def _trouble(source: Source, summary: RunSummary, options: Config, stopped: bool) -> str:
    """How the source ended before it should have, or nothing."""
    if source.failure:
        return source.failure
    missing = summary.frames < (options.source.frames or 1)
    if options.source.input is None or stopped or not missing:
        return ""
    asked = (
        f"{options.source.frames} were asked for with --frames" if options.source.frames else "expected at least one"
    )
    return f"source {source.name} ended after {summary.frames} frames; {asked}"
