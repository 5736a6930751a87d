"""What do ``mecpilot mec`` and ``mecpilot device`` do? Options in, a running process, an exit code out."""

from __future__ import annotations

import gc
import json
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.base import Controller
from controller.classical import FixedRow
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.guard import Guard
from controller.records import Decision
from controller.registry import CONTROLLER_NAMES, make_controller
from controller.scenario import Scenario
from controller.uplink import TraceBank
from controller.utility import Utility
from runtime.bundle import Bundle, open_bundle
from runtime.console import log_as, print_summary, progress, stop_on_signal
from runtime.outcome_log import OutcomeLog
from runtime.processes import say_ready
from runtime.profile import candidates, load_costs
from runtime.summary import RunSummary
from runtime.tuning_file import Tunings, load_tunings, tuning_of
from runtime.workloads.base import WORKLOADS, Workload, get_workload

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5577"

WorkloadName = Annotated[str, typer.Option("--workload", help=f"One of: {', '.join(WORKLOADS)}.")]
BundleDir = Annotated[Path | None, typer.Option("--bundle", help="Directory of a bundle; default: the shipped one.")]
ProfileFile = Annotated[
    Path | None, typer.Option("--profile", help="Profile file; default: this machine's, else shipped.")
]


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


def device(
    mec: Annotated[str, typer.Option("--mec", help="Endpoint of the MEC.")] = DEFAULT_ENDPOINT,
    workload: WorkloadName = WORKLOADS[0],
    controller: Annotated[
        str | None, typer.Option(help="Who decides; default: ppo with --policy, else edgent.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file, for ppo.")] = None,
    tuning: Annotated[Path | None, typer.Option(help="File of `mecpilot tune`; default: the shipped one.")] = None,
    decision: Annotated[
        str | None, typer.Option(help="Pin one decision, e.g. '{\"partition_point\": 2}'; fields not named default.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many frames to capture.")] = 300,
    fps: Annotated[float, typer.Option(min=0.0, help="Frames per second; 0: as fast as they are answered.")] = 10.0,
    deadline_ms: Annotated[float, typer.Option(min=0.001, help="From capture to answer.")] = 100.0,
    slowdown: Annotated[float, typer.Option(min=1.0, help="Emulate a device this many times slower.")] = 1.0,
    device_load: Annotated[float, typer.Option(min=0.0, max=0.95, help="Mean share taken by other tasks.")] = 0.0,
    uplink: Annotated[Path | None, typer.Option(help="Trace that shapes the uplink; default: not shaped.")] = None,
    uplink_share: Annotated[float, typer.Option(min=1e-6, max=1.0, help="Share of the trace's bandwidth.")] = 1.0,
    uplink_start_s: Annotated[float, typer.Option(min=0.0, help="Where in the trace to begin.")] = 0.0,
    rtt_ms: Annotated[float, typer.Option(min=0.0, help="Round trip of the shaped link.")] = 10.0,
    start: Annotated[int, typer.Option(min=0, help="First sample: test image or video frame.")] = 0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    outcomes: Annotated[Path | None, typer.Option(help="JSONL file, one line per frame.")] = None,
    json_out: Annotated[str | None, typer.Option("--json", help="Summary as JSON: a file, or - for stdout.")] = None,
    bundle: BundleDir = None,
    profile: ProfileFile = None,
    data: Annotated[Path | None, typer.Option(help="Directory with the workload's data.")] = None,
) -> int:
    """Answer frames, deciding each one."""
    from runtime.daemon import drive, open_device
    from runtime.local_compute import LocalCompute

    name = _controller_name(controller, policy, decision)
    log = log_as("device")
    held, work = _open(workload, bundle, data)
    utility = Utility()
    table = load_costs(held, profile)
    costs, pilot = _pilot(name, table, utility, policy, decision, load_tunings(workload, tuning), seed)
    scenario = Scenario(
        fps=fps or 1e3 / deadline_ms,
        deadline_s=deadline_ms / 1e3,
        device_slowdown=slowdown,
        device_load_frac=device_load,
        rtt_s=rtt_ms / 1e3,
        trace_start_s=uplink_start_s,
        uplink_share_frac=uplink_share,
        frames=frames,
        first_sample=start,
        seed=seed,
    )
    bank = _trace_bank(uplink)
    compute = LocalCompute(held, work)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signal())
        journal = OutcomeLog(outcomes, log) if outcomes else None
        if journal:
            stack.callback(journal.close)
        _settle()
        compute.warm_up(tuple(costs.space.decisions[row] for row in _rows_in_use(costs, pilot)))
        gc.freeze()
        unit = open_device(mec, compute, costs, scenario, utility, bank, closed_loop=fps == 0, log=log)
        stack.callback(unit.close)
        stop.then(unit.stop)
        summary = RunSummary()
        advance = stack.enter_context(progress(frames))
        for outcome in drive(unit, pilot, costs, log):
            summary.add(outcome)
            if journal:
                journal.write(outcome)
            advance(outcome)
    print_summary(summary, f"{held.workload}: {pilot.name}, {mec}", json_out, name, unit.counts.__dict__)
    return _exit_code(journal, unit.counts.refused, log)


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


def _controller_name(controller: str | None, policy: Path | None, decision: str | None) -> str:
    if decision is not None:
        if controller is not None:
            raise UsageError(f"got --decision and --controller {controller}; expected one of them")
        return "pinned"
    name = controller or ("ppo" if policy else "edgent")
    if name not in CONTROLLER_NAMES:
        raise unknown_name("controller", name, CONTROLLER_NAMES)
    if name == "hindsight":
        raise UsageError("controller hindsight knows the future, which only the twin has; choose another one")
    if policy is not None and name != "ppo":
        raise UsageError(f"got --policy and --controller {name}; expected --controller ppo")
    return name


def _pilot(
    name: str,
    table: CostTable,
    utility: Utility,
    policy: Path | None,
    decision: str | None,
    tunings: Tunings,
    seed: int,
) -> tuple[CostTable, Controller]:
    """The decisions to choose from, and who chooses."""
    if decision is not None:
        return table, FixedRow("pinned", pinned_row(table, decision))
    frozen = None
    if policy is not None:
        from runtime.policy_file import load_policy

        frozen, _ = load_policy(policy)
    costs = candidates(table)
    tuning = tuning_of(name, tunings, costs)
    return costs, Guard(make_controller(name, costs, utility, tuning, seed, frozen), costs)


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


def _exit_code(journal: OutcomeLog | None, refused: str, log: Callable[[str], None]) -> int:
    """Frames were answered whatever happened; what else failed is told here."""
    if journal and journal.lost:
        log(f"{journal.lost} outcomes could not be written")
        return 1
    if refused:
        log(f"the MEC did not serve this device: {refused}")
        return 1
    return 0
