"""Who decides the frames of ``mecpilot device``? The controller that its options name, and the decisions it has."""

from __future__ import annotations

import json
from pathlib import Path

from controller.controllers.base import Controller
from controller.controllers.registry import CONTROLLER_NAMES, make_controller
from controller.controllers.simple import FixedRow
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.records import Decision
from controller.utility import Utility
from runtime.bundles.bundle import Bundle
from runtime.cli.device_options import DeviceOptions
from runtime.files.policy_file import load_policy, shipped_policy, used_policy
from runtime.files.provenance import Provenance
from runtime.files.tuning_file import load_tunings, tuning_of, used_tuning
from runtime.profiling.profile import candidates, used_profile
from runtime.workloads.registry import get_workload


def controller_name(controller: str | None, policy: Path | None, decision: str | None) -> str:
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


def make_pilot(name: str, table: CostTable, utility: Utility, options: DeviceOptions) -> tuple[CostTable, Controller]:
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


def rows_in_use(costs: CostTable, pilot: Controller) -> list[int]:
    """What may have to be computed here: for a pinned decision that one and the local answers, else everything."""
    if isinstance(pilot, FixedRow):
        return [pilot.row, *(int(row) for row in costs.local_frontier)]
    return list(range(len(costs)))


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


def provenance_of(bundle: Bundle, name: str, options: DeviceOptions) -> Provenance:
    """What this run rests on: only what its controller uses."""
    policy = options.policy or shipped_policy(options.workload)
    return Provenance(
        bundle.workload,
        bundle.digest,
        used_profile(bundle, options.profile),
        (used_policy(policy),) if name == "ppo" and policy else (),
        None if name in ("ppo", "pinned") else used_tuning(options.workload, options.tuning),
    )
