"""Makes the controllers that a device names: the one that decides, guarded or not, and the candidate in its shadow.

A reload makes them again, over the same cost table, while the device serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.controllers.base import Controller
from controller.controllers.registry import CONTROLLER_NAMES, LEARNED, ORACLE, make_controller
from controller.costs import CostTable
from controller.errors import UsageError
from controller.guard.make import make_guard
from controller.utility import Utility
from runtime.bundles.bundle import Bundle
from runtime.config.privacy import check_controller
from runtime.config.sections.device import PrivacySection
from runtime.config.tree import DEFAULTS
from runtime.files.policy_file import load_policy, shipped_policy
from runtime.files.tuning_file import load_tunings, tuning_of

#: Controllers that can guard a policy: all that a device has, but for the policy itself and pure chance.
GUARDS = tuple(name for name in CONTROLLER_NAMES if name not in (LEARNED, "random", ORACLE))


@dataclass(frozen=True)
class Named:
    """A controller by its name, and the files that it comes from. ``guard`` is the name of the classical controller
    that guards the policy of ppo; empty: none does."""

    name: str
    policy: Path | None = None  # None: the shipped one
    tuning: Path | None = None  # None: the shipped one
    guard: str = ""
    seed: int = 0
    privacy: PrivacySection = DEFAULTS.privacy

    def make(self, bundle: Bundle, costs: CostTable, utility: Utility) -> Controller:
        """The controller, for one state at a time; UsageError for a name or a file that cannot be used."""
        check_controller(self.name, self.privacy)
        tunings = load_tunings(bundle.workload, self.tuning)
        path = (self.policy or shipped_policy(bundle.workload)) if self.name == LEARNED else None
        if path is None:
            return make_controller(self.name, costs, utility, tuning_of(self.name, tunings, costs), self.seed)
        policy, manifest = load_policy(path, bundle.workload)
        if not self.guard:
            return make_controller(self.name, costs, utility, None, self.seed, policy)
        _check_guard(self.guard, self.privacy)
        tuning = tuning_of(self.guard, tunings, costs)
        return make_guard(costs, utility, policy, self.guard, tuning, manifest.ranges, self.seed)


def _check_guard(name: str, privacy: PrivacySection) -> None:
    """UsageError unless the name is one of a controller that can guard a policy."""
    if name not in GUARDS:
        raise UsageError(f"--guard-controller {name}; expected one of: {', '.join(GUARDS)}")
    check_controller(name, privacy)


def shadow_of(given: str | Path, like: Named) -> Named:
    """The candidate that --shadow names: a controller, or a policy file. Seed and privacy are those of ``like``, and so
    is a tuning file."""
    seed, privacy = like.seed, like.privacy
    if str(given) in CONTROLLER_NAMES:
        name = str(given)
        if name == ORACLE:
            raise UsageError(f"--shadow {ORACLE} knows the future, which only the twin has; choose another one")
        return Named(name, tuning=like.tuning, seed=seed, privacy=privacy)
    return Named(LEARNED, Path(given), seed=seed, privacy=privacy)
