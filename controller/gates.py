"""Gated early exits: exit heads on the way to the cut, the first of which that is confident enough answers.

A *gated* row runs on the device as its ungated row does, and asks the exit heads that it passes. The first one whose
calibrated confidence reaches the gate answers; the later stages are not run and nothing is sent (BranchyNet,
Teerapittayanon et al., ICPR 2016). A device-only row may be gated too.

Confidence is the expected score of an exit's answer, given what the workload makes of its outputs: for a classifier the
probability to be right, for a detector the expected F1. It is recorded in 255ths; ``calibrated`` maps it with two
numbers per exit and resolution (Platt, 1999), which are fitted on the validation split.

What becomes of a frame is one of the row's *paths*: path c of the table of paths is row c to its end, and one more path
per exit on the way of a gated row is the answer there. ``Gates`` knows how often each is taken. So costs of frames that
went one path are measured against that path, and expectations of a row are means over its paths (``Gates.mean``).

Shapes: C rows, P paths that end at an exit on the way, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from controller.errors import UsageError
from controller.records import Decision, Floats, Ints
from controller.space import DecisionSpace

if TYPE_CHECKING:
    from controller.costs import CostTable

#: Confidence is recorded in this many steps, and rounded to them on the device: both then ask the same question.
CONFIDENCE_STEPS = 255
#: Keeps the logarithm of the odds finite: a quarter of a step.
_LEAST = 0.25 / CONFIDENCE_STEPS
#: No gate below: an exit that is rather wrong than right answers nothing.
LEAST_GATE, MOST_GATE = 0.5, 0.9999


class PathSpace(DecisionSpace):
    """The decisions of paths. Those that end at an exit on the way may be the same for several rows."""

    def __post_init__(self) -> None:
        pass

    def take(self, rows: Sequence[int] | Ints) -> PathSpace:
        taken = np.asarray(rows, dtype=np.int64)
        decisions = tuple(self.decisions[path] for path in taken)
        return PathSpace(decisions, self.stages_to_exit[taken], self.variant[taken])


@dataclass(frozen=True)
class Gates:
    """Exits on the way of the gated rows of a cost table. All but ``paths`` are (P,), row by row and exit by exit."""

    row: Ints  # of the cost table, ascending
    exit_branch: Ints
    frac: Floats  # share of frames that this exit answers, on the validation split
    slope: Floats  # of the calibration of this exit
    offset: Floats
    #: (C + P) paths: every row to its end, then every exit on the way. Accuracies are those of the frames that take the
    #: path, and sure answers are better ones, so rows have less here than in the cost table.
    paths: CostTable

    @property
    def rows(self) -> int:
        """C, which is also the number of the first path that ends early."""
        return len(self.paths) - len(self.row)

    @property
    def early_decisions(self) -> tuple[Decision, ...]:
        """(P,) the device-only decision that an answer at each exit on the way amounts to."""
        return self.paths.space.decisions[self.rows :]

    @cached_property
    def end_frac(self) -> Floats:
        """(C,) share of frames that no exit on the way answers; 1 where there is none."""
        return np.asarray(1.0 - np.bincount(self.row, self.frac, self.rows))

    @cached_property
    def _share(self) -> Floats:
        """(P, C) by which a path that ends early counts in the mean of a row."""
        share = np.zeros((len(self.row), self.rows))
        share[np.arange(len(self.row)), self.row] = self.frac
        return share

    def mean(self, values: Floats) -> Floats:
        """(..., C) expectations of rows from values (..., C + P) of paths; rows without a gate keep theirs."""
        return np.asarray(values[..., : self.rows] * self.end_frac + values[..., self.rows :] @ self._share)

    def path(self, row: int, early_exit: int | None) -> int:
        """The path of a frame of that row which an exit on the way has answered, or none has."""
        if early_exit is None:
            return row
        return self.rows + int(np.flatnonzero((self.row == row) & (self.exit_branch == early_exit))[0])

    def taken(self, confidence: Floats) -> Ints:
        """(C, S) path of every row and sample, from the recorded confidence (variants, S)."""
        taken = np.repeat(np.arange(self.rows)[:, None], confidence.shape[1], axis=1)
        decisions, variant = self.paths.space.decisions, self.paths.space.variant
        for p in reversed(range(len(self.row))):  # the first exit that is sure comes last and stands
            path, row = self.rows + p, self.row[p]
            sure = calibrated(confidence[variant[path]], self.slope[p], self.offset[p]) >= decisions[path].gate
            taken[row, sure] = path
        return taken

    def take(self, rows: Ints) -> Gates | None:
        """The gates of the given rows of the cost table, in the given order; None where none is gated."""
        found = [(place, p) for place, row in enumerate(rows) for p in np.flatnonzero(self.row == row)]
        if not found:
            return None
        place, kept = np.array(found, np.int64).T
        paths = self.paths.take(np.concatenate((np.asarray(rows, np.int64), self.rows + kept)))
        return Gates(place, self.exit_branch[kept], self.frac[kept], self.slope[kept], self.offset[kept], paths)


def exits_on_way(exit_after: Sequence[int], decision: Decision) -> tuple[int, ...]:
    """The exits of a model before the decision's own that lie on the device's way to the cut, the earliest first."""
    return tuple(e for e in range(decision.exit_branch) if exit_after[e] <= decision.partition_point)


def quantised(confidence: Any) -> Any:
    """Confidence as it is recorded: in steps, float32. Works on numbers and arrays."""
    steps = np.rint(np.asarray(confidence, np.float64) * CONFIDENCE_STEPS)
    return steps.astype(np.float32) / np.float32(CONFIDENCE_STEPS)


def log_odds(confidence: Any) -> Any:
    """Logarithm of confidence over the rest, float64 and finite for 0 and 1; NaN stays NaN."""
    share = np.clip(np.asarray(confidence, np.float64), _LEAST, 1.0 - _LEAST)
    return np.log(share / (1.0 - share))


def calibrated(confidence: Any, slope: float, offset: float) -> Any:
    """Expected score, 0 to 1, of answers whose ``quantised`` confidence is given."""
    return 1.0 / (1.0 + np.exp(-(slope * log_odds(confidence) + offset)))


def check_gate(gate: object) -> float:
    """The gate as a number; UsageError where it cannot be one."""
    number = float(gate) if isinstance(gate, int | float | np.number) and not isinstance(gate, bool) else float("nan")
    if not LEAST_GATE <= number <= MOST_GATE:
        raise UsageError(
            f"gate {gate!r}; expected a confidence from {LEAST_GATE:g} to {MOST_GATE:g}, such as 0.9, or no gate at all"
        )
    return number
