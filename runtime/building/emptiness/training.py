"""From labelled footage to a file that knows empty frames: fit the network, then set the threshold on later frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.errors import UsageError
from runtime.building.emptiness.fitting import fitted, median_level
from runtime.building.emptiness.footage import Labelled
from runtime.emptiness.background import Small
from runtime.emptiness.network import Weights
from runtime.emptiness.scene import Scene
from runtime.sources.window import Window
from runtime.workloads.boxes import inside

#: Frames that the network is fitted to: half of them with a target, where there are so many.
MOST_FITTED = 600
#: Fewer cannot be fitted to.
LEAST_FITTED = 32
#: Windows in which more than this share of the frames holds a target do not count: they hold several at a time, which
#: are easier to find.
MOST_BUSY = 0.5


@dataclass(frozen=True)
class Fitted:
    """A network, and the background of whole frames."""

    weights: Weights
    level: Small
    step: int  # pixels of a frame per pixel of its small copy


@dataclass(frozen=True)
class Calibrated:
    """A threshold for one window, and how well it does on the frames that it was set on."""

    level: Small  # background of the window
    threshold: float
    counted: int  # frames with a target, of all windows
    windows: int
    recall: float  # in the window itself
    filtered: float  # share of its empty frames


def fit(footage: Labelled, step: int, seed: int = 0) -> Fitted:
    """Fit the network to whole frames, and take their median for the background."""
    rows = chosen([bool(found) for found in footage.boxes])
    smalls = [small.astype(np.float32) for small in footage.smalls]
    weights = fitted([smalls[row] for row in rows], [footage.boxes[row] for row in rows], step, seed)
    return Fitted(weights, median_level(smalls), step)


def calibrated(found: Fitted, footage: Labelled, window: Window, recall: float) -> Calibrated:
    """Set the threshold on frames that came after those of ``found``.

    It is the order statistic of the scores of frames with a target that a new such frame reaches with the probability
    ``recall``, if frames are exchangeable (split conformal prediction: Vovk, Gammerman and Shafer, 2005). One window
    rarely has enough such frames, so windows of the same size near it count alike: people there look alike.
    """
    played = {each: scored(found, footage, each) for each in windows_near(window, found.level.shape, found.step)}
    counted = [scores[holds] for scores, holds in played.values() if holds.any() and holds.mean() <= MOST_BUSY]
    pooled = np.concatenate(counted or [np.zeros(0)])
    threshold = reached_by(pooled, recall)
    own, holds = played[window]
    return Calibrated(
        found.level[small_place(window, found.step)],
        threshold,
        len(pooled),
        len(counted),
        float((own[holds] >= threshold).mean()) if holds.any() else math.nan,
        float((own[~holds] < threshold).mean()) if (~holds).any() else math.nan,
    )


def chosen(holds: list[bool]) -> NDArray[np.int64]:
    """Rows of the frames to fit to, in order: evenly spread over those with a target, and over the others."""
    if len(holds) < LEAST_FITTED:
        raise UsageError(f"got {len(holds)} frames to train on; expected at least {LEAST_FITTED}, better some minutes")
    found = np.array(holds)
    busy, empty = (np.flatnonzero(mask) for mask in (found, ~found))
    most = max(MOST_FITTED // 2, MOST_FITTED - len(empty))
    few = _spread(busy, most)
    return np.sort(np.concatenate((few, _spread(empty, MOST_FITTED - len(few)))))


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))] if len(rows) else rows


def windows_near(window: Window, small: tuple[int, ...], step: int) -> list[Window]:
    """The window, and those of its size up to half of it away, at distances of a quarter of its width and a third of
    its height."""
    across, down = (max(step, side // parts // step * step) for side, parts in ((window.w, 4), (window.h, 3)))
    lefts = _near(window.x, across, window.w, small[1] * step)
    tops = _near(window.y, down, window.h, small[0] * step)
    return [Window(x, y, window.w, window.h) for y in tops for x in lefts]


def _near(at: int, by: int, side: int, limit: int) -> list[int]:
    """Where a side may begin: up to half of it before or after, inside of the frame."""
    most = side // 2 // by
    return [at + by * n for n in range(-most, most + 1) if at + by * n >= 0 and at + by * n + side <= limit]


def small_place(window: Window, step: int) -> tuple[slice, slice]:
    """Where the window is in a small copy."""
    return Window(*(side // step for side in window)).place


def scored(found: Fitted, footage: Labelled, window: Window) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N,) score of each frame in order, and (N,) whether it holds a target."""
    place = small_place(window, found.step)
    scene = Scene(found.weights, found.level[place])
    scores = [scene.look(small[place].astype(np.float32)) for small in footage.smalls]
    return np.array(scores), np.array([bool(inside(boxes, window)) for boxes in footage.boxes])


def reached_by(scores: NDArray[np.float64], recall: float) -> float:
    """The largest threshold that a further score reaches with this probability; the lowest score where there are too
    few to say so. Finite."""
    if not len(scores):
        raise UsageError("no later frame of the footage holds a target; expected longer footage, with some targets")
    rank = math.floor((len(scores) + 1) * (1.0 - recall))
    return float(min(np.sort(scores)[max(rank, 1) - 1], 50.0))
