"""What a device was asked to decide with, and what that comes to: one controller and the decisions it chooses from.

``runtime.device.named`` makes the controllers that have a name, and ``runtime.device.controllers`` checks a user's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from controller.controllers.base import Controller
from controller.controllers.registry import CONTROLLER_NAMES, LEARNED, ORACLE
from controller.controllers.simple import FixedRow
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.records import NO_PAYLOAD, Decision
from controller.utility import Utility
from runtime.bundles.bundle import Bundle
from runtime.codecs import get_codec
from runtime.config.privacy import allowed, privacy_notes
from runtime.config.sections.device import PrivacySection
from runtime.config.tree import DEFAULTS
from runtime.device.controllers import ControllerLike, OwnController, name_of
from runtime.device.named import Named
from runtime.files.policy_file import shipped_policy, used_policy
from runtime.files.provenance import Provenance, Used
from runtime.files.tuning_file import used_tuning
from runtime.profiling.hardware_encoder import hardware_notes
from runtime.profiling.profile import candidates, used_profile
from runtime.regions.costs import crops_if, crops_of
from runtime.workloads.base import Workload

DEFAULT_CONTROLLER = LEARNED
PINNED, DEVICE_ONLY = "pinned", "device-only"


@dataclass(frozen=True)
class Choice:
    """What the user said about who decides. ``decision`` names some or all fields of one decision for every frame."""

    controller: ControllerLike | None = None
    policy: Path | None = None
    tuning: Path | None = None
    decision: Mapping[str, Any] | None = None
    seed: int = 0
    privacy: PrivacySection = DEFAULTS.privacy
    gate: float | None = None  # that decisions may carry; None: those of the bundle
    roi: bool = False  # decisions may run a part of the picture
    guard: str = ""  # the classical controller that guards ppo; empty: none does

    @property
    def gates(self) -> tuple[float, ...] | None:
        """The gates that decisions may carry, that of a pinned one included; None: those of the bundle."""
        named = (self.decision or {}).get("gate") or self.gate
        return None if named is None else (named,)

    def crops(self, workload: Workload) -> tuple[float, ...]:
        """The crops that decisions may have, that of a pinned one included; () without any."""
        named = (self.decision or {}).get("crop")
        if not named:
            return crops_if(self.roi, workload)
        return crops_of(workload, named)

    def pinned(self, crops: tuple[float, ...]) -> dict[str, Any]:
        """The fields of the pinned decision; one without a gate has that of the device, and one without a crop the
        largest of ``crops``."""
        gate = {} if self.gate is None else {"gate": self.gate}
        crop = {"crop": max(crops)} if crops else {}
        return gate | crop | dict(self.decision or {})

    @property
    def is_named(self) -> bool:
        """Whether it is one of mecpilot's own controllers, not a pinned decision or an object of the user's."""
        return self.decision is None and isinstance(self.controller, str | None)

    @property
    def named(self) -> Named:
        """The controller that is named, with its files."""
        return Named(self.name, self.policy, self.tuning, self.guard, self.seed, self.privacy)

    @property
    def name(self) -> str:
        """The controller's name as the user gave it; UsageError when it does not fit the rest."""
        if self.decision is not None:
            if self.controller is not None:
                raise UsageError(f"got --decision and --controller {name_of(self.controller)}; expected one of them")
            return PINNED
        name = DEFAULT_CONTROLLER if self.controller is None else name_of(self.controller)
        if self.is_named:
            check_name(name)
        if self.policy is not None and name != DEFAULT_CONTROLLER:
            raise UsageError(f"got --policy and --controller {name}; expected --controller ppo")
        return name


@dataclass(frozen=True)
class Chosen:
    """A controller, and the decisions whose rows it returns."""

    costs: CostTable
    controller: Controller

    @property
    def never_asks(self) -> bool:
        """Whether every frame is answered on the device, by the decision of the user: a MEC is not missed then."""
        if isinstance(self.controller, FixedRow):
            return bool(self.costs.space.device_only[self.controller.row])
        return self.controller.name == DEVICE_ONLY and not isinstance(self.controller, OwnController)

    @property
    def pinned(self) -> Decision | None:
        """The decision that the user has pinned."""
        if isinstance(self.controller, FixedRow) and self.controller.name == PINNED:
            return self.costs.space.decisions[self.controller.row]
        return None

    @property
    def decisions_in_use(self) -> list[Decision]:
        """What may have to be computed here: for a pinned decision that one and the local answers, else everything."""
        decisions = self.costs.space.decisions
        if isinstance(self.controller, FixedRow):
            return [decisions[self.controller.row], *(decisions[row] for row in self.costs.local_frontier)]
        return list(decisions)


def choose(choice: Choice, table: CostTable, bundle: Bundle, utility: Utility, crops: tuple[float, ...] = ()) -> Chosen:
    """The controller that was asked for, over the decisions of ``table`` that are allowed and can be best.

    ``table``: what every decision of the bundle costs. Those whose codec is not installed here cannot be chosen, only
    pinned, which says what is missing. ``crops``: those that decisions may have.
    """
    name, given = choice.name, choice.controller
    if choice.decision is not None:
        permitted = allowed(table, choice.privacy)
        return Chosen(permitted, FixedRow(PINNED, _pinned_row(choice.pinned(crops), permitted, table)))
    costs = candidates(_usable(table), bundle.default_range, choice.privacy)
    if given is not None and not isinstance(given, str):
        return Chosen(costs, OwnController(name, given, costs))
    return Chosen(costs, choice.named.make(bundle, costs, utility))


def _usable(costs: CostTable) -> CostTable:
    """The rows whose codec this process can use."""
    payloads = [decision.payload for decision in costs.space.decisions]
    missing = {name for name in set(payloads) - {NO_PAYLOAD} if get_codec(name).missing}
    return costs.take(np.flatnonzero([name not in missing for name in payloads])) if missing else costs


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


class Files(NamedTuple):
    """The files that a controller comes from, with their digests."""

    policies: tuple[Used, ...]
    tuning: Used | None


def files_of(workload: str, choice: Choice) -> Files:
    """Only the files that the controller uses; OSError when one cannot be read."""
    is_ppo = choice.is_named and choice.name == DEFAULT_CONTROLLER
    policy = choice.policy or shipped_policy(workload)
    return Files(
        (used_policy(policy),) if is_ppo and policy else (),
        used_tuning(workload, choice.tuning) if choice.is_named and (not is_ppo or choice.guard) else None,
    )


def provenance_of(
    bundle: Bundle,
    choice: Choice,
    profile: Path | None,
    hardware_encoder: bool = False,
    notes: tuple[str, ...] = (),
) -> Provenance:
    """The files that a run rests on: only what its controller uses. ``notes``: further ones on its figures."""
    return Provenance(
        bundle.workload,
        bundle.digest,
        used_profile(bundle, profile),
        *files_of(bundle.workload, choice),
        privacy_notes(choice.privacy) + hardware_notes(hardware_encoder) + notes,
    )


def check_name(name: str) -> None:
    """UsageError for a name that no controller of a device has."""
    if name not in CONTROLLER_NAMES:
        raise unknown_name("controller", name, CONTROLLER_NAMES)
    if name == ORACLE:
        raise UsageError(f"controller {ORACLE} knows the future, which only the twin has; choose another one")
