"""Parts of pictures in the twin: which age a crop has, and what becomes of its frame (``controller.regions``).

A cropped row that is carried out is one of its paths, one for each recorded age of the answer to a whole picture that
it refers to. The rule of the window is that of the device; which samples it finds one for was recorded with the scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from controller.costs import CostTable
from controller.crops import WHOLE
from controller.errors import UsageError
from controller.records import Bools, Decision, Floats, Ints
from envs.twin.state import Environment
from runtime.bundles.recorded import Recorded

if TYPE_CHECKING:
    from envs.twin.tables import TwinTables

NOT_CROPPED = -1


class CropColumns(NamedTuple):
    """What the twin knows of crops; N paths, those of crops behind the others."""

    crop_start: Ints  # (N,) path of a cropped row at the first age; NOT_CROPPED for others
    usable_start: Ints  # (N,) where its ages start in ``usable``
    whole_row: Ints  # (N,) that is carried out where a part cannot be run
    is_part: Bools  # (N,) the paths of crops
    usable: Bools  # cropped row by cropped row, by age and sample
    column_of_age: Ints  # of an answer to a whole picture; WHOLE for 0. One entry where nothing is cropped


def crop_columns(costs: CostTable, recorded: Recorded) -> CropColumns:
    """Lay out the crops of a table; UsageError where they were not recorded."""
    plain, count = len(costs.paths), len(costs.every_path)
    start, usable_start, whole = np.full(count, NOT_CROPPED), np.zeros(count, np.int64), np.arange(count)
    is_part, crops = np.arange(count) >= plain, costs.crops
    if crops is None:
        return CropColumns(start, usable_start, whole, is_part, np.zeros(0, np.bool_), np.full(1, WHOLE))
    if recorded.crops is None:
        raise UsageError("got cropped decisions, but no recorded answers of crops; take both from one bundle")
    usable = np.stack([recorded.crops.usable[costs.space.decisions[row].crop] for row in crops.row])
    start[crops.row] = plain + crops.path[:, 0]
    usable_start[crops.row] = np.arange(len(crops.row)) * usable[0].size
    whole[: len(costs)] = costs.whole_row
    return CropColumns(start, usable_start, whole, is_part, usable.ravel(), crops.column_of_age)


def part_bytes(recorded: Recorded, decision: Decision, path: int) -> Floats:
    """(1, S) recorded bytes of the crop that a path sends; ``path``: its number among those of crops."""
    if recorded.crops is None:
        raise UsageError("got cropped decisions, but no recorded bytes of crops; take both from one bundle")
    found = recorded.crops.sent_bytes[decision.crop, decision.resolution_px, decision.payload]
    return np.asarray(found[max(path, 0) % len(found)][None])


def whole_ages(t: TwinTables, batch: Environment) -> Ints:
    """(B,) frames from the newest answer to a whole picture that is out to the frame at hand; 0 where there is none."""
    answers, state = batch.answers, batch.state
    stands = (answers["out_s"] <= state["now_s"][:, None]) & ~t.decisions["is_part"][answers["row"]]
    newest = answers["frame"][np.arange(len(state)), stands.argmax(axis=1)]
    return np.where(stands.any(axis=1), state["frame"] - newest, 0)


# Compiled -----------------------------------------------------------------------------------------------------


def crop_column(t: TwinTables, env: Environment) -> int:
    """The column of the age that a crop of the frame at hand would have; WHOLE where the whole picture must be run."""
    for k in range(len(env.answers)):
        if env.answers[k].out_s <= env.state.now_s and not t.decisions[env.answers[k].row].is_part:
            age = env.state.frame - env.answers[k].frame
            return t.crop_column[age] if age < len(t.crop_column) else WHOLE
    return WHOLE


def aimed(t: TwinTables, row: int, sample: int, column: int) -> int:
    """The row to run: the given one, or the one for the whole picture where a crop would show nothing."""
    decision: Any = t.decisions[row]
    if decision.crop_start == NOT_CROPPED:
        return row
    if column == WHOLE or not t.usable[decision.usable_start + column * t.samples + sample]:
        return int(decision.whole_row)
    return row
