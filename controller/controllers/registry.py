"""The registry of controllers: their names, their tunables, and a constructor by name.

Tunables are plain JSON values. Every key below is optional; a key that a controller does not have is an error.

``kind window margin recovery_s headroom_frac``
    The bandwidth estimate and the time to keep free, see ``controller.predict.estimators.Estimator``.
``keep_pace``
    True: only rows that are fast enough to be chosen for every frame count as in time.
``penalty``
    Utility lost per capture period of delay of the next frames.
``decision``
    The decision of ``static-best``, as a mapping of all fields of ``controller.records.Decision``.
``hazard threshold latency_weight states``
    Change-point detection, reward and bandwidth states of ``edgent-dynamic``, see
    ``controller.controllers.edgent.MapTuning`` and ``controller.controllers.bandwidth_states``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from controller.controllers.bandwidth_states import BandwidthStates, default_states
from controller.controllers.base import Controller
from controller.controllers.edgent import EdgentDynamic, MapTuning
from controller.controllers.greedy import DEFAULT_PENALTY, Greedy, typical_row
from controller.controllers.greedy_oracle import DEFAULT_PENALTY as ORACLE_PENALTY
from controller.controllers.greedy_oracle import GreedyOracle
from controller.controllers.learned import FrozenPolicy, Policy
from controller.controllers.simple import (
    FixedRow,
    MostAccurate,
    Neurosurgeon,
    Random,
    device_only_rows,
    full_offload_rows,
    raw_offload_row,
)
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.features.fast import Features
from controller.predict.estimators import Estimator, Kind
from controller.records import Decision, Ints
from controller.utility import Utility

CONTROLLER_NAMES = (
    "ppo",
    "device-only",
    "mec-only",
    "jpeg-offload",
    "static-best",
    "neurosurgeon",
    "edgent",
    "edgent-dynamic",
    "greedy",
    "random",
    "greedy-oracle",
)

#: Names of the learned controller, and of the greedy one that knows the future.
LEARNED, ORACLE = "ppo", "greedy-oracle"

_ESTIMATOR_KEYS = tuple(field.name for field in fields(Estimator))
_MAP_KEYS = tuple(field.name for field in fields(MapTuning))

#: The keys that each controller's tuning may have.
TUNABLE_KEYS: dict[str, tuple[str, ...]] = {
    "ppo": (),
    "device-only": ("headroom_frac", "keep_pace"),
    "mec-only": (),
    "jpeg-offload": (*_ESTIMATOR_KEYS, "keep_pace"),
    "static-best": ("decision",),
    "neurosurgeon": ("kind", "window", "margin", "recovery_s"),
    "edgent": (*_ESTIMATOR_KEYS, "keep_pace"),
    "edgent-dynamic": (*_MAP_KEYS, "states"),
    "greedy": (*_ESTIMATOR_KEYS, "penalty"),
    "random": (),
    "greedy-oracle": ("penalty",),
}


def default_tuning(name: str) -> dict[str, Any]:
    """Default values of the named controller's tunables, without those that have no plain default."""
    known: dict[str, Any] = asdict(MapTuning()) if name == "edgent-dynamic" else asdict(Estimator())
    known |= {
        "kind": Estimator().kind.value,
        "keep_pace": True,
        "penalty": ORACLE_PENALTY if name == "greedy-oracle" else DEFAULT_PENALTY,
    }
    return {key: known[key] for key in TUNABLE_KEYS[name] if key in known}


@dataclass(frozen=True)
class Parts:
    """Everything that the constructor of a controller may need."""

    costs: CostTable
    utility: Utility
    tuning: Mapping[str, Any]
    seed: int
    policy: FrozenPolicy | None
    batch: int

    @property
    def estimator(self) -> Estimator:
        chosen = asdict(Estimator()) | {key: self.tuning[key] for key in _ESTIMATOR_KEYS if key in self.tuning}
        kinds = tuple(kind.value for kind in Kind)
        if chosen["kind"] not in kinds:
            raise unknown_name("estimator kind", str(chosen["kind"]), kinds)
        return Estimator(**chosen | {"kind": Kind(chosen["kind"])})

    @property
    def keep_pace(self) -> bool:
        return bool(self.tuning["keep_pace"])

    @property
    def penalty(self) -> float:
        return float(self.tuning["penalty"])


def make_controller(
    name: str,
    costs: CostTable,
    utility: Utility,
    tuning: Mapping[str, Any] | None = None,
    seed: int = 0,
    policy: FrozenPolicy | None = None,
    batch: int = 1,
) -> Controller:
    """The named controller over the rows of ``costs``, for batches of ``batch`` states.

    UsageError for an unknown name, an unknown tunable or one with a bad value, or ``ppo`` without a policy.
    """
    if name not in CONTROLLER_NAMES:
        raise unknown_name("controller", name, CONTROLLER_NAMES)
    tuning = tuning or {}
    for key in tuning:
        if key not in TUNABLE_KEYS[name]:
            known = ", ".join(TUNABLE_KEYS[name])
            expected = f"some of: {known}" if known else "no keys, because it has no tunables"
            raise UsageError(f"tuning of {name}: got unknown key {key!r}; expected {expected}")
    try:
        return _MAKERS[name](Parts(costs, utility, default_tuning(name) | dict(tuning), seed, policy, batch))
    except TypeError as error:
        raise UsageError(f"tuning of {name}: got {dict(tuning)} ({error}); expected values of the right type") from None


def _ppo(parts: Parts) -> Controller:
    if parts.policy is None:
        raise UsageError("controller ppo: got no policy; give one with --policy FILE (`mecpilot export` writes it)")
    return Policy(parts.policy, Features(parts.costs, parts.utility))


def _most_accurate(name: str, rows_of: Callable[[CostTable], Ints]) -> Callable[[Parts], Controller]:
    def make(parts: Parts) -> Controller:
        return MostAccurate(name, parts.costs, rows_of(parts.costs), parts.estimator, parts.keep_pace)

    return make


def _static_best(parts: Parts) -> Controller:
    if "decision" in parts.tuning:
        return FixedRow("static-best", parts.costs.space.index(Decision(**parts.tuning["decision"])))
    return FixedRow("static-best", typical_row(parts.costs, parts.utility))


def _edgent_dynamic(parts: Parts) -> Controller:
    tuning = {key: value for key, value in parts.tuning.items() if key != "states"}
    states = parts.tuning.get("states")
    known = default_states() if states is None else BandwidthStates.from_tuning(states)
    return EdgentDynamic(parts.costs, known, MapTuning(**tuning), parts.batch)


def _greedy(parts: Parts) -> Controller:
    return Greedy(parts.costs, parts.utility, parts.estimator, parts.penalty)


def _greedy_oracle(parts: Parts) -> Controller:
    return GreedyOracle(parts.costs, parts.utility, parts.penalty)


_MAKERS: dict[str, Callable[[Parts], Controller]] = {
    "ppo": _ppo,
    "device-only": _most_accurate("device-only", device_only_rows),
    "mec-only": lambda parts: FixedRow("mec-only", raw_offload_row(parts.costs)),
    "jpeg-offload": _most_accurate("jpeg-offload", full_offload_rows),
    "static-best": _static_best,
    "neurosurgeon": lambda parts: Neurosurgeon(parts.costs, parts.estimator),
    "edgent": _most_accurate("edgent", lambda costs: np.arange(len(costs))),
    "edgent-dynamic": _edgent_dynamic,
    "greedy": _greedy,
    "random": lambda parts: Random(parts.costs, parts.seed),
    "greedy-oracle": _greedy_oracle,
}


def decision_tuning(costs: CostTable, row: int) -> dict[str, Any]:
    """The tuning with which ``static-best`` takes the given row."""
    return {"decision": asdict(costs.space.decisions[row])}
