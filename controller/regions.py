"""Regions of interest: which part of a picture is run, and what the answer to a part says about the whole.

A decision with a *crop* of 0.6 runs a window of 0.6 of the picture's width and height, at the model's own resolution:
objects are larger for the network than in the whole picture, at the same computation. Motion says where the window
lies. The objects elsewhere are those of an earlier answer to a *whole* picture.

That answer is the one that a cropped frame refers to: the newest of a whole picture that is out. What changed since its
picture is where it no longer fits, so the window is the one that holds most of the change. Both are functions of two
pictures alone, so the twin knows them from the frame and the age of that answer.

A frame is run whole in place of its crop, if there is no such answer, or none to the last ``MOST_AGE`` frames; if
nothing changed; and if so much changed that the answer is of another scene, as after a cut or a move of the camera.

Boxes are [x, y, w, h, ...] in pixels of the picture. The window answers for the objects that lie in it entirely:

* a box that is found at an edge of the window inside the picture is cut off there, and not used;
* an earlier box that lies in the window entirely is gone, unless the box that shows its object now is cut off;
* the other earlier boxes stay, unless a box that is used shows the same object.

Pure numpy: the device, the recording and tests call the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from controller.errors import UsageError
from controller.records import Bools, Floats, Ints, Region
from controller.reuse import PastAnswer

#: The oldest answer to a whole picture that a cropped frame may refer to, in frames.
MOST_AGE = 8
#: Shares of the picture's width that make sense.
LEAST_CROP, MOST_CROP = 0.25, 0.9
#: Least change of a block, of 255, after averaging over its neighbours: more than the noise of a camera.
CHANGE_STEP = 12.0
#: Fewer changed blocks are noise, too.
LEAST_CHANGED = 4
#: A larger share of changed blocks is another scene.
MOST_CHANGED_FRAC = 0.5
#: Two boxes with this intersection over union show the same object. Less than for a right answer: one of them may be
#: cut off, and one is some frames old.
SAME_IOU = 0.3
#: A box that ends so near to the edge of the window, as a share of the window's width, is cut off there.
EDGE_FRAC = 0.01


class Window(NamedTuple):
    """A part of a picture, in whole pixels."""

    x: int
    y: int
    width: int
    height: int


class Completed(NamedTuple):
    """The answer to a whole picture, made of that to a part and of an earlier one."""

    prediction: list[list[float]]  # what was found in the part, then the earlier boxes that stay
    seen: int  # how many were found in the part
    kept: tuple[int, ...]  # the objects of the others; () where nothing is tracked


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a frame is run, and what it refers to."""

    window: Window
    reference: PastAnswer  # to the whole picture of an earlier frame
    picture: tuple[int, int]  # width and height in pixels

    def completed(self, found: Sequence[Sequence[float]], frame: int) -> Completed:
        """The answer to the whole picture of a frame; ``found``: that to the window, in pixels as if it were whole."""
        shown = self.reference.at(frame)
        seen, earlier = placed(found, self.window, self.picture), _boxes(shown.prediction)
        used, stays = joined(seen, earlier, self.window, self.picture)
        kept = () if shown.track_ids is None else tuple(shown.track_ids[k] for k in stays)
        return Completed([*seen[used].tolist(), *(list(shown.prediction[k]) for k in stays)], len(used), kept)

    def region(self, seen: int) -> Region:
        """For the outcome."""
        return Region(*self.window, seen)


def check_crop(crop: object) -> float:
    """The share as a number; UsageError where it cannot be one."""
    number = float(crop) if isinstance(crop, int | float | np.number) and not isinstance(crop, bool) else float("nan")
    if not LEAST_CROP <= number <= MOST_CROP:
        raise UsageError(
            f"crop {crop!r}; expected a share of the picture's width from {LEAST_CROP:g} to {MOST_CROP:g}, such as "
            "0.75, or no crop at all"
        )
    return number


# Where --------------------------------------------------------------------------------------------------------


def window_of(earlier: Any, now: Any, crop: float, picture: tuple[int, int]) -> Window | None:
    """The window with most change between small copies (h, w) of two pictures of ``picture`` (width, height) pixels.

    None where the whole picture must be run. Of equal windows, the one nearest to the middle of all of them.
    """
    changed = changed_blocks(earlier, now)
    if changed is None or not LEAST_CHANGED <= changed.sum() <= MOST_CHANGED_FRAC * changed.size:
        return None
    lines, columns = changed.shape
    high, wide = max(round(lines * crop), 1), max(round(columns * crop), 1)
    top, left = _fullest(changed, high, wide)
    width, height = round(picture[0] * crop), round(picture[1] * crop)
    x, y = round(left * picture[0] / columns), round(top * picture[1] / lines)
    return Window(min(x, picture[0] - width), min(y, picture[1] - height), width, height)


def changed_blocks(earlier: Any, now: Any) -> Bools | None:
    """(h, w) blocks of small copies (h, w) that differ; None where that cannot be said."""
    one, other = np.asarray(earlier, np.float32), np.asarray(now, np.float32)
    if one.shape != other.shape or one.ndim != 2:
        return None
    difference = np.pad(other - one, 1, mode="edge")
    if not np.isfinite(difference).all():
        return None
    lines, columns = one.shape
    rows = difference[:lines] + difference[1 : lines + 1] + difference[2:]
    mean = (rows[:, :columns] + rows[:, 1 : columns + 1] + rows[:, 2:]) / np.float32(9)
    return np.asarray(np.abs(mean) > CHANGE_STEP)


def _fullest(changed: Bools, high: int, wide: int) -> tuple[int, int]:
    """Top and left of the window of that size with most changed blocks, by sums over all windows at once."""
    total = np.zeros((changed.shape[0] + 1, changed.shape[1] + 1), np.int64)
    total[1:, 1:] = changed.cumsum(axis=0).cumsum(axis=1)
    inside = total[high:, wide:] - total[:-high, wide:] - total[high:, :-wide] + total[:-high, :-wide]
    tops, lefts = np.nonzero(inside == inside.max())
    nearest = int(np.argmin((tops - tops.mean()) ** 2 + (lefts - lefts.mean()) ** 2))
    return int(tops[nearest]), int(lefts[nearest])


# What it says -------------------------------------------------------------------------------------------------


def placed(found: Sequence[Sequence[float]], window: Window, picture: tuple[int, int]) -> Floats:
    """(n, 5) boxes of the picture, to 0.1 pixel, from boxes that take the window for the whole picture."""
    boxes = _boxes(found)
    scale = np.array([window.width / picture[0], window.height / picture[1]])
    boxes[:, :2] = np.round(boxes[:, :2] * scale + (window.x, window.y), 1)
    boxes[:, 2:4] = np.round(boxes[:, 2:4] * scale, 1)
    return boxes


def joined(seen: Floats, earlier: Floats, window: Window, picture: tuple[int, int]) -> tuple[Ints, Ints]:
    """Which of the boxes ``seen`` (n, 4+) in a window are used, and which ``earlier`` ones (m, 4+) stay."""
    whole = _inside(seen, window, picture, EDGE_FRAC * window.width)
    same = _iou(seen, earlier) >= SAME_IOU
    cut_off = same[~whole].any(axis=0)
    stays = (~_inside(earlier, window, picture) | cut_off) & ~same[whole].any(axis=0)
    return np.flatnonzero(whole), np.flatnonzero(stays)


def _inside(boxes: Floats, window: Window, picture: tuple[int, int], margin: float = 0.0) -> Bools:
    """(n,) boxes that lie in the window entirely. What ends at the edge of the picture is not cut off by the window."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:4]
    least = np.array([window.x + margin if window.x > 0 else -np.inf, window.y + margin if window.y > 0 else -np.inf])
    right, bottom = window.x + window.width, window.y + window.height
    most = np.array(
        [right - margin if right < picture[0] else np.inf, bottom - margin if bottom < picture[1] else np.inf]
    )
    return np.asarray(((low >= least) & (high <= most)).all(axis=1))


def _iou(a: Floats, b: Floats) -> Floats:
    """(n, m) intersection over union of boxes (n, 4+) and (m, 4+)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:4])[:, None], (b[:, :2] + b[:, 2:4])[None])
    shared = np.maximum(high - low, 0.0).prod(axis=2)
    union = a[:, 2:4].prod(axis=1)[:, None] + b[:, 2:4].prod(axis=1)[None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def _boxes(prediction: Sequence[Sequence[float]]) -> Floats:
    return np.array(prediction, np.float64).reshape(len(prediction), -1 if len(prediction) else 5)
