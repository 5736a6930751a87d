"""Link the boxes of single frames into tracks of people, fill gaps, and smooth positions.

The whole video is available, so every step may look ahead. Boxes are left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.workloads.boxes import iou

Floats = NDArray[np.float64]

LONGEST_GAP = 20  # most frames for which a person may be hidden
SHORTEST_TRACK = 6  # least number of frames in which the person was found
LEAST_OVERLAP = 0.12  # IoU of a box with the expected box of its track
OUTLIER_FRAC = 0.15  # a height that differs more than this from the track's median is an error
NEIGHBOURHOOD = 12  # frames to each side over which the median size of a track is computed
DOUBLE_IOU = 0.55  # two different people overlap this much only for a moment
SMOOTHED_OVER = 1.2  # standard deviation in frames


@dataclass
class Track:
    """One person's boxes at increasing frames."""

    frames: list[int]
    boxes: list[Floats]

    def expected(self, frame: int) -> Floats:
        """Box (4,) expected at a frame, extrapolated with the mean motion of the last boxes."""
        ago = max(len(self.boxes) - 6, 0)
        elapsed = self.frames[-1] - self.frames[ago]
        if elapsed < 2:
            return self.boxes[-1]
        feet = [(self.boxes[i][[0, 2]].mean(), self.boxes[i][1]) for i in (ago, -1)]
        dx, dy = ((b - a) / elapsed * (frame - self.frames[-1]) for a, b in zip(*feet, strict=True))
        return np.asarray(self.boxes[-1] + (dx, dy, dx, dy))


def link(found: list[Floats], height_at: Callable[[float], float]) -> list[Track]:
    """Tracks without gaps, from the boxes (n, 4) of each frame.

    ``height_at`` returns the expected height of a person, in pixels, from the row of the feet.
    """
    tracks = [track for track in _linked(found) if len(track.frames) >= SHORTEST_TRACK]
    whole = [_filled(_corrected(track)) for track in tracks if _is_person(track, height_at)]
    return [_smoothed(track) for track in whole if not any(_duplicates(track, other) for other in whole)]


def _linked(found: list[Floats]) -> list[Track]:
    from scipy.optimize import linear_sum_assignment

    open_tracks: list[Track] = []
    closed: list[Track] = []
    for number, boxes in enumerate(found):
        closed += [track for track in open_tracks if number - track.frames[-1] > LONGEST_GAP]
        open_tracks = [track for track in open_tracks if number - track.frames[-1] <= LONGEST_GAP]
        taken = set()
        if open_tracks and len(boxes):
            overlap = iou(np.array([track.expected(number) for track in open_tracks]), boxes)
            for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
                if overlap[row, column] > LEAST_OVERLAP:
                    open_tracks[row].frames.append(number)
                    open_tracks[row].boxes.append(boxes[column])
                    taken.add(column)
        open_tracks += [Track([number], [box]) for column, box in enumerate(boxes) if column not in taken]
    return closed + open_tracks


def _duplicates(track: Track, other: Track) -> bool:
    """Whether a track duplicates a longer one: it has the same boxes most of the time."""
    if len(track.frames) >= len(other.frames):
        return False
    boxes = dict(zip(other.frames, other.boxes, strict=True))
    pairs = [(box, boxes[n]) for n, box in zip(track.frames, track.boxes, strict=True) if n in boxes]
    if len(pairs) < 0.7 * len(track.frames):
        return False
    return bool(np.median([iou(a[None], b[None])[0, 0] for a, b in pairs]) > DOUBLE_IOU)


def _is_person(track: Track, height_at: Callable[[float], float]) -> bool:
    """Whether the track is as tall as a person at its position, most of the time."""
    ratio = np.median([(box[3] - box[1]) / height_at(box[3]) for box in track.boxes])
    return bool(0.7 < ratio < 1.35)


def _corrected(track: Track) -> Track:
    """Correct heights and widths that differ too much from their median over the neighbouring frames.

    Of top and bottom, the side that deviates from its own trend is moved.
    """
    boxes, frames = np.array(track.boxes), np.array(track.frames)
    corrected = boxes.copy()
    for row, number in enumerate(frames):
        near = np.abs(frames - number) <= NEIGHBOURHOOD
        usual = np.median(boxes[near, 3] - boxes[near, 1])
        top, bottom = boxes[row, 1], boxes[row, 3]
        if abs((bottom - top) / usual - 1.0) <= OUTLIER_FRAC:
            continue
        line = [np.polyval(np.polyfit(frames[near] - number, boxes[near, side], 1), 0.0) for side in (1, 3)]
        if abs(top - line[0]) <= abs(bottom - line[1]):
            corrected[row, 3] = top + usual
        else:
            corrected[row, 1] = bottom - usual
    widths = boxes[:, 2] - boxes[:, 0]
    for row, number in enumerate(frames):
        usual = np.median(widths[np.abs(frames - number) <= NEIGHBOURHOOD])
        if widths[row] > 1.6 * usual:
            middle = boxes[row, [0, 2]].mean()
            corrected[row, [0, 2]] = middle - usual / 2, middle + usual / 2
    return Track(track.frames, list(corrected))


def _filled(track: Track) -> Track:
    """Interpolate the boxes of missing frames."""
    every = np.arange(track.frames[0], track.frames[-1] + 1)
    boxes = np.array(track.boxes)
    sides = [np.interp(every, track.frames, boxes[:, side]) for side in range(4)]
    return Track(every.tolist(), list(np.stack(sides, 1)))


def _smoothed(track: Track) -> Track:
    """Smooth the boxes over time with a Gaussian."""
    boxes = np.array(track.boxes)
    offsets = np.arange(-3, 4)
    weights = np.exp(-0.5 * (offsets / SMOOTHED_OVER) ** 2)
    rows = np.arange(len(boxes))[:, None] + offsets
    exists = (rows >= 0) & (rows < len(boxes))
    # A one-sided window at an end would pull the box back along its motion, so windows are kept symmetric.
    exists &= exists[:, ::-1]
    share = np.where(exists, weights, 0.0)
    share /= share.sum(axis=1, keepdims=True)
    smooth = np.einsum("nk,nks->ns", share, boxes[np.clip(rows, 0, len(boxes) - 1)])
    return Track(track.frames, list(smooth))
