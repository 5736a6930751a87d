"""The command ``mecpilot device``: options in, a running device, a summary and an exit code out.

Four steps. What the options name is opened and checked; the device is made ready; it serves; it reports. Nothing is
written before everything that can be refused has been.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.errors import UsageError
from controller.records import Outcome
from controller.streaming import Stream
from runtime.cli.console import log_as, print_summary, progress
from runtime.cli.device_options import DeviceOptions, takes
from runtime.cli.signals import Stop, keep_through_hang_up, stop_on_signal
from runtime.cli.startup import no_collecting, settle
from runtime.device.device import Device
from runtime.device.run import Run
from runtime.files.atomic import STDOUT
from runtime.files.provenance import Provenance
from runtime.observe.record_log import OUTCOMES, RecordLog
from runtime.observe.sinks import Sink, Sinks
from runtime.observe.summary import RunSummary
from runtime.workloads.base import stream_score

Log = Callable[[str], None]


@takes(DeviceOptions)
def device(options: DeviceOptions) -> int:
    """Answer frames, deciding each one. SIGTERM and Ctrl-C end it orderly, with the summary; so does SIGHUP without
    --outcomes, with it SIGHUP reopens that file."""
    log = log_as("device")
    plan = _plan(options, log)
    if options.outcomes:
        keep_through_hang_up()
    with ExitStack() as stack:
        run, stop = _get_ready(plan, stack)
        if stop.asked():
            log("stopped before the first frame")
            return 0
        service = _start(plan, run, stop, stack, log)
        _serve(service, log)
        _report(service)
    return _exit_code(service, log)


# The steps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What the options come to. Nothing is started or written yet."""

    options: DeviceOptions
    device: Device
    provenance: Provenance


def _plan(options: DeviceOptions, log: Log) -> _Plan:
    """Check the options and open the files that they name."""
    if options.video is not None:
        from runtime.observe.pictures import check_picture_path

        check_picture_path(options.video, "--video")
    options.check()
    device = Device(
        options.bundle or options.workload,
        options.controller,
        options.mec,
        workload=options.workload,
        policy=options.policy,
        tuning=options.tuning,
        decision=_decision(options.decision),
        profile=options.profile,
        data=options.data,
        fps=options.fps,
        deadline_s=options.deadline_ms / 1e3,
        slowdown=options.slowdown,
        device_load_frac=options.device_load,
        uplink=options.uplink,
        uplink_share_frac=options.uplink_share,
        uplink_start_s=options.uplink_start_s,
        rtt_s=options.rtt_ms / 1e3,
        seed=options.seed,
        log=log,
    )
    return _Plan(options, device, device.provenance())


def _get_ready(plan: _Plan, stack: ExitStack) -> tuple[Run, Stop]:
    """Open the source, import the networks and run them for the first time. A stop ends this early."""
    options = plan.options
    with no_collecting():
        run = plan.device.prepare(
            options.source,
            frames=options.frames,
            start=options.start,
            retry_s=options.source_retry,
            own_times=options.source_fps is not None,
            keep=options.video is not None,
        )
        stack.enter_context(closing(run))
        stop = stack.enter_context(stop_on_signal())  # until here a signal simply ends the process
        settle()
        run.warm_up(stop.asked)
    return run, stop


@dataclass(frozen=True)
class _Service:
    """A device that serves, and the sinks of its outcomes."""

    plan: _Plan
    run: Run
    summary: RunSummary
    outcome_log: RecordLog[Outcome] | None
    sinks: Sinks[Outcome]


def _start(plan: _Plan, run: Run, stop: Stop, stack: ExitStack, log: Log) -> _Service:
    """Connect the device and open the sinks: nothing is refused any more."""
    run.connect()
    summary = RunSummary(_stream(plan, run), run.capture_period_s)
    sinks: list[Sink[Outcome]] = [summary]
    outcome_log = _outcome_log(plan.options.outcomes, run, log)
    if outcome_log:
        stack.callback(outcome_log.close)
        stop.reopen_with(outcome_log.reopen)
        sinks.append(outcome_log)
    if plan.options.video:
        sinks.append(_pictures(plan.options.video, plan, run))
    stop.then(run.stop)
    return _Service(plan, run, summary, outcome_log, Sinks(sinks, log))


def _serve(service: _Service, log: Log) -> None:
    """Answer frames until the source ends or a stop is asked for."""
    with progress(service.run.frames, log) as advance:
        for outcome in service.run:
            service.sinks.add(outcome)
            advance(outcome)
    if service.outcome_log:
        service.outcome_log.close()


def _report(service: _Service) -> None:
    """Print and write what the user asked for; nothing when the source's failure is all that there is to say."""
    options, device, run = service.plan.options, service.plan.device, service.run
    if run.source.failure and not service.summary.frames:
        return
    try:
        print_summary(
            service.summary,
            f"{device.bundle.workload}: {device.controller_name}, {options.mec}",
            options.json_out,
            device.controller_name,
            run.counts.as_json(),
            options.mec,
            service.plan.provenance,
            run.source.notes(),
            quiet=options.quiet,
            stdout_taken=options.outcomes == STDOUT,
        )
    finally:
        service.sinks.close()


def _exit_code(service: _Service, log: Log) -> int:
    """Frames were answered whatever happened; what else failed is said here."""
    failure = _failure(service)
    if failure:
        log(failure)
    return 1 if failure else 0


def _failure(service: _Service) -> str:
    """The first thing that failed, or nothing."""
    options, counts = service.plan.options, service.run.counts
    if shortfall := service.run.shortfall(service.summary.frames):
        return shortfall
    if service.outcome_log and service.outcome_log.lost:
        return f"{service.outcome_log.lost} outcomes could not be written"
    if service.sinks.failures:
        return service.sinks.failures[0]
    if counts.refused:
        return f"the MEC did not serve this device: {counts.refused}"
    if options.require_mec and not counts.welcomed:
        return f"no MEC was met at {options.mec} during the whole run, and --require-mec was given"
    return ""


# Their parts -------------------------------------------------------------------------------------------------


def _decision(text: str | None) -> dict[str, Any] | None:
    """The fields that --decision names."""
    if text is None:
        return None
    try:
        wanted = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"--decision {text!r} is not JSON ({error.msg}); expected an object") from None
    if not isinstance(wanted, dict):
        raise UsageError(f'--decision {text!r}; expected a JSON object such as {{"partition_point": 2}}')
    return wanted


def _outcome_log(target: str | None, run: Run, log: Log) -> RecordLog[Outcome] | None:
    return RecordLog(target, OUTCOMES, log, when_ended=run.stop) if target else None


def _pictures(path: Path, plan: _Plan, run: Run) -> Sink[Outcome]:
    from runtime.observe.pictures import PicturesSink

    return PicturesSink(path, run.source.replay, plan.device.workload.draw, run.scenario.fps, run.on_frame)


def _stream(plan: _Plan, run: Run) -> Stream | None:
    """What judges streaming accuracy: for a workload of consecutive frames that are captured by the clock."""
    score = stream_score(plan.device.workload)
    return None if score is None or run.is_closed_loop else Stream(1.0 / run.scenario.fps, score)
