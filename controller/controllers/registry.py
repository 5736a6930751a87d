"""The registry of controllers: their names, their tunables, and a constructor by name.

Tunables are plain JSON values. Every key below is optional; a key that a controller does not have is an error.

``kind window margin recovery_s headroom_frac``
    The bandwidth estimate and the time to keep free, see ``controller.predict.estimators.Estimator``.
``estimate``
    The bandwidth estimate of ``expected-utility``, one of ``controller.features.schema.BANDWIDTHS``.
``keep_pace``
    True: only rows that are fast enough to be chosen for every frame count as in time.
``penalty``
    Utility lost per capture period of delay of the next frames.
``decision``
    The decision of ``static-best``, as a mapping of all fields of ``controller.records.Decision``.
``hazard threshold latency_weight states``
    Change-point detection, reward and bandwidth states of ``edgent-dynamic``, see
    ``controller.controllers.edgent.MapTuning`` and ``controller.controllers.bandwidth_states``. ``oboe`` has the
    same detection and states.
``base map``
    Of ``oboe``: "greedy" or "edgent", and by network state (``controller.controllers.oboe.NETWORK_STATES``) the
    tunables of that controller that differ there, ``base`` among them.
``alpha memory noise ridge``
    Exploration and learning of ``linucb``, see ``controller.controllers.linucb.BanditTuning``.
``horizon device_margin predictor``
    Length of the plan, care about device times, and transfer times of ``fugu-mpc``, see
    ``controller.controllers.mpc.MpcTuning`` and ``controller.predict.transfer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from controller.controllers.bandwidth_states import BandwidthStates, default_states
from controller.controllers.base import Controller
from controller.controllers.edgent import EdgentDynamic, MapTuning
from controller.controllers.expected_utility import DEFAULT_ESTIMATE, ExpectedUtility
from controller.controllers.greedy import DEFAULT_PENALTY, Greedy, typical_row
from controller.controllers.greedy_oracle import DEFAULT_PENALTY as ORACLE_PENALTY
from controller.controllers.greedy_oracle import GreedyOracle
from controller.controllers.learned import FrozenPolicy, Policy
from controller.controllers.linucb import BanditTuning, LinUcb
from controller.controllers.mpc import FuguMpc, MpcTuning
from controller.controllers.oboe import NETWORK_STATES, Oboe
from controller.controllers.simple import (
    FixedRow,
    MostAccurate,
    Neurosurgeon,
    Random,
    device_only_rows,
    full_offload_rows,
    raw_offload_row,
)
from controller.controllers.whole_age import ByWholeAge
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.features.fast import Features
from controller.predict.estimators import Estimator, Kind
from controller.predict.transfer import TransferPredictor, default_predictor
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
    "expected-utility",
    "oboe",
    "linucb",
    "fugu-mpc",
    "random",
    "greedy-oracle",
)

#: Names of the learned controller, and of the greedy one that knows the future.
LEARNED, ORACLE = "ppo", "greedy-oracle"

_ESTIMATOR_KEYS = tuple(field.name for field in fields(Estimator))
_MAP_KEYS = tuple(field.name for field in fields(MapTuning))
_BANDIT_KEYS = tuple(field.name for field in fields(BanditTuning))
#: Controllers that weigh a crop by the age of the answer that it refers to; the others assume the steady state.
_KNOW_WHOLE_AGE = ("ppo", "device-only", "jpeg-offload", "edgent", "greedy", "expected-utility")
#: Controllers that ``oboe`` may ask.
_BASES = ("greedy", "edgent")
#: What a network state of ``oboe`` may have its own values of.
_BASE_KEYS = ("base", *_ESTIMATOR_KEYS, "penalty", "keep_pace")
_MPC_KEYS = tuple(field.name for field in fields(MpcTuning))

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
    "expected-utility": ("estimate",),
    "oboe": (*_BASE_KEYS, "hazard", "threshold", "states", "map"),
    "linucb": (*_ESTIMATOR_KEYS, "penalty", *_BANDIT_KEYS),
    "fugu-mpc": (*_MPC_KEYS, "predictor"),
    "random": (),
    "greedy-oracle": ("penalty",),
}


def default_tuning(name: str) -> dict[str, Any]:
    """Default values of the named controller's tunables, without those that have no plain default."""
    known: dict[str, Any] = asdict(MapTuning())
    if name != "edgent-dynamic":
        known |= asdict(Estimator()) | asdict(BanditTuning())
    known |= {
        "base": "greedy",
        "estimate": DEFAULT_ESTIMATE,
        "kind": Estimator().kind.value,
        "keep_pace": True,
        "penalty": ORACLE_PENALTY if name == "greedy-oracle" else DEFAULT_PENALTY,
    }
    if name == "fugu-mpc":
        known |= asdict(MpcTuning())
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
    shared: Features | None  # of this cost table, if other controllers ask for them too

    @property
    def features(self) -> Features:
        return self.shared or Features(self.costs, self.utility)

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
    features: Features | None = None,
) -> Controller:
    """The named controller over the rows of ``costs``, for batches of ``batch`` states.

    ``features`` over these costs may be given, for controllers that share them. With cropped rows they are not used.

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

    def make(table: CostTable) -> Controller:
        shared = features if table is costs else None
        return _MAKERS[name](Parts(table, utility, default_tuning(name) | dict(tuning), seed, policy, batch, shared))

    try:
        return ByWholeAge(make, costs) if costs.crops is not None and name in _KNOW_WHOLE_AGE else make(costs)
    except TypeError as error:
        raise UsageError(f"tuning of {name}: got {dict(tuning)} ({error}); expected values of the right type") from None


def _ppo(parts: Parts) -> Controller:
    if parts.policy is None:
        raise UsageError("controller ppo: got no policy; give one with --policy FILE (`mecpilot export` writes it)")
    return Policy(parts.policy, parts.features)


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


def _oboe(parts: Parts) -> Controller:
    tuning, states = parts.tuning, parts.tuning.get("states")
    usual, special = {key: tuning[key] for key in _BASE_KEYS}, dict(tuning.get("map") or {})
    for state, differing in special.items():
        if state not in NETWORK_STATES:
            raise unknown_name("network state of oboe", state, NETWORK_STATES)
        for key in differing:
            if key not in _BASE_KEYS:
                raise unknown_name("tunable of a network state", key, _BASE_KEYS)
    return Oboe(
        parts.costs,
        default_states() if states is None else BandwidthStates.from_tuning(states),
        _base(parts, usual),
        {state: _base(parts, usual | differing) for state, differing in special.items()},
        hazard=float(tuning["hazard"]),
        threshold=float(tuning["threshold"]),
        batch=parts.batch,
    )


def _base(parts: Parts, values: Mapping[str, Any]) -> Controller:
    """The controller that a network state of ``oboe`` asks."""
    name = str(values["base"])
    if name not in _BASES:
        raise unknown_name("base of oboe", name, _BASES)
    return _MAKERS[name](replace(parts, tuning=values))


def _linucb(parts: Parts) -> Controller:
    tuning = BanditTuning(**{key: parts.tuning[key] for key in _BANDIT_KEYS})
    return LinUcb(parts.costs, parts.utility, parts.estimator, parts.penalty, tuning, parts.batch)


def _fugu_mpc(parts: Parts) -> Controller:
    tuning = {key: value for key, value in parts.tuning.items() if key != "predictor"}
    trained = parts.tuning.get("predictor")
    predictor = default_predictor() if trained is None else TransferPredictor.from_tuning(trained)
    return FuguMpc(parts.costs, parts.utility, predictor, MpcTuning(**tuning))


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
    "expected-utility": lambda parts: ExpectedUtility(
        parts.costs, parts.utility, str(parts.tuning["estimate"]), parts.features
    ),
    "oboe": _oboe,
    "linucb": _linucb,
    "fugu-mpc": _fugu_mpc,
    "random": lambda parts: Random(parts.costs, parts.seed),
    "greedy-oracle": _greedy_oracle,
}


def decision_tuning(costs: CostTable, row: int) -> dict[str, Any]:
    """The tuning with which ``static-best`` takes the given row."""
    return {"decision": asdict(costs.space.decisions[row])}
