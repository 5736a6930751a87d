"""How close two keys must be: the largest distance within which reused answers have agreed with fresh ones.

Every frame that was looked up and then run is evidence: how close was the closest kept answer, and did it agree with
the fresh one? Frames that the cache did not answer show it for free. Of those that it would answer, a small share is
run all the same. So the distance adapts in both directions, and in its own unit, whatever the pictures are. The target
is the mean over all frames that the cache answers, as in FoggyCache (Guo et al., MobiCom 2018).
"""

from __future__ import annotations

import numpy as np

from controller.records import Floats

#: Evidence that counts. Older evidence may be of another scene.
_KEPT = 1024
#: New evidence after which the distance is computed anew: so much, and this share of what there is. Else it would take
#: longer than a search.
_EVERY, _EVERY_FRAC = 8, 1 / 16
#: Evidence of neighbouring distances that is averaged.
_GROUP = 16
#: Standard errors by which the mean agreement must exceed the target, so that luck with few frames does not do. With
#: more, too little is found where little repeats; with less, answers agree too little.
_ERRORS = 0.5
#: Closest evidence without which no distance is trusted: with 16, a stream that never repeats was answered at times.
_LEAST_TRUSTED = 32
#: How much farther than everything seen so far a picture must be to be of another scene, and the evidence that this
#: needs.
_OTHER_SCENE = 2.0
_LEAST_EVIDENCE = 16


class _Last:
    """Owns the last ``_KEPT`` rows of numbers."""

    def __init__(self, columns: int) -> None:
        self._rows = np.zeros((columns, _KEPT))
        self.count = 0

    def add(self, *row: float) -> None:
        self._rows[:, self.count % _KEPT] = row
        self.count += 1

    def clear(self) -> None:
        self.count = 0

    @property
    def columns(self) -> Floats:
        """(columns, n), in no order."""
        return self._rows[:, : self.count]


class Threshold:
    """Owns the evidence and the distance that follows from it, at first 0."""

    def __init__(self, least_agreement: float, fixed: float | None = None) -> None:
        """``fixed``: this distance, whatever the evidence says."""
        self._least_agreement, self._fixed = least_agreement, fixed
        self._evidence = _Last(2)  # distance, agreement
        self._seen = _Last(1)  # distances of all frames that were looked up
        self._new = 0  # evidence that is not in the distance yet
        self.distance = fixed or 0.0

    def learn(self, distance: float, agreement: float) -> None:
        """A frame was looked up and run: how far away the closest key is, and how far that answer agrees (0 to 1) with
        the fresh one."""
        self._evidence.add(distance, agreement)
        self._new += 1
        if self._new >= max(_EVERY, _EVERY_FRAC * min(self._evidence.count, _KEPT)):
            self._update()

    def looked_up(self, distance: float) -> bool:
        """The closest key is so far away. Returns whether that must be another scene; if so, all evidence goes."""
        seen = self._seen
        other = seen.count >= _LEAST_EVIDENCE and distance > _OTHER_SCENE * float(seen.columns.max())
        if other:
            seen.clear()
            self._evidence.clear()
            self._update()
        seen.add(distance)
        return other

    def _update(self) -> None:
        self._new = 0
        if self._fixed is None:
            distance, agreement = self._evidence.columns
            self.distance = largest_distance(distance, agreement, self._seen.columns[0], self._least_agreement)


def largest_distance(distance: Floats, agreement: Floats, seen: Floats, least_agreement: float) -> float:
    """The largest distance within which answers would agree with fresh ones as far as asked; 0 if there is none.

    ``distance``, ``agreement`` (n,): the evidence. ``seen`` (m,): distances of all frames that were looked up. Where
    the cache answers, evidence is rare. So it only says how agreement depends on distance, in groups of ``_GROUP``; all
    frames say how much each group counts.
    """
    groups = len(distance) // _GROUP
    if not groups:
        return 0.0
    order = np.argsort(distance)[: groups * _GROUP]
    farthest = distance[order].reshape(groups, _GROUP)[:, -1]
    frames = np.diff(np.searchsorted(np.sort(seen), farthest, "right"), prepend=0)
    agreed = (frames * agreement[order].reshape(groups, _GROUP).mean(axis=1)).cumsum() / np.maximum(frames.cumsum(), 1)
    count = _GROUP * np.arange(1, groups + 1)
    error = np.sqrt(least_agreement * (1.0 - least_agreement) / count)
    enough = np.flatnonzero((agreed - _ERRORS * error >= least_agreement) & (count >= _LEAST_TRUSTED))
    return float(farthest[enough[-1]]) if len(enough) else 0.0
