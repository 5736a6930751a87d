"""What do ``mecpilot mec`` and ``mecpilot device`` do? Options in, a running process, an exit code out."""

from __future__ import annotations

import gc
import json
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing
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
from runtime.bundle import Bundle, open_bundle
from runtime.console import log_as, print_summary, progress, stop_on_signal
from runtime.device_options import DEFAULT_ENDPOINT, BundleDir, DeviceOptions, ProfileFile, WorkloadName, takes
from runtime.outcome_log import OutcomeLog
from runtime.policy_file import load_policy, shipped_policy
from runtime.processes import say_ready
from runtime.profile import candidates, load_costs
from runtime.summary import RunSummary
from runtime.tuning_file import load_tunings, tuning_of
from runtime.workloads.base import WORKLOADS, Workload, get_workload, stream_score

if TYPE_CHECKING:
    from runtime.sources import Source


def mec(
    bind: Annotated[str, typer.Option(help="tcp://HOST:PORT; port * lets the system choose.")] = DEFAULT_ENDPOINT,
    workload: WorkloadName = WORKLOADS[0],
    bundle: BundleDir = None,
    profile: ProfileFile = None,
    slowdown: Annotated[float, typer.Option(min=1.0, help="Emulate a MEC this many times slower.")] = 1.0,
    queue_limit: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are rejected.")] = 64,
    ready_file: Annotated[Path | None, typer.Option(help="Write the endpoint here once bound.")] = None,
) -> int:
    """Serve tail segments until SIGTERM or Ctrl-C."""
    from runtime.mec import MecServer
    from runtime.mec_session import MecSession
    from runtime.segments import Segments
    from runtime.transport import Router

    log = log_as("mec")
    served, work = _open(workload, bundle, None)
    costs = load_costs(served, profile)
    with stop_on_signal() as stop, closing(Router(bind)) as router:
        segments = Segments(served, work)
        _settle()
        warm_up_tails(segments)
        gc.freeze()
        session = MecSession(uuid.uuid4().hex, served.digest, slowdown)
        server = MecServer(router, session, segments, costs, slowdown=slowdown, queue_limit=queue_limit, log=log)
        log(f"ready at {router.endpoint}, bundle {served.digest[:12]}, slowdown {slowdown:g}")
        say_ready(ready_file, router.endpoint)
        server.serve(stop.asked)
    counts = server.counts
    log(
        f"served {counts.served}, rejected {counts.rejected}, failed {counts.failed}, "
        f"messages that were none {counts.peer_faults}"
    )
    return 0


@takes(DeviceOptions)
def device(options: DeviceOptions) -> int:
    """Answer frames, deciding each one."""
    from runtime.daemon import drive, open_device
    from runtime.local_compute import LocalCompute

    name, log = _checked(options), log_as("device")
    held, work = _open(options.workload, options.bundle, options.data)
    utility = Utility()
    costs, pilot = _pilot(name, load_costs(held, options.profile), utility, options)
    bank = _trace_bank(options.uplink)
    with ExitStack() as stack:
        source = stack.enter_context(closing(_source(options, held, work)))
        compute = LocalCompute(held, work, source=source)
        stop = stack.enter_context(stop_on_signal())
        journal = OutcomeLog(options.outcomes, log) if options.outcomes else None
        if journal:
            stack.callback(journal.close)
        _settle()
        compute.warm_up(tuple(costs.space.decisions[row] for row in _rows_in_use(costs, pilot)))
        gc.freeze()
        loop: dict[str, Any] = {"closed_loop": options.fps == 0, "feed": source.feed, "log": log}
        unit = open_device(options.mec, compute, costs, options.scenario(), utility, bank, **loop)
        stack.callback(unit.close)
        stop.then(unit.stop)
        summary, seen = RunSummary(_stream(work, options)), list[Outcome]()
        advance = stack.enter_context(progress(options.frames_ahead))
        for outcome in drive(unit, pilot, log):
            summary.add(outcome)
            if journal:
                journal.write(outcome)
            source.release(outcome.source_index)
            if options.video:
                seen.append(outcome)
            advance(outcome)
        unit.close()
        title = f"{held.workload}: {pilot.name}, {options.mec}"
        print_summary(summary, title, options.json_out, name, unit.counts.__dict__)
        if options.video:
            _write_pictures(options.video, seen, source, work, options.scenario().fps)
    return _exit_code(journal, unit.counts.refused, _trouble(source, summary, options, stop.asked()), log)


def _stream(work: Workload, options: DeviceOptions) -> Stream | None:
    """What judges streaming accuracy: for a workload of consecutive frames that are captured by the clock."""
    score = stream_score(work)
    return None if score is None or options.fps == 0 else Stream(1.0 / options.scenario().fps, score)


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
        frozen, _ = load_policy(path)
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


def warm_up_tails(segments: Any) -> None:
    """Run every tail once on an empty image: the first run of a shape is many times as slow as the next."""
    import numpy as np

    bundle = segments.bundle
    for decision in bundle.space.decisions:
        image = np.zeros(bundle.payload_shape(decision.model, decision.resolution_px, 0), np.uint8)
        segments.whole(image, decision)


def _source(options: DeviceOptions, bundle: Bundle, work: Workload) -> Source:
    from runtime.sources import Samples, open_source

    if options.source is None:
        first = options.start or 0
        played = range(first, first + (options.frames_ahead or 1))
        return Samples(work, "test" if options.start is None else "all", played)
    return open_source(options.source, bundle.frame_shape, options.start or 0, keep=options.video is not None)


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


def _exit_code(journal: OutcomeLog | None, refused: str, trouble: str, log: Callable[[str], None]) -> int:
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
    return 0
