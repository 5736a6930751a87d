"""The decision space: the legal decisions, in a fixed order.

A ``DecisionSpace`` is a table with one row per legal decision of a bundle. Controllers answer with a row
index, so an illegal decision cannot be expressed. The order is fixed by construction and covered by a digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.records import KINDS, NO_PAYLOAD, Bools, Decision, Ints


@dataclass(frozen=True)
class DecisionSpace:
    """Rows of legal decisions.

    ``stages_to_exit[i]`` is the number of stages that row i runs in all, so ``partition_point == stages_to_exit``
    means device-only. ``variant[i]`` names the row's column of recorded predictions in its bundle.
    """

    decisions: tuple[Decision, ...]
    stages_to_exit: Ints  # (C,) int64
    variant: Ints  # (C,) int64

    def __post_init__(self) -> None:
        if not self.decisions:
            raise UsageError("a decision space with no decision; expected at least one legal decision")
        if len(set(self.decisions)) != len(self.decisions):
            raise UsageError("a decision space lists one decision twice; expected distinct rows")

    def __len__(self) -> int:
        return len(self.decisions)

    @cached_property
    def device_only(self) -> Bools:
        """(C,) rows that never touch the uplink."""
        return np.array([d.payload == NO_PAYLOAD for d in self.decisions])

    @cached_property
    def frame_stride(self) -> Ints:
        """(C,) frames from one decision to the next."""
        return np.array([d.frame_stride for d in self.decisions], dtype=np.int64)

    @cached_property
    def gated(self) -> Bools:
        """(C,) rows in which an exit before the cut may answer."""
        return np.array([d.gate > 0 for d in self.decisions])

    @cached_property
    def cropped(self) -> Bools:
        """(C,) rows that run a part of the picture."""
        return np.array([d.crop > 0 for d in self.decisions])

    @cached_property
    def plain(self) -> Bools:
        """(C,) rows as a bundle has them: all stages of the decision run, on the whole picture."""
        return ~(self.gated | self.cropped)

    @cached_property
    def full_offload(self) -> Bools:
        """(C,) rows that send the (compressed) input itself."""
        return np.array([d.partition_point == 0 for d in self.decisions]) & ~self.device_only

    @cached_property
    def kind(self) -> Ints:
        """(C,) number in KINDS of each row."""
        return np.array([KINDS.index(d.kind) for d in self.decisions], dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the rows in their order."""
        return hashlib.sha256("\n".join(map(_digest_line, self.decisions)).encode()).hexdigest()

    @cached_property
    def _row_of(self) -> dict[Decision, int]:
        return {decision: row for row, decision in enumerate(self.decisions)}

    def index(self, decision: Decision) -> int:
        """Row of a decision; UsageError when it is not legal here."""
        try:
            return self._row_of[decision]
        except KeyError:
            way_out = "`mecpilot models show BUNDLE --payloads` lists what is"
            raise UsageError(f"{decision} is not a legal decision; {way_out}") from None

    def take(self, rows: Sequence[int] | Ints) -> DecisionSpace:
        """A smaller space with the given rows, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        return DecisionSpace(
            tuple(self.decisions[row] for row in rows),
            self.stages_to_exit[rows],
            self.variant[rows],
        )

    def column(self, field: str) -> tuple[Any, ...]:
        """Sorted distinct values of one field of Decision."""
        return tuple(sorted({getattr(decision, field) for decision in self.decisions}))

    def pin(self, wanted: dict[str, Any], default: Decision) -> int:
        """Row of the decision that has the wanted fields and otherwise those of ``default``.

        Fields that were not named give way where they must: the deepest exit of another model has another
        number, and a device-only cut has no payload. Among the legal rows that match what was named, the one
        that shares most unnamed fields with the default wins, then the deepest exit, the smallest cut, the most
        frames.
        """
        known = [field.name for field in fields(Decision)]
        for name in wanted:
            if name not in known:
                raise UsageError(f"unknown decision field {name!r}; expected some of: {', '.join(known)}")
        rows = [r for r, d in enumerate(self.decisions) if all(getattr(d, n) == v for n, v in wanted.items())]
        if not rows:
            raise UsageError(f"no legal decision has {self._nearest_miss(wanted)}")
        free = [name for name in known if name not in wanted]

        def closeness(row: int) -> tuple[int, int, int, int]:
            d = self.decisions[row]
            same = sum(getattr(d, name) == getattr(default, name) for name in free)
            return same, d.exit_branch, -d.partition_point, -d.frame_stride

        return max(rows, key=closeness)

    def _nearest_miss(self, wanted: dict[str, Any]) -> str:
        """Name the first field that rules every row out, with the values that would have been legal."""
        rows: Iterable[Decision] = self.decisions
        named: dict[str, Any] = {}
        for name, value in wanted.items():
            legal = sorted({getattr(d, name) for d in rows})
            named[name] = value
            rows = [d for d in rows if getattr(d, name) == value]
            if not rows:
                context = ", ".join(f"{n}={v!r}" for n, v in named.items())
                return f"{context}; expected {name} among {legal}"
        return f"{wanted}"


def _digest_line(d: Decision) -> str:
    """One row; an interval of one frame goes without saying, and so do no gate and no crop."""
    line = f"{d.model},{d.resolution_px},{d.exit_branch},{d.partition_point},{d.payload}"
    if d.crop:
        return f"{line},{d.frame_stride},{d.gate!r},{d.crop!r}"
    if d.gate:
        return f"{line},{d.frame_stride},{d.gate!r}"
    return line if d.frame_stride == 1 else f"{line},{d.frame_stride}"
