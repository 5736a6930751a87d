"""Makes controllers by name for a bundle, with the tuning and the policy that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.controllers import registry
from controller.controllers.base import Controller
from controller.controllers.learned import FrozenPolicy
from controller.costs import CostTable
from controller.errors import UsageError
from controller.utility import Utility
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.files.policy_file import load_policy, shipped_policy
from runtime.files.tuning_file import load_tunings, tuning_of
from runtime.profiling.profile import candidates, load_costs


def open_costs(bundle: str | Path | Bundle, profile: str | Path | None = None) -> CostTable:
    """The candidate decisions of a bundle and what each costs: (C,) accuracy, seconds, bytes.

    A controller returns rows of this table; ``open_costs(...).space.decisions[row]`` is the ``Decision``. ``profile``
    is a file that ``mecpilot profile`` wrote, or "shipped"; by default this machine's profile, else the shipped one.
    """
    opened = open_bundle(bundle)
    return candidates(load_costs(opened, None if profile is None else Path(profile)), opened.default_range)


def make_controller(
    name: str = "ppo",
    bundle: str | Path | Bundle = "campus",
    *,
    policy: str | Path | FrozenPolicy | None = None,
    tuning: Mapping[str, Any] | str | Path | None = None,
    profile: str | Path | None = None,
    utility: Utility | None = None,
    seed: int = 0,
    batch: int = 1,
) -> Controller:
    """One of mecpilot's controllers, ready to decide: ``make_controller("greedy", bundle="campus")``.

    name     one of ``controller.controllers.registry.CONTROLLER_NAMES``: "ppo", "greedy", "edgent", ...
    bundle   a shipped bundle's name, a bundle's directory, or an open bundle
    policy   of "ppo": a policy file or what ``load_policy`` returned first; default: the shipped policy
    tuning   tunables by name, or a file of ``mecpilot tune``; default: the shipped tuning
    batch    rows of the states that it will see: 1 on a device, the number of environments in a twin

    Its decisions are rows of ``open_costs(bundle, profile)``. UsageError for an unknown name or tunable, and for a
    policy that was trained for another workload.
    """
    opened = open_bundle(bundle)
    costs = open_costs(opened, profile)
    if not isinstance(tuning, Mapping):
        tunings = load_tunings(opened.workload, None if tuning is None else Path(tuning))
        tuning = tuning_of(name, tunings, costs)
    frozen = _policy(name, policy, opened.workload)
    return registry.make_controller(name, costs, utility or Utility(), tuning, seed, frozen, batch)


def _policy(name: str, policy: str | Path | FrozenPolicy | None, workload: str) -> FrozenPolicy | None:
    if name != "ppo":
        if policy is not None:
            raise UsageError(f"got a policy for controller {name!r}; expected controller 'ppo', or no policy")
        return None
    if isinstance(policy, FrozenPolicy):
        return policy
    path = shipped_policy(workload) if policy is None else Path(policy)
    return None if path is None else load_policy(path, workload)[0]
