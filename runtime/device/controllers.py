"""Make controllers over the candidate decisions of a bundle: by name, or from an object of the user's own.

Named ones get the policy and the tuning that belong to them. The answers of the user's own are checked.

``runtime.device.deciding`` says which of them decides on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from controller.controllers import registry
from controller.controllers.base import Controller
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import LEARNED
from controller.costs import CostTable
from controller.errors import UsageError
from controller.records import Bools, Ints, SystemState
from controller.utility import Utility
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.config.privacy import check_controller
from runtime.config.sections.device import PrivacySection
from runtime.files.policy_file import load_policy, shipped_policy
from runtime.files.tuning_file import load_tunings, tuning_of
from runtime.profiling.profile import candidates, load_costs
from runtime.regions.costs import crops_if


class Decides(Protocol):
    """The least that an object of the user's own needs to be a controller."""

    def decide(self, state: SystemState) -> Any:
        """Row of the cost table for each state of the batch, (B,); a device asks about one state at a time."""
        ...


#: What ``Device`` takes as its controller: a name, an object that decides, or what makes one from the cost table.
ControllerLike = str | Decides | Callable[[CostTable], Decides]


def open_costs(
    bundle: str | Path | Bundle,
    profile: str | Path | None = None,
    *,
    no_raw_upload: bool = False,
    forecast: bool | None = None,
    roi: bool = False,
) -> CostTable:
    """The candidate decisions of a bundle and what each costs: (C,) accuracy, seconds, bytes.

    A controller returns rows of this table; ``open_costs(...).space.decisions[row]`` is the ``Decision``. ``profile``
    is a file that ``mecpilot profile`` wrote, or "shipped"; by default this machine's profile, else the shipped one.
    With ``no_raw_upload`` no decision sends an image. ``forecast`` and ``roi`` are those of the ``Device``: other ones
    give other rows.
    """
    opened, privacy = open_bundle(bundle), PrivacySection(no_raw_upload=no_raw_upload)
    path = None if profile is None else Path(profile)
    moves_on, crops = opened.forecasts(forecast, opened.work), crops_if(roi, opened.work)
    return candidates(load_costs(opened, path, forecast=moves_on, crops=crops), opened.default_range, privacy)


def make_controller(
    name: str = LEARNED,
    bundle: str | Path | Bundle = "campus",
    *,
    policy: str | Path | FrozenPolicy | None = None,
    tuning: Mapping[str, Any] | str | Path | None = None,
    profile: str | Path | None = None,
    utility: Utility | None = None,
    seed: int = 0,
    batch: int = 1,
    no_raw_upload: bool = False,
    forecast: bool | None = None,
    roi: bool = False,
) -> Controller:
    """One of mecpilot's controllers, ready to decide: ``make_controller("greedy", bundle="campus")``.

    name     one of ``controller.controllers.registry.CONTROLLER_NAMES``: "ppo", "greedy", "edgent", ...
    bundle   a shipped bundle's name, a bundle's directory, or an open bundle
    policy   of "ppo": a policy file or what ``load_policy`` returned first; default: the shipped policy
    tuning   tunables by name, or a file of ``mecpilot tune``; default: the shipped tuning
    batch    rows of the states that it will see: 1 on a device, the number of environments in a twin
    no_raw_upload  never choose a decision that sends an image
    forecast, roi  those of the device or environment

    Its decisions are rows of ``open_costs`` with the same arguments. UsageError for an unknown
    name or tunable, for a policy that was trained for another workload, and for a controller that only sends images
    where that is forbidden.
    """
    check_controller(name, PrivacySection(no_raw_upload=no_raw_upload))
    opened = open_bundle(bundle)
    costs = open_costs(opened, profile, no_raw_upload=no_raw_upload, forecast=forecast, roi=roi)
    if not isinstance(tuning, Mapping):
        tunings = load_tunings(opened.workload, None if tuning is None else Path(tuning))
        tuning = tuning_of(name, tunings, costs)
    if policy is not None and name != LEARNED:
        raise UsageError(f"got a policy for controller {name!r}; expected controller {LEARNED!r}, or no policy")
    frozen = policy if isinstance(policy, FrozenPolicy) else policy_of(name, opened.workload, policy)
    return registry.make_controller(name, costs, utility or Utility(), tuning, seed, frozen, batch)


def policy_of(name: str, workload: str, given: str | Path | None = None) -> FrozenPolicy | None:
    """The policy of a named controller: of the given file, else the shipped one. None for one that has no policy."""
    path = shipped_policy(workload) if given is None else Path(given)
    return load_policy(path, workload)[0] if path is not None and name == LEARNED else None


class OwnController:
    """A controller of the user's own, with its answers checked. Owns nothing else."""

    def __init__(self, name: str, given: Decides | Callable[[CostTable], Decides], costs: CostTable) -> None:
        self.name = name
        self._decider: Any = given if is_decider(given) else given(costs)  # type: ignore[operator]
        if not is_decider(self._decider):
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


def name_of(controller: ControllerLike) -> str:
    """The name of a controller: as given, else its ``name``, else that of its function or class."""
    if isinstance(controller, str):
        return controller
    own = getattr(controller, "name", None) or getattr(controller, "__name__", None)
    return own if isinstance(own, str) else type(controller).__name__


def is_decider(given: object) -> bool:
    """Whether it is an object that decides, not a class or a function that makes one."""
    return hasattr(given, "decide") and not isinstance(given, type)
