"""What does ``mecpilot device`` do? Options in, a running device, a summary and an exit code out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.errors import UsageError
from controller.records import Outcome
from controller.streaming import Stream
from controller.uplink import TraceBank
from controller.utility import Utility
from runtime.atomic import STDOUT
from runtime.bundle import Bundle, open_served
from runtime.console import log_as, print_summary, progress
from runtime.device_options import DeviceOptions, takes
from runtime.endpoint import parse_endpoint
from runtime.outcome_log import OutcomeLog
from runtime.pilots import controller_name, make_pilot, provenance_of, rows_in_use
from runtime.profile import load_costs
from runtime.signals import stop_on_signal
from runtime.summary import RunSummary
from runtime.workloads.base import Workload, stream_score

if TYPE_CHECKING:
    from runtime.sources import Source


@takes(DeviceOptions)
def device(options: DeviceOptions) -> int:
    """Answer frames, deciding each one. SIGTERM and Ctrl-C end it orderly, with the summary; so does SIGHUP without
    --outcomes, with it SIGHUP reopens that file."""
    from runtime.background import Ahead

    name, log = _checked(options), log_as("device")
    parse_endpoint(options.mec)
    held, work = open_served(options.workload, options.bundle, options.data)
    utility = Utility()
    costs, pilot = make_pilot(name, load_costs(held, options.profile), utility, options)
    bank, provenance = _trace_bank(options.uplink), provenance_of(held, name, options)
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
        compute.warm_up([costs.space.decisions[row] for row in rows_in_use(costs, pilot)], stop.asked)
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


def _checked(options: DeviceOptions) -> str:
    """Name of the controller, once nothing is left to complain about."""
    if options.video is not None:
        from runtime.pictures import check_picture_path

        check_picture_path(options.video, "--video")
    options.check()
    return controller_name(options.controller, options.policy, options.decision)


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
