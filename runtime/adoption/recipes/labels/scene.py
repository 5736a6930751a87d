"""The scene: a belt that carries goods past a fixed camera; frame by frame a picture and the boxes of its text.

World coordinates are metres: x along the belt to the right, y up from the belt, z away from the camera. Nothing is
drawn twice: every good has a seed of its own, and at the borders between training, validation and test frames the belt
is empty, so that no good is in two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.adoption.recipes.labels.goods import TEXELS_PER_M, Face, Good, Points, make_good

WIDTH_PX, HEIGHT_PX, FPS = 640, 480, 5.0
#: Shares of the footage after which validation and test begin.
BORDERS = (0.5, 0.7)
#: Text counts as visible when its box is at least so high, in pixels, when so much of it lies in the picture, and when
#: its lines and letters are seen at least so long as from straight ahead.
LEAST_TEXT_PX, LEAST_VISIBLE, LEAST_UPRIGHT = 6.0, 0.25, 0.4

_FOCAL_PX = 900.0
_EYE = np.array([0.0, 0.34, -0.72])
_LOOK_AT = np.array([0.0, 0.115, 0.12])
_HALF_VIEW_M = 0.5  # a good further than that from the middle, and its own reach, is out of view
_GAP_M = (0.01, 0.10)
_SPEED_M_S = 0.17
_SHUTTER_S = 0.02
_PX_PER_M = 1000  # about, of the faces of goods
_BELT_Z = (-0.03, 0.36)

Boxes = NDArray[np.float64]  # (texts, x y w h) in pixels


@dataclass(frozen=True)
class _Passing:
    """A good and how far the belt has run when it passes the middle."""

    good: Good
    at_m: float


class Scene:
    """Owns the goods and all randomness of the footage of a seed."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.frames = round(seconds * FPS)
        self._seed = seed
        self._run_m = _belt_run(self.frames, np.random.default_rng([seed, 0]))
        self._passing = self._arranged()
        rng = np.random.default_rng([seed, 1])
        self._wall, self._belt = _wall(rng), _belt(rng)
        self._view = _Camera()
        self._light = _Light(self.frames, np.random.default_rng([seed, 2]))

    def frame(self, number: int) -> tuple[NDArray[np.uint8], Boxes]:
        """Picture (480, 640, 3), blue-green-red, and the boxes of the text that is visible in it."""
        run_m = float(self._run_m[number])
        picture = self._background(run_m)
        boxes = []
        for passing in self._passing:
            offset = run_m - passing.at_m
            if abs(offset) < _HALF_VIEW_M + passing.good.reach:
                boxes.append(self._draw(picture, passing.good, np.array([offset, 0.0, 0.0])))
        speed_px = (run_m - float(self._run_m[max(number - 1, 0)])) * FPS * _SHUTTER_S * _PX_PER_M
        if speed_px >= 1.5:
            picture = self._blurred(picture, round(speed_px))
        rng = np.random.default_rng([self._seed, 3, number])
        return self._light.on(picture, number, rng), np.concatenate([np.zeros((0, 4)), *boxes])

    def _arranged(self) -> list[_Passing]:
        rng = np.random.default_rng([self._seed, 4])
        borders = [float(self._run_m[round(share * self.frames)]) for share in BORDERS]
        passing, at_m, number = [], -_HALF_VIEW_M, 0
        while at_m < self._run_m[-1] + 2 * _HALF_VIEW_M:
            good = make_good(np.random.default_rng([self._seed, 5, number]))
            at_m += good.reach + float(rng.uniform(*_GAP_M)) + (0.6 if rng.random() < 0.04 else 0.0)
            if all(abs(at_m - border) > _HALF_VIEW_M + good.reach for border in borders):
                passing.append(_Passing(good, at_m))
            at_m, number = at_m + good.reach, number + 1
        return passing

    def _background(self, run_m: float) -> NDArray[np.float32]:
        """The wall, and the belt with its seams where they are now."""
        z0, z1 = _BELT_Z
        half, metres = 0.75, self._belt.shape[1] / 400
        corners = np.array([(-half, 0, z1), (half, 0, z1), (half, 0, z0), (-half, 0, z0)])
        first = round((metres - run_m % metres) * 400) % self._belt.shape[1]
        part = np.roll(self._belt, -first, axis=1)[:, : round(2 * half * 400)]
        picture = self._wall.copy()
        _put(picture, part, np.ones(part.shape[:2], np.float32), self._view.of(corners), 1.0)
        return picture

    def _blurred(self, picture: NDArray[np.float32], length: int) -> NDArray[np.float32]:
        """What moves is blurred along the belt; the wall is not."""
        moves = (picture != self._wall).any(axis=2).astype(np.uint8)
        near = cv2.dilate(moves, np.ones((1, length + 1), np.uint8))[:, :, None] > 0
        return np.where(near, cv2.blur(picture, (length, 1)), picture)

    def _draw(self, picture: NDArray[np.float32], good: Good, offset: Points) -> Boxes:
        """Draw a good; returns the boxes of its visible text."""
        _shade(picture, self._view.of(good.footprint + offset))
        boxes = [np.zeros((0, 4))]
        seen = [face for face in good.faces if self._view.faces(face.corners + offset)]
        for face in sorted(seen, key=lambda face: -float(face.corners[:, 2].mean())):
            corners = self._view.of(face.corners + offset)
            _put(picture, face.print.picture, face.print.opacity, corners, face.light)
            boxes.append(_visible(face, corners))
        return np.concatenate(boxes)


class _Camera:
    """A pinhole camera that never moves."""

    def __init__(self) -> None:
        ahead = (_LOOK_AT - _EYE) / np.linalg.norm(_LOOK_AT - _EYE)
        right = np.cross([0.0, 1.0, 0.0], ahead)
        right /= np.linalg.norm(right)
        self._axes = np.stack([right, -np.cross(ahead, right), ahead])  # right, down, ahead

    def of(self, points: Points) -> NDArray[np.float32]:
        """(n, 2) pixels of points (n, 3)."""
        seen = (points - _EYE) @ self._axes.T
        pixels = seen[:, :2] / seen[:, 2:] * _FOCAL_PX + (WIDTH_PX / 2, HEIGHT_PX / 2)
        return np.asarray(pixels, np.float32)

    def faces(self, corners: Points) -> bool:
        """Whether a face with these corners (clockwise from outside) is seen from outside."""
        outward = np.cross(corners[3] - corners[0], corners[1] - corners[0])
        return float(outward @ (_EYE - corners.mean(axis=0))) < 0


def _homography(size: tuple[int, int], corners: NDArray[np.float32]) -> NDArray[np.float64]:
    width, height = size
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(source, corners), np.float64)


def _put(
    picture: NDArray[np.float32],
    sheet: NDArray[np.uint8],
    opacity: NDArray[np.float32],
    corners: NDArray[np.float32],
    light: float,
) -> None:
    """Draw a sheet where its corners come to lie."""
    x, y, width, height = cv2.boundingRect(corners)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, WIDTH_PX), min(y + height, HEIGHT_PX)
    if left >= right or top >= bottom:
        return
    size = right - left, bottom - top
    matrix = _homography((sheet.shape[1], sheet.shape[0]), corners - np.array([left, top], np.float32))
    colour = cv2.warpPerspective(sheet, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpPerspective(opacity, matrix, size, flags=cv2.INTER_LINEAR)[:, :, None]
    part = picture[top:bottom, left:right]
    part += (colour.astype(np.float32) * light - part) * cover


def _visible(face: Face, corners: NDArray[np.float32]) -> Boxes:
    """Boxes of the face's text, cut off at the edges of the picture."""
    quads = face.print.quads
    if not len(quads):
        return np.zeros((0, 4))
    matrix = _homography(face.print.size, corners)
    pixels = cv2.perspectiveTransform(quads.reshape(-1, 1, 2).astype(np.float64), matrix).reshape(-1, 4, 2)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    inside_low = low.clip(0, (WIDTH_PX, HEIGHT_PX))
    inside_high = high.clip(0, (WIDTH_PX, HEIGHT_PX))
    size = inside_high - inside_low
    visible = size.prod(axis=1) / (high - low).prod(axis=1)
    sides = [np.linalg.norm(where[:, (1, 3)] - where[:, :1], axis=2) for where in (pixels, quads)]
    upright = (sides[0] / sides[1]).min(axis=1) * TEXELS_PER_M / _PX_PER_M
    kept = (visible >= LEAST_VISIBLE) & (size.min(axis=1) >= LEAST_TEXT_PX) & (upright >= LEAST_UPRIGHT)
    return np.asarray(np.hstack([inside_low, size])[kept], np.float64)


def _shade(picture: NDArray[np.float32], footprint: NDArray[np.float32]) -> None:
    """A soft shadow around the footprint of a good."""
    x, y, width, height = cv2.boundingRect(footprint)
    left, top = max(x - 24, 0), max(y - 24, 0)
    right, bottom = min(x + width + 24, WIDTH_PX), min(y + height + 24, HEIGHT_PX)
    if left >= right or top >= bottom:
        return
    mask = np.zeros((bottom - top, right - left), np.float32)
    cv2.fillConvexPoly(mask, (footprint - (left, top)).round().astype(np.int32), 1.0)
    picture[top:bottom, left:right] *= 1.0 - 0.55 * cv2.blur(mask, (25, 17))[:, :, None]


def _belt_run(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(frames,) metres that the belt has run. Its speed changes every few seconds; sometimes it stops."""
    speed = np.empty(frames)
    first = 0
    while first < frames:
        stops = first > 0 and rng.random() < 0.1
        steps = int((rng.uniform(2, 4) if stops else rng.uniform(3, 9)) * FPS)
        speed[first : first + steps] = 0.0 if stops else _SPEED_M_S * rng.uniform(0.5, 1.5)
        first += steps
    smooth = np.convolve(np.pad(speed, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    return np.asarray(np.cumsum(smooth) / FPS, np.float64)


def _wall(rng: np.random.Generator) -> NDArray[np.float32]:
    """What stands still: a wall with pipes and a socket, the frame of the belt."""
    picture = np.full((HEIGHT_PX, WIDTH_PX, 3), (128, 134, 138), np.float32)
    clouds = cv2.resize(
        rng.standard_normal((9, 12)).astype(np.float32), (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC
    )
    picture += 6.0 * clouds[:, :, None]
    for y in (42, 66):
        cv2.rectangle(picture, (0, y), (WIDTH_PX, y + 11), (95, 100, 112), -1)
        cv2.line(picture, (0, y + 3), (WIDTH_PX, y + 3), (160, 165, 172), 2)
    cv2.rectangle(picture, (494, 96), (556, 160), (150, 152, 150), -1)
    cv2.circle(picture, (525, 128), 18, (70, 70, 72), 2, cv2.LINE_AA)
    cv2.rectangle(picture, (0, 380), (WIDTH_PX, HEIGHT_PX), (84, 88, 92), -1)
    for x in range(30, WIDTH_PX, 96):
        cv2.circle(picture, (x, 462), 6, (130, 132, 134), -1, cv2.LINE_AA)
    return picture


def _belt(rng: np.random.Generator) -> NDArray[np.uint8]:
    """(h, w, 3) three metres of belt, 400 pixels a metre: dark, scratched, with seams."""
    height, width = round((_BELT_Z[1] - _BELT_Z[0]) * 400), 1200
    picture = np.full((height, width, 3), (58, 56, 54), np.float32) + rng.normal(0, 3, (height, width, 1))
    for x in range(0, width, 300):
        cv2.line(picture, (x + 10, 0), (x, height), (34, 33, 32), 3)
    for _ in range(60):
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        cv2.line(picture, (x, y), (x + int(rng.uniform(8, 70)), y), (78, 76, 74), 1)
    return np.asarray(picture.clip(0, 255), np.uint8)


class _Light:
    """Exposure that drifts and jumps, a shadow that passes, darker corners, noise of the sensor."""

    def __init__(self, frames: int, rng: np.random.Generator) -> None:
        t = np.arange(frames) / FPS
        self._gain = 1.0 + 0.12 * np.sin(2 * np.pi * t / rng.uniform(17, 29) + rng.uniform(0, 6))
        for start in rng.uniform(0, frames / FPS, max(int(frames / FPS / 18), 1)):  # a door: brighter or darker
            self._gain *= 1.0 + rng.uniform(-0.35, 0.35) / (1.0 + np.exp(-(t - start) * 4)) * (t < start + 6)
        self._shadow_x = (t * rng.uniform(50, 90)) % (WIDTH_PX * 3.5) - 200
        y, x = np.mgrid[-1 : 1 : HEIGHT_PX * 1j, -1 : 1 : WIDTH_PX * 1j]
        self._corners = (1.0 - 0.18 * (x**2 + y**2) / 2).astype(np.float32)[:, :, None]
        self._noise = rng.standard_normal((HEIGHT_PX + 64, WIDTH_PX + 64, 3)).astype(np.float32)

    def on(self, picture: NDArray[np.float32], number: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        across = np.arange(WIDTH_PX, dtype=np.float32) - self._shadow_x[number]
        shadow = 1.0 - 0.4 * np.exp(-((across / 95.0) ** 4)).astype(np.float32)
        picture = picture * (self._corners * shadow[None, :, None] * np.float32(self._gain[number]))
        y, x = (int(value) for value in rng.integers(0, 64, 2))
        noise = self._noise[y : y + HEIGHT_PX, x : x + WIDTH_PX]
        picture += noise * np.float32(rng.uniform(2.0, 4.0)) * np.sqrt(np.maximum(picture, 1.0) / 110.0)
        return np.asarray(picture.clip(0, 255), np.uint8)
