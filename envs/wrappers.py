"""How does a learner without a table of decisions act? Factor by factor, mapped to the nearest legal row."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from controller.records import Decision, Floats, Ints
from controller.space import DecisionSpace

FIELDS = tuple(field.name for field in fields(Decision))


class FactoredActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """``MultiDiscrete`` over (model, resolution, exit, partition point, payload) in place of the row.

    Each factor indexes the sorted distinct values of its field in the table (``values``). A combination that is no
    legal row stands for the nearest one: rows are compared field by field in the order above, the first field that
    differs decides, and the smaller difference of indices wins; ties go to the earlier row. So the model is always
    as asked for, and the payload gives way first.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        space: DecisionSpace = env.unwrapped.backend.costs.space  # type: ignore[attr-defined]
        self.values = {name: space.column(name) for name in FIELDS}
        self._table = factors_of(space)
        self.action_space = spaces.MultiDiscrete([len(values) for values in self.values.values()])

    def action(self, action: Any) -> np.int64:
        return nearest_row(self._table, np.asarray(action))

    def factors(self, row: int) -> Ints:
        """The action that asks for a row."""
        return np.asarray(self._table[row])


def factors_of(space: DecisionSpace) -> Ints:
    """(C, fields) index of each row's value among the distinct values of its field."""
    columns = [[space.column(name).index(getattr(d, name)) for d in space.decisions] for name in FIELDS]
    return np.array(columns).T


def nearest_row(table: Ints, wanted: Ints) -> np.int64:
    """Row of ``table`` (C, fields) with the lexicographically smallest difference to ``wanted`` (fields,)."""
    difference: Floats = np.abs(table - wanted)
    return np.int64(np.lexsort(difference.T[::-1])[0])
