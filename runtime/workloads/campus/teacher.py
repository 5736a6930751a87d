"""The automatic teacher that made the campus labels, by background subtraction over the whole video.

The camera does not move and nobody stands still for half of the video, so the median of all frames is the empty scene.
Pixels that differ from it belong to a person, except weak darkening (shadows) and the fluttering barrier tape. Parts of
a person that are separated by a pole or sign are joined; groups are split at their heads. The height of a person is a
function of the row of the feet, fitted on single people. Boxes are then linked over frames into tracks; gaps are
filled, outliers corrected, positions smoothed, and short tracks dropped.

The labels were not checked box by box. Scores against them state how well a model agrees with the teacher. Its known
mistakes are people who enter hidden behind others, and inexact boxes in tight groups.

Make the labels again with `python -m runtime.workloads.campus.teacher [DIRECTORY OF THE VIDEO]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.workloads.campus.labels import write_labels
from runtime.workloads.campus.tracks import Track, link
from runtime.workloads.campus.workload import Campus
from runtime.workloads.types import Image, Images

Mask = NDArray[np.uint8]
Box = NDArray[np.float64]  # left, top, right, bottom
Floats = NDArray[np.float64]

MEDIAN_EVERY = 5
DIFFERENCE = 24  # least difference of a pixel's strongest channel; the 99th percentile of the noise is 9
SHADOW_DIFFERENCE = 48  # the same for a pixel that keeps its colour and is only darker
SHADOW_CHROMA = 0.025  # largest change of a pixel's share of red, green or blue in a shadow
TAPE_BOTTOM_PX = 275  # the barrier tape flutters above this row ...
TAPE_HEIGHT_PX = 7  # ... and is thinner than this
SIGN = (410, 448, 200, 246)  # left, right, top, bottom of the sign that hides people
POLE = (422, 440, 30, 392)  # left, right, top, bottom of the lamp post, which divides people in two
WIDTH_FRAC = 0.4  # usual width of a walking person, as a share of the height
WIDE_FRAC = 0.68  # a component wider than this share of the height is a group
RESIDUAL_FRAC = 0.45  # a residual taller than this share of a person's height is another person
HEIGHTS = (0.5, 1.45)  # range of a component's height, as a share of the expected height
LEAST_AREA_FRAC = 0.12  # least area of a component, as a share of the expected height squared


def background(frames: Images) -> Image:
    """Median of every fifth frame, computed in bands of rows to limit the memory."""
    some = frames[::MEDIAN_EVERY]
    bands = [np.median(some[:, top : top + 48], axis=0) for top in range(0, frames.shape[1], 48)]
    return np.concatenate(bands).astype(np.uint8)


def foreground(frame: Image, empty: Image) -> Mask:
    """Mask (h, w) of a frame: 255 on people, else 0. ``empty`` is the empty scene."""
    now, then = (np.asarray(cv2.GaussianBlur(image, (3, 3), 0), np.uint8) for image in (frame, empty))
    difference = cv2.absdiff(now, then).max(axis=2)
    mask = difference > DIFFERENCE
    mask &= (difference > SHADOW_DIFFERENCE) | ~_shadow(now, then)
    found = mask.astype(np.uint8) * 255
    upright = np.ones((TAPE_HEIGHT_PX, 1), np.uint8)
    found[:TAPE_BOTTOM_PX] = cv2.morphologyEx(found[:TAPE_BOTTOM_PX], cv2.MORPH_OPEN, upright)
    found = np.asarray(cv2.medianBlur(found, 3), np.uint8)
    left, right, top, bottom = POLE
    around = found[top:bottom, left - 12 : right + 12]
    found[top:bottom, left - 12 : right + 12] = cv2.morphologyEx(around, cv2.MORPH_CLOSE, np.ones((1, 15), np.uint8))
    return np.asarray(cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((9, 5), np.uint8)), np.uint8)


def _shadow(now: Image, then: Image) -> NDArray[np.bool_]:
    """(h, w) whether a pixel is darker than before but of the same colour."""
    a, b = now.astype(np.float32), then.astype(np.float32)
    sum_a, sum_b = a.sum(axis=2) + 1.0, b.sum(axis=2) + 1.0
    chroma = np.abs(a / sum_a[..., None] - b / sum_b[..., None]).max(axis=2)
    return np.asarray((sum_a < sum_b) & (sum_a > 0.6 * sum_b) & (chroma < SHADOW_CHROMA))


class Heights:
    """The height of a person in pixels, as a linear function of the row of the feet."""

    def __init__(self, slope: float = 0.31, base: float = -2.0) -> None:
        self.slope, self.base = slope, base

    def of(self, bottom: float) -> float:
        """Height of a person whose feet are at a row."""
        return max(self.slope * bottom + self.base, 20.0)

    def below(self, top: float) -> float:
        """Height of a person whose head is at a row (solves top + height = foot, height = slope * foot + base)."""
        return max((self.slope * top + self.base) / (1.0 - self.slope), 20.0)

    def fitted(self, boxes: Floats) -> Heights:
        """Fit on boxes (n, 4) with outliers: least squares, then three times again without the worst boxes."""
        bottom, height = boxes[:, 3], boxes[:, 3] - boxes[:, 1]
        keep = np.ones(len(boxes), bool)
        slope, base = self.slope, self.base
        for _ in range(4):
            slope, base = np.polyfit(bottom[keep], height[keep], 1).tolist()
            keep = np.abs(height / (slope * bottom + base) - 1.0) < 0.15
        return Heights(slope, base)


def components(mask: Mask) -> list[tuple[Box, Mask]]:
    """Bounding box and mask (of the whole frame) of each connected part."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    parts = [(stats[i], i) for i in range(1, count) if stats[i][cv2.CC_STAT_AREA] >= 25]
    return [(_corners(stat), (labels == i).astype(np.uint8)) for stat, i in parts]


def _corners(stat: NDArray[Any]) -> Box:
    x, y, w, h = (float(value) for value in stat[:4])
    return np.array([x, y, x + w, y + h])


def joined(parts: list[tuple[Box, Mask]], heights: Heights) -> list[tuple[Box, Mask]]:
    """Join parts above one another that together are not taller than one person."""
    parts = sorted(parts, key=lambda part: part[0][1])
    for upper in range(len(parts)):
        for lower in range(upper + 1, len(parts)):
            a, b = parts[upper][0], parts[lower][0]
            if a[2] > a[0] and b[2] > b[0] and _same_body(a, b, heights):
                union = np.concatenate((np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])))
                parts[upper] = (union, parts[upper][1] | parts[lower][1])
                parts[lower] = (np.zeros(4), parts[lower][1])
    return [part for part in parts if part[0][2] > part[0][0]]


def _same_body(a: Box, b: Box, heights: Heights) -> bool:
    bottom, top = max(a[3], b[3]), min(a[1], b[1])
    expected = heights.of(bottom)
    if bottom - top > 1.2 * expected or max(a[3] - a[1], b[3] - b[1]) > 0.9 * expected:
        return False
    gap_x, gap_y = max(a[0], b[0]) - min(a[2], b[2]), b[1] - a[3]
    width = max(a[2], b[2]) - min(a[0], b[0])
    if width > 0.65 * expected:
        return False
    behind_sign = min(a[2], b[2]) > SIGN[0] - 5 and max(a[0], b[0]) < SIGN[1] + 5 and gap_y < SIGN[3] - SIGN[2] + 8
    near = gap_x < 0.05 * expected and gap_y < 0.2 * expected
    return bool(near or (behind_sign and gap_x < 14))


def people_in(frame: Image, empty: Image, heights: Heights) -> Iterator[Box]:
    """Boxes of the people in one frame; groups are split at their heads."""
    for box, part in joined(components(foreground(frame, empty)), heights):
        expected = heights.of(box[3])
        hidden = box[0] <= 2 or box[2] >= frame.shape[1] - 2 or (box[0] < SIGN[1] and box[2] > SIGN[0])
        area = float(part[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])].sum())
        if box[3] - box[1] < HEIGHTS[0] * expected or area < (0.3 if hidden else 1.0) * LEAST_AREA_FRAC * expected**2:
            continue
        yield from split(box, part, heights)


def split(box: Box, part: Mask, heights: Heights) -> Iterator[Box]:
    """One box per head of a group; the box of the component if it has one head."""
    left, top, right, bottom = (int(value) for value in box)
    body = part[top:bottom, left:right]
    heads = _heads(body, top, heights)
    if len(heads) < 2:
        yield from _split_by_residual(box, body, heads, heights)
        return
    columns = np.arange(body.shape[1])
    owner = np.abs(columns[:, None] - np.array([x for x, _ in heads])[None]).argmin(axis=1)
    for number, (x, y) in enumerate(heads):
        height = heights.below(top + y)
        reach = 0.3 * height
        mine = body.copy()
        mine[:, (owner != number) | (np.abs(columns - x) > reach)] = 0
        mine[: max(y - 2, 0)] = 0
        mine[int(y + 1.12 * height) :] = 0
        rows, cols = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
        if len(rows) and rows[-1] - rows[0] > 0.5 * height:
            feet = max(rows[-1] + 1.0, y + 0.9 * height)
            half = 0.15 * height  # least half width of a body, even behind another person
            yield np.array(
                [left + min(cols[0], x - half), top + y, left + max(cols[-1] + 1.0, x + half), top + feet], np.float64
            )


def _split_by_residual(box: Box, body: Mask, heads: list[tuple[int, int]], heights: Heights) -> Iterator[Box]:
    """Split a component with one head: if the person below it leaves a large residual, locate others by their feet."""
    left, top, _, bottom = box
    height = heights.below(top)
    wide, tall = box[2] - left > WIDE_FRAC * heights.of(bottom), bottom - top > 1.2 * height
    if not heads or not (wide or tall):
        yield box
        return
    x = heads[0][0]
    half = WIDTH_FRAC / 2 * height
    rest = body.copy()
    rest[: int(1.03 * height), max(int(x - half), 0) : int(x + half) + 1] = 0
    rest = np.asarray(cv2.morphologyEx(rest, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)), np.uint8)
    others = [
        other for stat in cv2.connectedComponentsWithStats(rest)[2][1:] if (other := _by_feet(stat, box, heights))
    ]
    if not others:
        yield box
        return
    yield np.array([max(left + x - half, left), top, min(left + x + half, box[2]), min(top + height, bottom)])
    for other in others:
        yield np.array(other)


def _by_feet(stat: NDArray[Any], box: Box, heights: Heights) -> tuple[float, float, float, float] | None:
    """Corners of the person whose lower part is the residual ``stat``; None if the residual is too small."""
    x, y, w, h = (float(value) for value in stat[:4])
    feet = box[1] + y + h
    expected = heights.of(feet)
    residual_is_feet = h > RESIDUAL_FRAC * expected or (feet >= box[3] - 3 and feet - box[1] > 1.2 * expected)
    if not residual_is_feet or h < 0.2 * expected or w < 0.12 * expected:
        return None
    seen_top = box[1] + y
    top = seen_top if h > 0.8 * expected else max(feet - expected, box[1])
    middle, half = box[0] + x + w / 2, max(w / 2, 0.17 * expected)
    return max(middle - half, box[0]), top, min(middle + half, box[2]), feet


def _heads(body: Mask, top: int, heights: Heights) -> list[tuple[int, int]]:
    """(column, row) of the peaks of a silhouette's upper edge that are separate from higher peaks."""
    rows = len(body)
    edge = np.where(body.any(axis=0), body.argmax(axis=0), rows).astype(np.float64)
    height = heights.below(top)
    apart = max(int(0.26 * height), 6)
    smooth = cv2.GaussianBlur(edge[None], (2 * (apart // 4) + 1, 1), 0)[0]
    heads: list[tuple[int, int]] = []
    for x in np.argsort(smooth, kind="stable").tolist():
        if edge[x] > rows - 0.5 * height:
            break
        if all(_separate(smooth, x, other, apart, height) for other, _ in heads):
            heads.append((x, int(edge[x])))
    return heads


def _separate(edge: Floats, x: int, other: int, apart: int, height: float) -> bool:
    """Whether the edge dips between two columns, as between two heads. Towards a shoulder it falls without a dip."""
    low, high = min(x, other), max(x, other)
    if high - low < apart:
        return False
    return bool(edge[low : high + 1].max() - edge[x] > 0.07 * height)


def single(boxes: Floats, width: int) -> Floats:
    """The boxes (n, 4) that have the shape of one whole person; ``width`` is that of the frame."""
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    inside = (boxes[:, 0] > 3) & (boxes[:, 2] < width - 3)
    return boxes[inside & (h / w > 1.9) & (h / w < 3.6) & (h > 40)]


def make_labels(frames: Images) -> list[Floats]:
    """Boxes (n, 4) x, y, w, h of each frame."""
    empty = background(frames)
    heights = Heights()
    first = [box for frame in frames[::5] for box in people_in(frame, empty, heights)]
    heights = heights.fitted(single(np.stack(first), frames.shape[2]))
    print(f"height = {heights.slope:.3f} * foot row + {heights.base:.1f}", file=sys.stderr)
    found = [np.array(list(people_in(frame, empty, heights))).reshape(-1, 4) for frame in frames]
    return _per_frame(link(found, heights.of), len(frames), frames.shape[2], frames.shape[1])


def _per_frame(tracks: list[Track], count: int, width: int, height: int) -> list[Floats]:
    labels: list[list[Floats]] = [[] for _ in range(count)]
    for track in tracks:
        for number, (left, top, right, bottom) in zip(track.frames, track.boxes, strict=True):
            left, right = np.clip((left, right), 0, width)
            top, bottom = np.clip((top, bottom), 0, height)
            if right - left >= 5 and bottom - top >= 15:
                labels[number].append(np.array([left, top, right - left, bottom - top]))
    return [np.array(boxes, np.float64).reshape(-1, 4) for boxes in labels]


def main(arguments: list[str]) -> int:
    """Label the whole video and write the shipped file."""
    campus = Campus(Path(arguments[0]) if arguments else None)
    write_labels(make_labels(np.concatenate([campus.frames(part) for part in ("train", "validation", "test")])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
