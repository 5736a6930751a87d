"""The controller of ``mecpilot device`` that its configuration names, and the decisions it may choose from."""

from __future__ import annotations

import json

from controller.controllers.base import Controller
from controller.controllers.registry import CONTROLLER_NAMES, make_controller
from controller.controllers.simple import FixedRow
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.records import Decision
from runtime.bundles.bundle import Bundle
from runtime.config.privacy import allowed
from runtime.config.tree import Config, ControllerSection
from runtime.files.policy_file import load_policy, shipped_policy, used_policy
from runtime.files.provenance import Provenance
from runtime.files.tuning_file import load_tunings, tuning_of, used_tuning
from runtime.profiling.profile import candidates, used_profile
from runtime.workloads.base import get_workload

#: They only ever send whole images.
_RAW_UPLOADERS = ("mec-only", "jpeg-offload")


def controller_name(controller: ControllerSection) -> str:
    """The controller as the user calls it, "pinned" for one fixed decision; UsageError when a device cannot have it."""
    if controller.decision is not None:
        return "pinned"
    name = controller.name or "ppo"
    if name not in CONTROLLER_NAMES:
        raise unknown_name("controller", name, CONTROLLER_NAMES)
    if name == "hindsight":
        raise UsageError("controller hindsight knows the future, which only the twin has; choose another one")
    return name


def make_pilot(name: str, table: CostTable, config: Config) -> tuple[CostTable, Controller]:
    """The decisions to choose from, and who chooses. ``table`` has every decision of the bundle."""
    workload, chosen = config.workload.name, config.controller
    permitted = allowed(table, config.privacy)
    tunings = load_tunings(workload, chosen.tuning)
    if chosen.decision is not None:
        return permitted, FixedRow("pinned", pinned_row(permitted, chosen.decision, table))
    if config.privacy.no_raw_upload and name in _RAW_UPLOADERS:
        raise UsageError(f"controller {name} only sends images, which --no-raw-upload forbids; choose another one")
    frozen = None
    if name == "ppo" and (path := chosen.policy or shipped_policy(workload)):
        frozen, _ = load_policy(path, workload)
    costs = candidates(permitted, get_workload(workload).scenario_range())
    tuning = tuning_of(name, tunings, costs)
    return costs, make_controller(name, costs, config.objective.utility(), tuning, config.device.seed, frozen)


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


def pinned_row(costs: CostTable, decision: str, everything: CostTable | None = None) -> int:
    """Row of the decision that a JSON object names, as far as it names it.

    ``everything`` is the table before the privacy section took rows away; UsageError when the decision is one of those.
    """
    try:
        wanted = json.loads(decision)
    except json.JSONDecodeError as error:
        raise UsageError(f"--decision {decision!r} is not JSON ({error.msg}); expected an object") from None
    if not isinstance(wanted, dict):
        raise UsageError(f'--decision {decision!r}; expected a JSON object such as {{"partition_point": 2}}')
    everything = everything or costs
    default = default_decision(everything)
    try:
        return costs.space.pin(wanted, default)
    except UsageError:
        everything.space.pin(wanted, default)  # raises the same for what no table has
    raise UsageError(
        f"--decision {decision} sends the image, which --no-raw-upload forbids; expected a partition_point of 1 or more"
    )


def provenance_of(bundle: Bundle, name: str, config: Config) -> Provenance:
    """What this run rests on: only what its controller uses."""
    workload, controller = config.workload.name, config.controller
    policy = controller.policy or shipped_policy(workload)
    return Provenance(
        bundle.workload,
        bundle.digest,
        used_profile(bundle, config.workload.profile),
        (used_policy(policy),) if name == "ppo" and policy else (),
        None if name in ("ppo", "pinned") else used_tuning(workload, controller.tuning),
    )
