"""A small tracker: assigns the boxes of each answer to tracks, and begins and ends tracks.

Boxes and tracks are assigned so that the sum of the squared distances is least (``linear_sum_assignment`` of scipy, the
Hungarian method as in SORT). A distance counts in standard deviations of what the track expects, so a track whose
velocity is not yet known accepts a box further away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from runtime.forecast.tracks import TRACK, Floats, Ints, Tracks, begun, corrected, position_variance, predicted

#: A box further away is another object: 99 % of the right ones are nearer (chi-squared with two degrees of freedom).
FARTHEST_SQUARED = 9.21
#: An answer that shows a smaller share of the tracks is of another scene: after a cut, or when the camera was moved.
SAME_SCENE_FRAC = 1 / 3


class BoxTracker:
    """Owns the tracks of one run; a ``controller.forecast.Forecaster`` of boxes [x, y, w, h, score] in pixels."""

    def __init__(self, picture: tuple[int, int]) -> None:
        """``picture``: width and height in pixels."""
        self._last = Tracks(-1, np.zeros(0, TRACK), np.zeros(0, np.int64), picture)
        self._next_id = 1

    def add(self, frame: int, prediction: Sequence[Sequence[float]]) -> Tracks | None:
        """The tracks with this answer; None when a newer frame was answered before."""
        if frame <= self._last.frame:
            return None
        boxes = np.array(prediction, np.float64).reshape(-1, 5)
        rows = predicted(self._last, frame)
        known, columns = _assigned(rows, boxes)
        rows[known] = corrected(rows[known], frame, boxes[columns])
        if len(boxes) and len(known) < SAME_SCENE_FRAC * len(rows):
            rows, known = rows[known], np.arange(len(known))
        return self._answered(frame, rows, boxes, known, columns)

    def add_part(self, frame: int, prediction: Sequence[Sequence[float]], kept: Sequence[int]) -> Tracks | None:
        """The tracks with an answer to a part of the picture. Its last boxes are where the tracks ``kept`` were
        expected: nothing is learned from them. A track that is gone begins anew."""
        if frame <= self._last.frame:
            return None
        boxes = np.array(prediction, np.float64).reshape(-1, 5)
        rows, seen = predicted(self._last, frame), len(boxes) - len(kept)
        own = _rows_of(rows, kept)
        others = np.setdiff1d(np.arange(len(rows)), own)
        known, columns = _assigned(rows[others], boxes[:seen])
        known = others[known]
        rows[known] = corrected(rows[known], frame, boxes[columns])
        there = np.flatnonzero(own >= 0)
        known, columns = np.concatenate((known, own[there])), np.concatenate((columns, seen + there))
        return self._answered(frame, rows, boxes, known, columns)

    def _answered(self, frame: int, rows: Any, boxes: Floats, known: Ints, columns: Ints) -> Tracks:
        """The tracks with an answer whose boxes ``columns`` show the tracks ``known``; each other box begins one."""
        answer_rows = np.full(len(boxes), -1)
        answer_rows[columns] = known
        new = np.flatnonzero(answer_rows < 0)
        answer_rows[new] = len(rows) + np.arange(len(new))
        rows = np.concatenate((rows, begun(frame, boxes[new], self._next_id)))
        self._next_id += len(new)
        self._last = Tracks(frame, rows, answer_rows, self._last.picture)
        return self._last


def _rows_of(rows: Any, track_ids: Sequence[int]) -> Ints:
    """(K,) place of each track among the rows; -1 where it is not among them any more."""
    place = {track: row for row, track in enumerate(rows["track_id"].tolist())}
    return np.array([place.get(track, -1) for track in track_ids], np.int64)


def _assigned(rows: Any, boxes: Floats) -> tuple[Ints, Ints]:
    """(K,) tracks, and the boxes (K,) that show them."""
    height = np.maximum(rows["size"][:, 1], 1.0)
    centre = boxes[:, :2] + boxes[:, 2:4] / 2
    squared = ((centre[None] - rows["centre"][:, None]) ** 2).sum(axis=2)
    squared /= (height**2 * position_variance(rows))[:, None]
    known, columns = linear_sum_assignment(np.minimum(squared, 2 * FARTHEST_SQUARED))
    near = squared[known, columns] < FARTHEST_SQUARED
    return known[near], columns[near]
