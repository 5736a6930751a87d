"""The contract of a shortcut in the twin: the rule of its device half (``runtime.shortcuts``), on recorded verdicts.

A twin plays many episodes side by side, and several twins may share one shortcut, so a shortcut keeps nothing. What it
must remember of an episode it declares as a record (``memory``); the twin owns one for each environment.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from controller.records import Bools, Floats, Ints, Status


class Asked(NamedTuple):
    """N frames of the batch that are about to be decided; each array is (N,) unless said otherwise."""

    env: Ints  # row of the batch, and of the memory
    frame: Ints  # number in the episode
    sample: Ints  # column in the recorded tables
    now_s: Floats  # since the episode began
    captured_s: Floats  # likewise
    deadline_s: Floats  # from the capture to the answer
    slowdown: Floats  # device time over profiled time under the present load
    has_answer: Bools  # whether an answer is out that would be in time for this frame
    age: Ints  # how many frames ago the frame of the newest answer was; only where there is one
    row: Ints  # of the cost table, whose answer that is; likewise
    answers: Any  # (N, kept) ANSWER, newest frame first; those with ``out_s`` up to ``now_s`` are out


class Verdict(NamedTuple):
    """What a shortcut says about N frames."""

    stands: Bools  # (N,) whether its answer stands for the frame
    #: (N,) score of its answer. None: its answer is the newest that is out, and its score the recorded one at that age.
    score: Floats | None = None
    #: (N,) difference of each picture to that of the newest answer, an observation of the controller; not a number
    #: where it is not known. None: it did not look.
    motion: Floats | None = None
    #: (N,) profiled device time of each question, where it differs. None: it is the shortcut's.
    look_s: Floats | None = None


class TableShortcut(Protocol):
    """A shortcut as the twin knows it."""

    @property
    def reason(self) -> Status:
        """One of ``controller.reuse.REASONS``."""
        ...

    @property
    def look_s(self) -> float:
        """Profiled device time that each question takes; a slow device takes longer in proportion."""
        ...

    @property
    def memory(self) -> np.dtype[Any]:
        """Record of what it remembers of an episode; all zero when one begins. ``NOTHING`` if it remembers nothing. An
        object in it is copied with its environment."""
        ...

    @property
    def needs_newest(self) -> bool:
        """Whether its answer is always the newest that is out. Only then the bundle must have scores of older
        answers."""
        ...

    def verdict(self, asked: Asked, memory: Any) -> Verdict:
        """Whether an answer stands for each frame. ``memory``: (B,) records, of which those of ``asked.env`` may be
        changed. It is called once for each frame that would be decided and that no shortcut before it answered."""
        ...


#: Memory of a shortcut that remembers nothing.
NOTHING = np.dtype([])
