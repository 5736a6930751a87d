"""Who decides the frames of a device, and among which decisions: a controller by name, a pinned decision, or an
object of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from controller.controllers.base import Controller
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import CONTROLLER_NAMES, make_controller
from controller.controllers.simple import FixedRow
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.records import Bools, Decision, Ints, SystemState
from controller.utility import Utility
from runtime.bundles.bundle import Bundle
from runtime.config.privacy import allowed
from runtime.config.tree import DEFAULTS, PrivacySection
from runtime.files.policy_file import load_policy, shipped_policy, used_policy
from runtime.files.provenance import Provenance
from runtime.files.tuning_file import load_tunings, tuning_of, used_tuning
from runtime.profiling.profile import candidates, used_profile

DEFAULT_CONTROLLER = "ppo"
PINNED = "pinned"
#: Controllers that only ever send whole images.
_RAW_UPLOADERS = ("mec-only", "jpeg-offload")


class Decides(Protocol):
    """The least that an object of the user's own needs to be a controller."""

    def decide(self, state: SystemState) -> Any:
        """Row of the cost table for each state of the batch, (B,); a device asks about one state at a time."""
        ...


#: What ``Device`` takes as its controller: a name, an object that decides, or what makes one from the cost table.
ControllerLike = str | Decides | Callable[[CostTable], Decides]


@dataclass(frozen=True)
class Choice:
    """What the user said about who decides. ``decision`` names some or all fields of one decision for every frame."""

    controller: ControllerLike | None = None
    policy: Path | None = None
    tuning: Path | None = None
    decision: Mapping[str, Any] | None = None
    seed: int = 0
    privacy: PrivacySection = DEFAULTS.privacy

    @property
    def is_named(self) -> bool:
        """Whether it is one of mecpilot's own controllers, not a pinned decision or an object of the user's."""
        return self.decision is None and isinstance(self.controller, str | None)

    @property
    def name(self) -> str:
        """The controller's name as the user gave it; UsageError when it does not fit the rest."""
        if self.decision is not None:
            if self.controller is not None:
                raise UsageError(f"got --decision and --controller {_name_of(self.controller)}; expected one of them")
            return PINNED
        name = DEFAULT_CONTROLLER if self.controller is None else _name_of(self.controller)
        if self.is_named:
            _check_name(name)
        if self.policy is not None and name != DEFAULT_CONTROLLER:
            raise UsageError(f"got --policy and --controller {name}; expected --controller ppo")
        return name


@dataclass(frozen=True)
class Chosen:
    """A controller, and the decisions whose rows it returns."""

    costs: CostTable
    controller: Controller

    @property
    def decisions_in_use(self) -> list[Decision]:
        """What may have to be computed here: for a pinned decision that one and the local answers, else everything."""
        decisions = self.costs.space.decisions
        if isinstance(self.controller, FixedRow):
            return [decisions[self.controller.row], *(decisions[row] for row in self.costs.local_frontier)]
        return list(decisions)


def choose(choice: Choice, table: CostTable, bundle: Bundle, utility: Utility) -> Chosen:
    """The controller that was asked for, over the decisions of ``table`` that are allowed and can be best.

    ``table``: what every decision of the bundle costs.
    """
    name, given = choice.name, choice.controller
    tunings = load_tunings(bundle.workload, choice.tuning)
    permitted = allowed(table, choice.privacy)
    if choice.decision is not None:
        return Chosen(permitted, FixedRow(PINNED, _pinned_row(choice.decision, permitted, table)))
    if choice.privacy.no_raw_upload and name in _RAW_UPLOADERS:
        raise UsageError(f"controller {name} only sends images, which --no-raw-upload forbids; choose another one")
    costs = candidates(permitted, bundle.default_range)
    if given is not None and not isinstance(given, str):
        return Chosen(costs, OwnController(name, given, costs))
    policy = _policy(choice, bundle.workload) if name == DEFAULT_CONTROLLER else None
    tuning = tuning_of(name, tunings, costs)
    return Chosen(costs, make_controller(name, costs, utility, tuning, choice.seed, policy))


def _pinned_row(wanted: Mapping[str, Any], permitted: CostTable, everything: CostTable) -> int:
    """Row of ``permitted`` that has the wanted fields; UsageError when privacy took it away, or no table has it."""
    default = everything.default_decision
    try:
        return permitted.space.pin(dict(wanted), default)
    except UsageError as refusal:
        try:
            everything.space.pin(dict(wanted), default)
        except UsageError:
            raise refusal from None
    got = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    raise UsageError(
        f"the decision with {got} sends the image, which --no-raw-upload forbids; expected partition_point 1 or more"
    )


class OwnController:
    """A controller of the user's own, with its answers checked. Owns nothing else."""

    def __init__(self, name: str, given: Decides | Callable[[CostTable], Decides], costs: CostTable) -> None:
        self.name = name
        self._decider: Any = given if _decides(given) else given(costs)  # type: ignore[operator]
        if not _decides(self._decider):
            raise UsageError(f"controller {name}: got {type(self._decider).__name__}; expected an object with decide()")
        self._rows = len(costs)

    def reset(self, rows: Bools) -> None:
        if hasattr(self._decider, "reset"):
            self._decider.reset(rows)

    def decide(self, state: SystemState) -> Ints:
        """(B,) rows; ValueError for a row that is not in the cost table."""
        rows = np.atleast_1d(self._decider.decide(state)).astype(np.int64)
        if rows.shape != (state.batch,) or not ((rows >= 0) & (rows < self._rows)).all():
            raise ValueError(f"decide() returned {rows.tolist()}; expected {state.batch} row in [0, {self._rows - 1}]")
        return rows


def provenance_of(bundle: Bundle, choice: Choice, profile: Path | None) -> Provenance:
    """The files that a run rests on: only what its controller uses."""
    workload, is_ppo = bundle.workload, choice.is_named and choice.name == DEFAULT_CONTROLLER
    policy = choice.policy or shipped_policy(workload)
    return Provenance(
        workload,
        bundle.digest,
        used_profile(bundle, profile),
        (used_policy(policy),) if is_ppo and policy else (),
        used_tuning(workload, choice.tuning) if choice.is_named and not is_ppo else None,
    )


def _policy(choice: Choice, workload: str) -> FrozenPolicy | None:
    path = choice.policy or shipped_policy(workload)
    return load_policy(path, workload)[0] if path else None


def _check_name(name: str) -> None:
    if name not in CONTROLLER_NAMES:
        raise unknown_name("controller", name, CONTROLLER_NAMES)
    if name == "hindsight":
        raise UsageError("controller hindsight knows the future, which only the twin has; choose another one")


def _name_of(controller: ControllerLike) -> str:
    if isinstance(controller, str):
        return controller
    own = getattr(controller, "name", None) or getattr(controller, "__name__", None)
    return own if isinstance(own, str) else type(controller).__name__


def _decides(given: object) -> bool:
    """Whether it is an object that decides, not a class or a function that makes one."""
    return hasattr(given, "decide") and not isinstance(given, type)
