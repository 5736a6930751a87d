"""What cropped rows of a cost table are worth, by the age of the answer to a whole picture that they refer to.

The age is the number of frames from the frame of that answer to the frame at hand (``SystemState.whole_age``). The
older the answer, the less its boxes outside the window are right. So the expected score of a row with a crop depends
on it, and a controller that knows it (``controller.controllers.whole_age``) chooses when a whole picture is due.

``CostTable`` has the *steady state* of such a row, in which it is decided again and again: the mean over the ages of
one cycle, from one whole picture to the next. A row that is carried out at one of the ages is one of its *paths*.

Shapes: C rows, K of them cropped, A ages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from controller.gates import PathSpace
from controller.records import Floats, Ints
from controller.references import ReferenceCosts
from controller.regions import MOST_AGE

if TYPE_CHECKING:
    from controller.costs import CostTable

#: Of an age at which the whole picture is run in place of a crop.
WHOLE = -1


@dataclass(frozen=True)
class Crops:
    """The cropped rows of a cost table."""

    row: Ints  # (K,) of the cost table, ascending
    ages: Ints  # (A,) in frames, ascending: at which they were measured
    paths: CostTable  # (K * A) row by row, age by age

    @cached_property
    def path(self) -> Ints:
        """(K, A) number among ``paths``."""
        return np.arange(len(self.paths)).reshape(len(self.row), len(self.ages))

    @cached_property
    def column_of_age(self) -> Ints:
        """(MOST_AGE + 1,) column for the ages 0, 1, ...; an age that was not measured counts as the next older one."""
        return columns_of(self.ages)

    def column(self, age: Ints) -> Ints:
        """The columns for ages of any shape; WHOLE for 0, which stands for no answer, and for answers too old."""
        age = np.asarray(age)
        return np.where(age > MOST_AGE, WHOLE, self.column_of_age[np.clip(age, 0, MOST_AGE)])

    def take(self, rows: Ints) -> Crops | None:
        """The crops of the given rows of the cost table, in the given order; None where none is cropped."""
        places = {row: k for k, row in enumerate(self.row.tolist())}
        found = [(place, places[row]) for place, row in enumerate(np.asarray(rows).tolist()) if row in places]
        if not found:
            return None
        place, kept = np.array(found, np.int64).T
        return Crops(place, self.ages, self.paths.take(self.path[kept].ravel()))


def columns_of(ages: Ints) -> Ints:
    """(MOST_AGE + 1,) of ``Crops.column_of_age`` for recorded ages."""
    return np.array([WHOLE, *np.minimum(np.searchsorted(ages, np.arange(1, MOST_AGE + 1)), len(ages) - 1)], np.int64)


def cycle(ages: Ints, stride: int) -> Ints:
    """The columns of the frames that one whole picture serves, when a cropped row is decided at every decision."""
    return np.asarray(columns_of(ages)[np.arange(stride, MOST_AGE + 1, stride)])


def at_column(costs: CostTable, column: int) -> CostTable:
    """The table with the expected scores of cropped rows at one age, in place of those of the steady state."""
    crops = costs.crops
    assert crops is not None, "a table with cropped rows"
    if column == WHOLE:
        source, rows = costs, costs.whole_row[crops.row]
    else:
        source, rows = crops.paths, crops.path[:, column]
    found = _rescored(costs, crops.row, source, rows)
    if costs.gates is None:
        return found
    return replace(found, gates=replace(costs.gates, paths=_rescored(costs.gates.paths, crops.row, source, rows)))


def _rescored(costs: CostTable, which: Ints, source: CostTable, rows: Ints) -> CostTable:
    accuracy, lagged = costs.accuracy.copy(), costs.lagged_accuracy
    accuracy[which] = source.accuracy[rows]
    if lagged is not None and source.lagged_accuracy is not None:
        lagged = lagged.copy()
        lagged[which] = source.lagged_accuracy[rows]
    return replace(costs, accuracy=accuracy, lagged_accuracy=lagged)


def joined_paths(first: CostTable, then: CostTable) -> CostTable:
    """One table of the paths of both; those of the second belong to no stream."""

    def both(name: str) -> Floats:
        return np.concatenate((getattr(first, name), getattr(then, name)))

    one, other = first.space, then.space
    space = PathSpace(
        one.decisions + other.decisions,
        np.concatenate((one.stages_to_exit, other.stages_to_exit)),
        np.concatenate((one.variant, other.variant)),
    )
    columns = [both(name) for name in ("accuracy", "head_s", "payload_bytes", "payload_std_bytes", "mec_s")]
    lagged = None if first.lagged_accuracy is None else both("lagged_accuracy")
    references = None if first.references is None else _without_stream(first.references, then.payload_bytes)
    return replace(
        first,
        space=space,
        accuracy=columns[0],
        head_s=columns[1],
        payload_bytes=columns[2],
        payload_std_bytes=columns[3],
        mec_s=columns[4],
        lagged_accuracy=lagged,
        references=references,
        gates=None,
        crops=None,
    )


def _without_stream(own: ReferenceCosts, payload_bytes: Floats) -> ReferenceCosts:
    """The same streams, and behind them rows whose payloads always stand alone."""
    more = np.repeat(payload_bytes[:, None], own.payload_bytes.shape[1], axis=1)
    return own.and_alone(more)
