"""The command ``mecpilot device``: a configuration in, a running device, a summary and an exit code out.

Four steps. What the configuration names is opened and checked; the device is made ready; it serves; it reports.
Nothing is written before everything that can be refused has been.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.errors import UsageError
from controller.records import Outcome
from controller.streaming import Stream
from runtime.bundles.bundle import Bundle, open_pair
from runtime.cli.console import counted, log_as, print_summary, progress
from runtime.cli.device_checks import check_paths, check_shadow
from runtime.cli.notify import Notifier
from runtime.cli.signals import Stop, kept_through_hang_up, stop_on_signal
from runtime.cli.startup import no_collecting, settle
from runtime.config.flags import takes
from runtime.config.tree import DEVICE_SECTIONS, Config
from runtime.decoders.given import give_all
from runtime.device.device import Device
from runtime.device.reloading import Reloading
from runtime.device.run import Run
from runtime.files.atomic import STDOUT
from runtime.files.provenance import Provenance
from runtime.link.agreement import bundle_in_common
from runtime.link.mecs.address import addresses_of
from runtime.observe.pinned import PinnedCount
from runtime.observe.record_log import OUTCOMES, RecordLog
from runtime.observe.sinks import Sink, Sinks
from runtime.observe.summary import RunSummary
from runtime.security.resolve import with_keys
from runtime.traces.formats import TRACE_HELP
from runtime.workloads.base import stream_score

Log = Callable[[str], None]

#: The longest that a service manager shall wait for the pictures of a run.
_PICTURES_S = 1800.0


@takes(*DEVICE_SECTIONS, notes={"--uplink": TRACE_HELP})
def device(config: Config) -> int:
    """Answer frames, deciding each one. SIGTERM and Ctrl-C stop it cleanly, with the summary; so does SIGHUP when a
    terminal closes. Otherwise SIGHUP reloads: it reopens --outcomes, and reads --policy and --tuning anew."""
    log, notifier = log_as("device"), Notifier.of(os.environ)
    plan = _plan(config, log)
    if (idle := _idle_filter(plan)) is not None:
        log(idle)
    with kept_through_hang_up(_has_files(config)), ExitStack() as stack:
        run, stop = _get_ready(plan, stack, notifier, log)
        if stop.asked():
            log("stopped before the first frame")
            return 0
        service = _start(plan, run, stop, stack, log)
        run.watch(notifier.alive)
        log(f"ready: {plan.device.controller_name}, MEC at {plan.device.mec}")
        notifier.ready("answering frames")
        _serve(service, log, notifier)
        notifier.stopping(_PICTURES_S if config.outputs.video else 0.0)
        _report(service)
        if service.pinned and service.pinned.text:
            log(service.pinned.text)
    return _exit_code(service, log)


# The steps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What the configuration comes to. Nothing is started or written yet."""

    config: Config
    device: Device
    provenance: Provenance


def _plan(config: Config, log: Log) -> _Plan:
    """Check the configuration and open the files that it names."""
    if config.outputs.video is not None:
        from runtime.observe.pictures import check_picture_path

        check_picture_path(config.outputs.video, "--video")
    check_paths(config)
    check_shadow(None if config.controller.shadow is None else str(config.controller.shadow))
    device = _device(config, log)
    return _Plan(config, device, device.provenance())


def _idle_filter(plan: _Plan) -> str | None:
    """One line where there is a filter that will find nothing."""
    config, workload = plan.config, plan.device.workload
    if not config.filter.is_on or config.source.input is not None or stream_score(workload) is not None:
        return None
    return (
        f"--filter {config.filter.mode}: the samples of {workload.name} are no stream, so none shows what one before "
        "showed, and all are run; give a stream with --source"
    )


def _device(config: Config, log: Log) -> Device:
    workload, controller = config.workload, config.controller
    give_all(workload.decode, workload.scorer)
    bundle, profile = _bundle(config, log)
    return Device(
        bundle,
        controller.name,
        config.device.mec,
        workload=workload.name,
        policy=controller.policy,
        tuning=controller.tuning,
        decision=_decision(controller.decision),
        guard=controller.guard,
        guard_controller=controller.guard_controller,
        shadow=controller.shadow,
        profile=profile,
        data=config.source.data,
        fps=config.source.fps,
        deadline_s=config.device.deadline_ms / 1e3,
        seed=config.device.seed,
        gate=config.device.gate,
        utility=config.objective.utility(),
        no_raw_upload=config.privacy.no_raw_upload,
        breaker=config.device.breaker,
        forecast=config.device.forecast,
        roi=config.device.crops,
        engine=config.device.engine,
        filter=config.filter,
        cache=config.cache,
        limits=config.limits,
        emulation=config.emulation,
        security=config.security,
        log=log,
    )


def _bundle(config: Config, log: Log) -> tuple[Bundle | Path | None, Path | None]:
    """The bundle to use and its profile: with --also-bundle, the one that the MEC serves."""
    workload, other = config.workload, config.device.also_bundle
    if other is None:
        return workload.bundle, workload.profile
    own, also = (open_pair(folder, workload.name)[0] for folder in (workload.bundle, other))
    mecs = with_keys(addresses_of(config.device.mec), config.security, log)
    common = bundle_in_common(mecs, [own.held, also.held])
    if common == 1:
        log(f"the MEC serves bundle {also.digest[:12]} of --also-bundle, not {own.digest[:12]}: using that one")
        return also, None  # --profile is that of the other
    if common is None:
        log(f"no MEC serves either bundle, or none answers yet: using {own.digest[:12]}")
    return own, workload.profile


def _get_ready(plan: _Plan, stack: ExitStack, notifier: Notifier, log: Log) -> tuple[Run, Stop]:
    """Open the source, import the networks and run them for the first time. A stop ends this early."""
    source = plan.config.source
    with no_collecting():
        run = plan.device.prepare(
            source.input,
            frames=source.frames,
            start=source.start,
            retry_s=source.retry_s,
            own_times=source.fps_from is not None,
            window=source.window,
            keep=plan.config.outputs.video is not None,
        )
        stack.enter_context(closing(run))
        stop = stack.enter_context(stop_on_signal(notifier))  # until here a signal simply ends the process
        settle()
        log(f"warming up: {plan.device.bundle.workload}")
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
    pinned: PinnedCount | None


def _start(plan: _Plan, run: Run, stop: Stop, stack: ExitStack, log: Log) -> _Service:
    """Connect the device and open the sinks: nothing is refused any more."""
    run.connect()
    summary = RunSummary(_stream(plan, run), run.capture_period_s)
    sinks: list[Sink[Outcome]] = [summary]
    outcome_log = _outcome_log(plan.config.outputs.outcomes, run, log)
    pinned = None if run.pinned is None else PinnedCount(run.pinned)
    if pinned:
        sinks.append(pinned)
    if outcome_log:
        stack.callback(outcome_log.close)
        stop.on_reload(outcome_log.reopen)
        sinks.append(outcome_log)
    if plan.config.outputs.video:
        sinks.append(_pictures(plan.config.outputs.video, plan, run))
    if _has_files(plan.config) and plan.device.is_reloadable:
        reloading = Reloading(plan.device.reload, log)
        stack.callback(reloading.close)
        stop.on_reload(reloading.ask)
    stop.then(run.stop)
    return _Service(plan, run, summary, outcome_log, Sinks(sinks, log), pinned)


def _serve(service: _Service, log: Log, notifier: Notifier) -> None:
    """Answer frames until the source ends or a stop is asked for."""

    def log_status(text: str) -> None:
        log(text)
        notifier.status(text)

    with progress(service.run.frames, log_status) as advance:
        for outcome in service.run:
            service.sinks.add(outcome)
            advance(outcome)
    if service.outcome_log:
        service.outcome_log.close()


def _report(service: _Service) -> None:
    """Print and write what the user asked for; nothing when the source's failure is all that there is to say."""
    outputs, device, run = service.plan.config.outputs, service.plan.device, service.run
    if run.source.failure and not service.summary.frames:
        return
    try:
        print_summary(
            service.summary,
            f"{device.bundle.workload}: {device.controller_name}, {device.mec}",
            outputs.json,
            device.controller_name,
            run.counts.as_json(),
            device.mec,
            device.reloaded or service.plan.provenance,
            run.source.notes(),
            run.shortcut_notes,
            run.oversight,
            quiet=outputs.quiet,
            stdout_taken=outputs.outcomes == STDOUT,
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
    device, counts = service.plan.config.device, service.run.counts
    if shortfall := service.run.shortfall(service.summary.frames):
        return shortfall
    if service.outcome_log and service.outcome_log.lost:
        return f"{counted(service.outcome_log.lost, 'outcome')} could not be written"
    if service.sinks.failures:
        return service.sinks.failures[0]
    if counts.refused:
        return f"the MEC did not serve this device: {counts.refused}"
    if device.require_mec and not counts.welcomed:
        return f"no MEC was met at {service.plan.device.mec} during the whole run, and --require-mec was given"
    return ""


# Their parts -------------------------------------------------------------------------------------------------


def _has_files(config: Config) -> bool:
    """Whether anything is named that SIGHUP opens or reads anew."""
    return bool(config.outputs.outcomes or config.controller.policy or config.controller.tuning)


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
    workload = plan.device.workload
    score = stream_score(workload)
    forecaster = workload.forecaster() if plan.device.forecasts else None
    return None if score is None or run.is_closed_loop else Stream(1.0 / run.scenario.fps, score, forecaster)
