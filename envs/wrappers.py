"""Actions factor by factor, mapped to the nearest legal row, for learners that do not use the table of decisions."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from controller.records import Decision, Ints
from controller.space import DecisionSpace

FIELDS = tuple(field.name for field in fields(Decision))


class FactoredActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """``MultiDiscrete`` over model, resolution, exit branch, partition point, payload, and frame stride.

    Each factor indexes the sorted distinct values of its field in the table (``values``). A combination that is not a
    legal row means the nearest row: fields are compared in the order above, the first field that differs decides, the
    smaller difference of indices wins, and ties go to the earlier row. So the model is always the requested one.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        space: DecisionSpace = env.unwrapped.backend.costs.space  # type: ignore[attr-defined]
        self.values = {name: space.column(name) for name in FIELDS}
        self._table = factors_of(space)
        self.action_space = spaces.MultiDiscrete([len(values) for values in self.values.values()])

    def action(self, action: Any) -> np.int64:
        return np.int64(nearest_rows(self._table, np.asarray(action)[None])[0])

    def factors(self, row: int) -> Ints:
        """The action that means a row."""
        return np.asarray(self._table[row])


def factors_of(space: DecisionSpace) -> Ints:
    """(C, fields) index of each row's value among the distinct values of its field."""
    columns = [[space.column(name).index(getattr(d, name)) for d in space.decisions] for name in FIELDS]
    return np.array(columns).T


def nearest_rows(table: Ints, wanted: Ints) -> Ints:
    """(B,) rows of ``table`` (C, fields) with the lexicographically smallest differences to ``wanted`` (B, fields)."""
    difference = np.abs(table[None] - wanted[:, None]).T  # (fields, C, B)
    return np.asarray(np.lexsort(difference[::-1], axis=0)[0])
