"""Adds gated rows to a cost table: for each gate, every decision that has an exit on the way to its cut.

The bundle's decision space, which device and MEC compare at the handshake, has no gated rows: a gate only matters on
the device, and ``Decision.ungated`` is what the MEC is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.gates import Gates, PathSpace, calibrated, check_gate, exits_on_way
from controller.records import NO_PAYLOAD, Bools, Decision, Floats, Ints
from controller.references import ReferenceCosts
from runtime.bundles.bundle import Bundle
from runtime.gating.calibration import Calibrations

#: Device time of an exit head alone and of judging its answer: of a model, resolution and exit.
ExitTime = Callable[[str, int, int], float]


def with_gates(
    costs: CostTable, bundle: Bundle, gates: Sequence[float], exit_s: ExitTime, forecast: bool = False
) -> CostTable:
    """The rows of ``costs``, which are those of the bundle, and behind them the gated rows for each of the gates.

    ``forecast``: older answers move on. UsageError for a gate that is none, and where no decision has an exit on the
    way to its cut.
    """
    wanted = tuple(dict.fromkeys(check_gate(gate) for gate in gates))
    if not wanted:
        return costs
    decisions = costs.space.decisions
    found = [(row, gate) for gate in wanted for row, d in enumerate(decisions) if _asked(bundle, d)]
    if not found:
        raise UsageError(
            f"gate {wanted[0]:g}: no model of the bundle {bundle.directory} has an exit on the way to a later one; "
            "expected a model with two exits or more, or no gate"
        )
    table = _Paths(costs, bundle, exit_s, forecast)
    every = [table.of(row, gate) for row, gate in found]
    ungated = np.array([row for row, _ in found])
    new = tuple(replace(decisions[row], gate=gate) for row, gate in found)
    full = costs.extended(ungated, new, np.array([p.full_s for p in every]))
    return _joined(full, len(costs), every)


def _asked(bundle: Bundle, decision: Decision) -> tuple[int, ...]:
    return () if decision.crop else exits_on_way(bundle.info(decision.model).exit_after, decision)


@dataclass(frozen=True)
class _RowPaths:
    """What becomes of the frames of one gated row; its exits on the way in order."""

    full_s: float  # device time of a frame that no exit answers
    exits: tuple[int, ...]
    frac: tuple[float, ...]
    calibration: tuple[tuple[float, float], ...]
    costs: tuple[_PathCosts, ...]  # of each exit, then of the row to its end


@dataclass(frozen=True)
class _PathCosts:
    """Of one path: its decision, device time, and expected scores of its frames."""

    decision: Decision
    head_s: float
    variant: int
    accuracy: float
    lagged: Floats | None  # (lags,)


class _Paths:
    """Knows the recorded answers on the validation split, and the times of exit heads."""

    def __init__(self, costs: CostTable, bundle: Bundle, exit_s: ExitTime, forecast: bool) -> None:
        self._costs, self._bundle, self._exit_s = costs, bundle, exit_s
        self._calibrations = Calibrations(bundle)
        recorded = self._calibrations.recorded
        moves_on = forecast and recorded.lagged_forecast is not None
        self._recorded = recorded.with_forecast() if moves_on else recorded
        self._sure = cache(self._sure_of)
        self._first = cache(self._first_of)

    def of(self, row: int, gate: float) -> _RowPaths:
        d = self._costs.space.decisions[row]
        after = self._bundle.info(d.model).exit_after
        exits = exits_on_way(after, d)
        first = self._first(d.model, d.resolution_px, exits, gate)
        heads_s = [self._exit_s(d.model, d.resolution_px, e) for e in exits]
        paths = []
        for k, e in enumerate(exits):
            alone = Decision(d.model, d.resolution_px, e, after[e], NO_PAYLOAD, d.frame_stride)
            other = self._costs.space.index(alone)
            took_s = float(self._costs.head_s[other]) + sum(heads_s[:k])
            paths.append(self._path(replace(alone, gate=gate), other, first == e, took_s))
        full_s = float(self._costs.head_s[row]) + sum(heads_s)
        paths.append(self._path(replace(d, gate=gate), row, first < 0, full_s))
        frac = tuple(float((first == e).mean()) for e in exits)
        calibration = tuple(self._calibrations.of(d.model, d.resolution_px, e) for e in exits)
        return _RowPaths(full_s, exits, frac, calibration, tuple(paths))

    def _path(self, decision: Decision, row: int, taken: Bools, head_s: float) -> _PathCosts:
        """``row`` is that of the same answers without a gate: what it earns on all frames stands where no frame was
        recorded that takes the path."""
        recorded, variant = self._recorded, int(self._costs.space.variant[row])
        lagged = self._costs.lagged_accuracy
        accuracy, aged = float(self._costs.accuracy[row]), None if lagged is None else lagged[row]
        if taken.any():
            accuracy = float(recorded.score[variant, taken].mean(dtype=float))
            if aged is not None and recorded.lagged is not None:
                aged = recorded.lagged[:, variant, taken].mean(axis=1, dtype=float)
        return _PathCosts(decision, head_s, variant, accuracy, aged)

    def _sure_of(self, model: str, px: int, exit_branch: int, gate: float) -> Bools:
        """(S,) whether an exit reaches the gate."""
        confidence = self._calibrations.recorded.confidence[self._calibrations.variant(model, px, exit_branch)]
        return np.asarray(calibrated(confidence, *self._calibrations.of(model, px, exit_branch)) >= gate)

    def _first_of(self, model: str, px: int, exits: tuple[int, ...], gate: float) -> Ints:
        """(S,) the first exit that reaches the gate; -1 where none does."""
        first = np.full(self._calibrations.recorded.score.shape[1], -1)
        for e in reversed(exits):
            first[self._sure(model, px, e, gate)] = e
        return first


def _joined(full: CostTable, plain: int, every: Sequence[_RowPaths]) -> CostTable:
    """The extended table with its gates; the first ``plain`` rows have none."""
    early = [path for row in every for path in row.costs[:-1]]
    ends = [row.costs[-1] for row in every]
    gates = Gates(
        np.array([plain + k for k, row in enumerate(every) for _ in row.exits], np.int64),
        np.array([e for row in every for e in row.exits], np.int64),
        np.array([frac for row in every for frac in row.frac]),
        np.array([slope for row in every for slope, _ in row.calibration]),
        np.array([offset for row in every for _, offset in row.calibration]),
        _path_table(full, plain, ends, early),
    )
    lagged = gates.paths.lagged_accuracy
    return replace(
        full,
        accuracy=_kept(full.accuracy, gates.mean(gates.paths.accuracy), plain),
        lagged_accuracy=None
        if lagged is None or full.lagged_accuracy is None
        else _kept(full.lagged_accuracy, gates.mean(lagged.T).T, plain),
        gates=gates,
    )


def _kept(before: Floats, mean: Floats, plain: int) -> Floats:
    """The first rows as they were, bit for bit, and the mean of the others."""
    return np.concatenate((before[:plain], mean[plain:]))


def _path_table(full: CostTable, plain: int, ends: Sequence[_PathCosts], early: Sequence[_PathCosts]) -> CostTable:
    """The rows to their ends, then the paths that end early; those send nothing."""
    zeros, own = np.zeros(len(early)), full.lagged_accuracy
    space = PathSpace(
        full.space.decisions + tuple(path.decision for path in early),
        np.concatenate((full.space.stages_to_exit, [path.decision.partition_point for path in early])).astype(np.int64),
        np.concatenate((full.space.variant, [path.variant for path in early])).astype(np.int64),
    )
    aged = [path.lagged for path in (*ends, *early) if path.lagged is not None]
    lagged = None if own is None else np.concatenate((own[:plain], aged))
    return CostTable(
        space,
        np.concatenate((full.accuracy[:plain], [path.accuracy for path in (*ends, *early)])),
        np.concatenate((full.head_s, [path.head_s for path in early])),
        np.concatenate((full.payload_bytes, zeros)),
        np.concatenate((full.payload_std_bytes, zeros)),
        np.concatenate((full.mec_s, zeros)),
        full.neighbour_mec_s,
        lagged,
        None if full.references is None else _references(full.references, len(early)),
        sealed=full.sealed,
    )


def _references(own: ReferenceCosts, early: int) -> ReferenceCosts:
    """The same streams, and rows without one for the paths that send nothing."""
    return own.and_alone(np.zeros((early, own.payload_bytes.shape[1])))
