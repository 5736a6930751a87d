"""Makes a guarded policy over one cost table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.controllers.base import Controller
from controller.controllers.expected_utility import DEFAULT_ESTIMATE
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import LEARNED, make_controller
from controller.costs import CostTable
from controller.features.remembered import RememberedFeatures
from controller.guard.guard import Guard
from controller.guard.judge import Judge
from controller.guard.ranges import NO_RANGES, Ranges, bounds_of
from controller.utility import Utility


def make_guard(
    costs: CostTable,
    utility: Utility,
    policy: FrozenPolicy,
    classical: str,
    tuning: Mapping[str, Any] | None = None,
    ranges: Ranges = NO_RANGES,
    seed: int = 0,
    batch: int = 1,
    learned: Controller | None = None,
) -> Guard:
    """``ppo`` with this policy, guarded by the named controller with this tuning, for batches of ``batch`` states.

    ``learned``: what asks the policy, if it is not the usual controller.

    ``ranges``: of the context features in training, as the policy file states them; without any, no observation
    counts as outside. With cropped rows the values that are compared are those of the steady state. UsageError as
    from ``make_controller``."""
    features, estimate = RememberedFeatures(costs, utility), str((tuning or {}).get("estimate", DEFAULT_ESTIMATE))
    other = make_controller(classical, costs, utility, tuning, seed, policy, batch, features)
    if learned is None:
        learned = make_controller(LEARNED, costs, utility, None, seed, policy, batch, features)
    return Guard(Judge(learned, other, features, bounds_of(ranges), estimate), LEARNED, classical, batch)
