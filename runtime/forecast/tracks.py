"""Tracks of objects at one frame: where each is, how fast it moves, and how sure that is.

A track is a Kalman filter of constant velocity (Kalman 1960; for boxes: Bewley et al., "Simple Online and Realtime
Tracking", ICIP 2016). Both axes have the same uncertainty in units of the object's height, because near objects move
further in the picture than far ones. So one covariance of 2 x 2 serves both axes. Time is counted in frames.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.forecast import Shown

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Chosen on the validation split of campus (docs/forecast.md). Lengths are in heights of the object, times in frames.
MEASURED_STD = 0.05  # error of a detected position
ACCELERATION_STD = 0.01  # change of the velocity in one frame
FIRST_VELOCITY_STD = 0.12  # of an object that was seen once
#: A track without an observation for more frames is gone. Forecasts reach as far; after that, boxes stand still.
MAX_GAP = 10
#: A track that the newest answer does not show stays visible only if it was seen this often.
CONFIRMED = 2

#: One track.
TRACK = np.dtype(
    [
        ("centre", "f8", 2),  # x, y in pixels
        ("velocity", "f8", 2),  # pixels per frame
        ("size", "f8", 2),  # width, height in pixels; stays the same between two observations
        ("covariance", "f8", 3),  # of position, of position and velocity, of velocity; in heights and frames
        ("score", "f8"),  # of the last observation
        ("track_id", "i8"),
        ("seen", "i8"),  # last frame in which it was observed
        ("observed", "i8"),  # how often it was observed
    ]
)


class Tracks(NamedTuple):
    """The tracks at one frame, with the answer to it; a ``controller.forecast.Forecast``. Arrays never change."""

    frame: int
    rows: Any  # (N,) TRACK
    answer_rows: Ints  # (M,) track of each box of the answer
    picture: tuple[int, int]  # width, height in pixels

    @property
    def track_ids(self) -> tuple[int, ...]:
        """The track of each box of the answer."""
        return tuple(self.rows["track_id"][self.answer_rows].tolist())

    @property
    def speed(self) -> float | None:
        """Mean speed of the objects that are shown, in heights of each per frame: 0 without objects, None if each was
        seen only once.

        Objects that were seen once do not count: how fast they are is not yet known.
        """
        shown = self.rows[self._shown(self.frame)]
        if not len(shown):
            return 0.0
        known = shown[shown["observed"] >= CONFIRMED]
        if not len(known):
            return None
        return float(np.mean(np.hypot(*known["velocity"].T) / np.maximum(known["size"][:, 1], 1.0)))

    def at(self, frame: int) -> Shown:
        """Boxes [x, y, w, h, score] at a later frame, clipped to the picture, and their tracks.

        Confirmed tracks that the answer misses are shown too, unless it is empty: then nobody is there.
        """
        rows = self.rows
        centre = rows["centre"] + min(frame - self.frame, MAX_GAP) * rows["velocity"]
        shown = self._shown(frame) & _inside(centre, self.picture)
        half = 0.5 * rows["size"]
        low, high = (np.clip(corner, 0.0, self.picture)[shown] for corner in (centre - half, centre + half))
        boxes = np.column_stack((np.round(low, 1), np.round(high - low, 1), rows["score"][shown]))
        return Shown(boxes.tolist(), tuple(rows["track_id"][shown].tolist()))

    def _shown(self, frame: int) -> Bools:
        """(N,) whether each track is shown, wherever it is."""
        rows, shown = self.rows, np.zeros(len(self.rows), np.bool_)
        shown[self.answer_rows] = True
        if len(self.answer_rows):
            shown |= (rows["observed"] >= CONFIRMED) & (frame - rows["seen"] <= MAX_GAP)
        return np.asarray(shown)


def begun(frame: int, boxes: Floats, first_id: int) -> Any:
    """(K,) a new TRACK for each of ``boxes`` (K, 5): x, y, w, h, score."""
    rows = np.zeros(len(boxes), TRACK)
    rows["centre"] = boxes[:, :2] + boxes[:, 2:4] / 2
    rows["size"] = boxes[:, 2:4]
    rows["covariance"] = MEASURED_STD**2, 0.0, FIRST_VELOCITY_STD**2
    rows["score"] = boxes[:, 4]
    rows["track_id"] = np.arange(first_id, first_id + len(boxes))
    rows["seen"], rows["observed"] = frame, 1
    return rows


def predicted(tracks: Tracks, frame: int) -> Any:
    """(n,) TRACK at a later frame, without those that are gone."""
    elapsed, rows = frame - tracks.frame, tracks.rows.copy()
    _, both, velocity = rows["covariance"].T.copy()
    noise = ACCELERATION_STD**2 * elapsed
    rows["centre"] += elapsed * rows["velocity"]
    rows["covariance"][:, 0] += 2 * elapsed * both + elapsed**2 * velocity + noise * elapsed**2 / 3
    rows["covariance"][:, 1] += elapsed * velocity + noise * elapsed / 2
    rows["covariance"][:, 2] += noise
    return rows[(frame - rows["seen"] <= MAX_GAP) & _inside(rows["centre"], tracks.picture)]


def position_variance(rows: Any) -> Floats:
    """(N,) of a detected position about the expected one, in squared heights."""
    return np.asarray(rows["covariance"][:, 0] + MEASURED_STD**2)


def corrected(rows: Any, frame: int, boxes: Floats) -> Any:
    """(K,) TRACK after an observation of each at this frame, as ``boxes`` (K, 5)."""
    position, both, velocity = rows["covariance"].T
    variance = position_variance(rows)
    gain, velocity_gain = position / variance, both / variance
    error = boxes[:, :2] + boxes[:, 2:4] / 2 - rows["centre"]
    found = rows.copy()
    found["centre"] += gain[:, None] * error
    found["velocity"] += velocity_gain[:, None] * error
    found["size"] += gain[:, None] * (boxes[:, 2:4] - rows["size"])
    found["covariance"] = np.column_stack(((1 - gain) * position, (1 - gain) * both, velocity - velocity_gain * both))
    found["score"], found["seen"] = boxes[:, 4], frame
    found["observed"] += 1
    return found


def _inside(centre: Floats, picture: tuple[int, int]) -> Bools:
    """(N,) whether the middle of each box is in the picture. An object whose middle has left it is leaving."""
    return np.asarray(((centre >= 0.0) & (centre <= picture)).all(axis=1))
