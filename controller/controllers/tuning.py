"""Tunes a classical controller: a small grid search over its tunables.

The caller's ``evaluate`` runs a controller on the training traces and returns its mean utility, so this file needs no
environment. Estimator and margin depend on each other and are searched together. The other tunables follow one by one,
each with the best values found so far, in two rounds. For ``oboe`` the parameters of each network state follow, and
then a third round.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import chain, product
from typing import Any

from controller.controllers.base import Controller
from controller.controllers.oboe import NETWORK_STATES
from controller.controllers.registry import TUNABLE_KEYS, decision_tuning, default_tuning, make_controller
from controller.costs import CostTable
from controller.features.schema import BANDWIDTHS
from controller.utility import Utility

Tuning = dict[str, Any]
Search = Generator[list[Tuning], list[float], tuple[Tuning, float]]

_ESTIMATES = (
    ("last", 1),
    ("harmonic", 2),
    ("harmonic", 4),
    ("harmonic", 8),
    ("minimum", 4),
    ("minimum", 8),
    ("ewma", 3),
    ("percentile", 8),
)
_MARGINS = (0.5, 0.65, 0.8, 0.9, 1.0)

#: Values to try for each other tunable, in this order, twice.
_GRID: dict[str, tuple[Any, ...]] = {
    "estimate": BANDWIDTHS,
    "latency_weight": (1.0, 0.1, 0.01, 0.001, 0.0),
    "headroom_frac": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3),
    "margin": (0.35, 0.5, 0.65, 0.8, 0.9, 1.0, 1.2),
    "recovery_s": (3.0, 10.0, 30.0, None),
    "keep_pace": (True, False),
    "penalty": (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
    "hazard": (0.005, 0.02, 0.1),
    "threshold": (0.3, 0.5, 0.8),
    "device_margin": (1.0, 1.05, 1.1, 1.2),
    "horizon": (0, 1, 2, 4),
    "base": ("greedy", "edgent"),
    "alpha": (0.0, 0.05, 0.1, 0.2, 0.4),
    "noise": (0.1, 0.15, 0.2, 0.3, 0.5),
    "memory": (5.0, 20.0, 100.0, None),
    "ridge": (5.0, 20.0, 100.0, 500.0),
}
#: Values to try in each network state of ``oboe``, one by one.
_GRID_OF_A_STATE: dict[str, tuple[Any, ...]] = {
    "margin": (0.35, 0.5, 0.65, 0.8, 1.0, 1.2),
    "headroom_frac": (0.0, 0.1, 0.2, 0.3),
    "base": ("greedy", "edgent"),
}


def tune(
    name: str,
    costs: CostTable,
    utility: Utility,
    evaluate: Callable[[Controller], float],
    *,
    batch: int = 1,
    base: Mapping[str, Any] | None = None,
) -> tuple[Tuning, float]:
    """The best tuning of the named controller, with a value for every tunable, and its score.

    The search starts at ``base``, which also holds what is not searched: the ``states`` of ``edgent-dynamic`` and
    ``oboe`` (``controller.controllers.bandwidth_states.learn_states(bank).as_tuning()``), and the ``predictor`` of
    ``fugu-mpc`` (``agents.compare.transfers.train_predictor(setup).as_tuning()``). A controller without tunables is
    evaluated once. ``evaluate`` must give every controller the same episodes.
    """
    steps = search(name, costs, base)
    tries = next(steps)
    while True:
        scores = [evaluate(make_controller(name, costs, utility, tuning, batch=batch)) for tuning in tries]
        try:
            tries = steps.send(scores)
        except StopIteration as end:
            best: tuple[Tuning, float] = end.value
            return best


def search(name: str, costs: CostTable, base: Mapping[str, Any] | None = None) -> Search:
    """The search of ``tune`` step by step: yields tunings to try side by side, and is sent their scores."""
    best: Tuning = default_tuning(name) | dict(base or {})
    (best_score,) = yield [best]
    known = {_key(best): best_score}  # the second round repeats many tunings
    for step in _steps(name, costs):
        tries = {_key(tuning): tuning for tuning in (_changed(best, change) for change in step)}
        new = {key: tuning for key, tuning in tries.items() if key not in known}
        if new:
            known |= zip(new, (yield list(new.values())), strict=True)
        for key, tuning in tries.items():
            if known[key] > best_score:
                best, best_score = tuning, known[key]
    return best, best_score


def _key(tuning: Tuning) -> str:
    return repr(sorted(tuning.items()))


def most_tries(name: str, costs: CostTable) -> int:
    """Upper bound on the number of evaluations by ``tune``."""
    return 1 + sum(map(len, _steps(name, costs)))


def _steps(name: str, costs: CostTable) -> Iterable[list[Tuning]]:
    """Groups of changes, which are tried on the best tuning of the groups before; those of a group have equal keys."""
    keys = TUNABLE_KEYS[name]
    if "decision" in keys:
        yield [decision_tuning(costs, row) for row in range(len(costs))]
    if "kind" in keys:
        yield [{"kind": k, "window": w, "margin": m} for (k, w), m in product(_ESTIMATES, _MARGINS)]
    singles = [[{key: value} for value in values] for key, values in _GRID.items() if key in keys]
    yield from 2 * singles
    if "map" in keys:
        yield from chain.from_iterable(map(_state_changes, NETWORK_STATES))
        yield from singles


def _state_changes(state: str) -> Iterable[list[Tuning]]:
    """What to try in one network state of ``oboe``, key by key."""
    changes: list[list[Tuning]] = [[{"kind": kind, "window": window} for kind, window in _ESTIMATES]]
    changes += [[{key: value} for value in values] for key, values in _GRID_OF_A_STATE.items()]
    for group in changes:
        yield [{"map": {state: change}} for change in group]


def _changed(tuning: Tuning, change: Tuning) -> Tuning:
    """The tuning after a change. One of the map concerns the keys of its network states alone."""
    changed = {**tuning, **change}
    if "map" in change:
        known = tuning.get("map") or {}
        changed["map"] = known | {state: known.get(state, {}) | values for state, values in change["map"].items()}
    return changed
