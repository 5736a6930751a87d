"""Where do outcomes go? One JSON line each; a full disk costs lines, never frames.

A line is written whole or taken back, so a reader never meets half of one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from controller.errors import UsageError
from controller.records import Outcome


def _plain(value: Any) -> Any:
    """Numbers of numpy as JSON numbers."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"an outcome holds a {type(value).__name__}; expected what JSON can say")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)


def outcome_line(outcome: Outcome) -> bytes:
    """One line of the log, as DESIGN's contract has it."""
    return _ENCODER.encode(outcome) + b"\n"


class OutcomeLog:
    """Owns one file. ``lost`` counts the outcomes that could not be written."""

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self.lost = 0
        self._path = path
        self._complain = complain
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise UsageError(f"--outcomes {path}: {error.strerror}; expected a file that can be written") from None
        self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def write(self, outcome: Outcome) -> None:
        line = outcome_line(outcome)
        try:
            done = os.write(self._descriptor, line)
            if done < len(line):
                self._take_back(done)
                raise OSError(0, "No space left on device")
        except OSError as error:
            if not self.lost:
                self._complain(f"cannot write {self._path}: {error.strerror}; outcomes are lost, frames are not")
            self.lost += 1

    def _take_back(self, size: int) -> None:
        if self._regular:
            end = os.lseek(self._descriptor, -size, os.SEEK_CUR)
            os.ftruncate(self._descriptor, end)

    def close(self) -> None:
        """May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
