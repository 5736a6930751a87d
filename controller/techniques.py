"""Leaving techniques out of the decisions, to show what each is worth.

Every technique that shows in a decision has one function here. It returns the rows of a cost table that a system
without the technique would still have. Such a system is set up well: where it must keep to one model, or to one
resolution, it keeps the one with which it does best under the usual conditions. Techniques that answer frames before a
decision (input filter, edge cache) are switched off where they are set up, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import numpy as np

from controller.controllers.shortlist import usual_utility
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.records import KINDS, Bools
from controller.scenario import ScenarioRange

#: Rows that are left without something: (C,) of a table, under the usual conditions.
Left = Callable[[CostTable, ScenarioRange], Bools]


def _without_models(names: Collection[str], costs: CostTable, usual: ScenarioRange) -> Bools:
    return np.array([decision.model not in names for decision in costs.space.decisions])


def _without_kind(kind: int, costs: CostTable, usual: ScenarioRange) -> Bools:
    return np.asarray(costs.space.kind != kind)


def _deepest_exits(costs: CostTable, usual: ScenarioRange) -> Bools:
    """Neither an earlier exit by decision nor one that answers where a gate lets it."""
    deepest: dict[str, int] = {}
    for decision in costs.space.decisions:
        deepest[decision.model] = max(decision.exit_branch, deepest.get(decision.model, 0))
    at_the_end = [decision.exit_branch == deepest[decision.model] for decision in costs.space.decisions]
    return np.array(at_the_end) & ~costs.space.gated


def _one_model(costs: CostTable, usual: ScenarioRange) -> Bools:
    return _best_of("model", costs, usual)


def _every_frame_at_one_resolution(costs: CostTable, usual: ScenarioRange) -> Bools:
    rows = np.flatnonzero(costs.space.frame_stride == 1)
    left = np.zeros(len(costs), np.bool_)
    left[rows[_best_of("resolution_px", costs.take(rows), usual)]] = True
    return left


def _best_of(field: str, costs: CostTable, usual: ScenarioRange) -> Bools:
    """The rows with that value of a field with which the best row earns most, averaged over the usual conditions.

    Values without a device-only row do not count: the device must be able to answer alone.
    """
    values = np.array([str(getattr(decision, field)) for decision in costs.space.decisions])
    utility = usual_utility(costs, usual)
    possible = sorted(set(values[costs.space.device_only]))
    if not possible:
        raise UsageError(f"no decision that is left runs on the device alone; expected one for each {field}")
    best = max(possible, key=lambda value: float(utility[:, values == value].max(axis=1).mean()))
    return np.asarray(values == best)


#: Not among the others, because only some bundles have compressed models.
COMPRESSION = "compression"
#: Techniques that show in a decision. Those that choose one value come last: they choose among what the others leave.
TECHNIQUES: dict[str, Left] = {
    "partition": partial(_without_kind, KINDS.index("split")),
    "early-exit": _deepest_exits,
    "selection": _one_model,
    "application": _every_frame_at_one_resolution,
}
#: The same for kinds of decision.
_KINDS: dict[str, Left] = {kind: partial(_without_kind, number) for number, kind in enumerate(KINDS)}


def without(
    costs: CostTable, names: Collection[str], usual: ScenarioRange, compressed: Collection[str] = ()
) -> CostTable:
    """The rows that are left without techniques (COMPRESSION, TECHNIQUES) and kinds of decision
    (``controller.records.KINDS``). ``compressed``: names of the models that were compressed.

    UsageError for an unknown name, and when no row is left.
    """
    known = _KINDS | {COMPRESSION: partial(_without_models, compressed)} | TECHNIQUES
    for name in names:
        if name not in known:
            raise unknown_name("kind of decision or technique", name, tuple(known))
    for name in (name for name in known if name in names):  # in the order of the tables above
        rows = np.flatnonzero(known[name](costs, usual))
        if not len(rows):
            raise UsageError(f"every decision that is left needs {name}; leave out something else")
        costs = costs.take(rows)
    return costs
