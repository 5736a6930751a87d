"""Goods: cartons, bags and bottles as flat or round faces with prints on them, all from a seed.

Lengths are metres. A good stands at the origin: x along the belt, y up, z away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.adoption.recipes.labels import prints
from runtime.adoption.recipes.labels.prints import NO_QUADS, Colour, Print

Points = NDArray[np.float64]  # (points, xyz)

#: Pixels of a print per metre; a face is about 1000 pixels of the camera per metre.
TEXELS_PER_M = 1500
#: Smallest and largest size of the font of a label's data, in pixels of the camera.
TEXT_PX = (9.5, 22.0)
_TEXELS_PER_PX = TEXELS_PER_M / 1000
_CARTON: tuple[Colour, ...] = ((105, 150, 185), (90, 130, 165), (125, 165, 200), (150, 175, 190))
_PAINTS: tuple[Colour, ...] = (
    *((180, 90, 40), (50, 60, 180), (60, 140, 70), (40, 170, 220), (140, 60, 130), (215, 215, 210), (60, 60, 60)),
    *((170, 160, 60), (110, 110, 215), (200, 190, 150), (30, 100, 200), (95, 75, 60)),
)
#: Share of goods that carry no text.
_BLANK = 0.08


@dataclass(frozen=True)
class Face:
    """A print and where its corners are: upper left, upper right, lower right, lower left, seen from outside."""

    print: Print
    corners: Points  # (4, 3)
    light: float  # 1: as bright as its paint


@dataclass(frozen=True)
class Good:
    faces: tuple[Face, ...]
    footprint: Points  # (4, 3) corners on the belt

    @property
    def reach(self) -> float:
        """Largest distance along the belt from the middle of the good to its edge."""
        return float(np.abs(np.concatenate([face.corners for face in self.faces])[:, 0]).max())


def make_good(rng: np.random.Generator) -> Good:
    """A good of a random kind."""
    kind = rng.random()
    if kind < 0.6:
        return _carton(rng)
    return _bag(rng) if kind < 0.8 else _bottle(rng)


def _carton(rng: np.random.Generator) -> Good:
    w, h, d = rng.uniform(0.14, 0.32), rng.uniform(0.10, 0.26), rng.uniform(0.09, 0.18)
    is_brown = rng.random() < 0.55
    paint = _pick(rng, _CARTON if is_brown else _PAINTS)
    has_text = rng.random() > _BLANK
    x, z = w / 2, d / 2
    sides = {
        "front": ([(-x, h, -z), (x, h, -z), (x, 0, -z), (-x, 0, -z)], (w, h), 1.0, 1.0),
        "top": ([(-x, h, z), (x, h, z), (x, h, -z), (-x, h, -z)], (w, d), 1.1, 0.3),
        "left": ([(-x, h, z), (-x, h, -z), (-x, 0, -z), (-x, 0, z)], (d, h), 0.72, 0.3),
        "right": ([(x, h, -z), (x, h, z), (x, 0, z), (x, 0, -z)], (d, h), 0.72, 0.3),
    }
    faces = []
    for corners, size, light, share in sides.values():
        sheet = _board(rng, size, paint) if is_brown else _painted(rng, size, paint)
        if has_text and rng.random() < share:
            sheet = _printed(rng, sheet)
        faces.append((sheet, np.array(corners, float), light))
    return _turned(rng, faces, rng.uniform(-28, 28), np.array([(-x, 0, -z), (x, 0, -z), (x, 0, z), (-x, 0, z)]))


def _bag(rng: np.random.Generator) -> Good:
    """A flat bag that leans back: soft edges, wrinkles."""
    w, h = rng.uniform(0.15, 0.28), rng.uniform(0.16, 0.28)
    sheet = _painted(rng, (w, h), _pick(rng, _PAINTS))
    if rng.random() > _BLANK:
        sheet = _printed(rng, sheet)
    width, height = sheet.size
    wrinkles = 1.0 + 0.10 * _clouds(rng, height, width, 7) + 0.06 * _clouds(rng, height, width, 18)
    picture = _clipped(sheet.picture * wrinkles[:, :, None])
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    edge = np.abs(x) ** 8 + np.abs(y) ** 8 + 0.05 * _clouds(rng, height, width, 9)
    opacity = np.clip((0.93 - edge) * 12, 0, 1).astype(np.float32)
    lean, half = rng.uniform(0.02, 0.08), w / 2
    corners = np.array([(-half, h, lean), (half, h, lean), (half, 0, -lean), (-half, 0, -lean)])
    ground = np.array([(-half, 0, -0.03), (half, 0, -0.03), (half, 0, 0.06), (-half, 0, 0.06)])
    face = Print(picture, opacity, _mostly_inside(sheet.quads, opacity))
    return _turned(rng, [(face, corners, 1.0)], rng.uniform(-25, 25), ground)


def _bottle(rng: np.random.Generator) -> Good:
    """A round bottle or can: the half of its label that is seen, narrower towards the edges, and a neck."""
    r, h = rng.uniform(0.04, 0.07), rng.uniform(0.14, 0.26)
    paint = _pick(rng, _PAINTS)
    sheet = _painted(rng, (np.pi * r, h), paint)
    if rng.random() > _BLANK:
        sheet = _printed(rng, sheet)
    picture, quads = _rolled(sheet, round(2 * r * TEXELS_PER_M))
    height, width = picture.shape[:2]
    across = np.linspace(-1, 1, width)
    shade = 0.45 + 0.6 * np.sqrt(1 - across**2 * 0.98) + 0.25 * np.exp(-(((across + 0.45) / 0.12) ** 2))
    picture = _clipped(picture * shade[None, :, None])
    opacity = np.ones((height, width), np.float32)
    if rng.random() < 0.6:  # a neck: nothing beside it
        neck = int(height * rng.uniform(0.16, 0.26))
        narrow = np.linspace(0.3, 1.0, neck)[:, None] ** 0.7
        opacity[:neck] = np.abs(across)[None, :] < narrow
    quads = _mostly_inside(quads, opacity)
    corners = np.array([(-r, h, 0), (r, h, 0), (r, 0, 0), (-r, 0, 0)])
    ground = np.array([(-r, 0, -r), (r, 0, -r), (r, 0, r), (-r, 0, r)])
    return _turned(rng, [(Print(picture, opacity, quads), corners, 1.0)], 0.0, ground)


def _rolled(sheet: Print, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A sheet around half a cylinder, seen from the front: picture of that width, and where the text comes to lie."""
    unrolled, height = sheet.size
    across = np.arcsin(np.linspace(-1, 1, width)) / np.pi + 0.5  # 0 to 1 of the sheet
    columns = np.broadcast_to((across * (unrolled - 1)).astype(np.float32), (height, width))
    rows = np.broadcast_to(np.arange(height, dtype=np.float32)[:, None], (height, width))
    quads = sheet.quads.copy()
    quads[:, :, 0] = (np.sin((quads[:, :, 0] / unrolled - 0.5) * np.pi) + 1) / 2 * width
    return cv2.remap(sheet.picture, columns, rows, cv2.INTER_LINEAR).astype(np.uint8), quads


def _turned(
    rng: np.random.Generator, faces: list[tuple[Print, Points, float]], degrees: float, footprint: Points
) -> Good:
    turn, z = np.deg2rad(degrees), rng.uniform(0.10, 0.20)
    matrix = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])

    def moved(points: Points) -> Points:
        return np.asarray(points @ matrix.T + (0.0, 0.0, z))

    return Good(tuple(Face(sheet, moved(corners), light) for sheet, corners, light in faces), moved(footprint))


def _printed(rng: np.random.Generator, sheet: Print) -> Print:
    """A sheet with labels, print and symbols that do not cover each other."""
    width, height = sheet.size
    taken: list[tuple[float, float, float, float]] = []
    for _ in range(int(rng.integers(3, 9))):
        top = _something(rng, width)
        degrees = float(rng.choice([0.0, 0.0, rng.uniform(-7, 7)]))
        box = cv2.boundingRect((_box_of(top) @ prints.shifted(0, 0, degrees)[:, :2].T).astype(np.float32))
        slack = width - box[2] - 8, height - box[3] - 8
        if min(slack) < 1:
            continue
        for _ in range(6):
            x, y = 4 + rng.uniform(0, slack[0]), 4 + rng.uniform(0, slack[1])
            place = (x, y, x + box[2], y + box[3])
            if not any(_overlap(place, other) for other in taken):
                taken.append(place)
                sheet = prints.pasted(sheet, top, prints.shifted(x - box[0], y - box[1], degrees))
                break
    return sheet


def _something(rng: np.random.Generator, width: int) -> Print:
    low, high = np.log(TEXT_PX[0] * _TEXELS_PER_PX), np.log(TEXT_PX[1] * _TEXELS_PER_PX)
    unit = float(np.exp(rng.uniform(low, high)))
    kind = rng.random()
    if kind < 0.5:
        return prints.label(rng, int(min(width - 10, max(unit * rng.uniform(7, 12), 60))), unit)
    ink = _pick(rng, ((20, 20, 20), (20, 20, 20), (40, 40, 170), (235, 235, 235), (130, 60, 20)))
    if kind < 0.85:
        words = prints.name(rng) if rng.random() < 0.5 else prints.data_line(rng)
        font = prints.FONTS[int(rng.integers(len(prints.FONTS)))]
        return prints.text(words, font, int(unit * rng.uniform(1.0, 2.2)), ink)
    if kind < 0.93:
        return prints.symbol(rng, int(rng.uniform(40, 90)), ink)
    if kind < 0.97:
        return prints.matrix_code(rng, int(rng.integers(2, 4)))
    return prints.bar_code(rng, int(rng.uniform(30, 70)), int(rng.integers(1, 3)))


def _box_of(top: Print) -> NDArray[np.float32]:
    width, height = top.size
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _mostly_inside(quads: NDArray[np.float32], opacity: NDArray[np.float32]) -> NDArray[np.float32]:
    """The texts of which at least two corners lie where the print is opaque."""
    height, width = opacity.shape
    at = quads.astype(int).clip(0, (width - 1, height - 1))
    kept = (opacity[at[:, :, 1], at[:, :, 0]] > 0.5).mean(axis=1) >= 0.5
    return quads[kept] if len(quads) else NO_QUADS


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    colour = np.array(colours[int(rng.integers(len(colours)))]) + rng.integers(-15, 16, 3)
    blue, green, red = (int(part) for part in colour.clip(5, 250))
    return blue, green, red


def _clouds(rng: np.random.Generator, height: int, width: int, cells: int) -> NDArray[np.float32]:
    """Smooth noise with about that many waves, mean 0, standard deviation about 0.6."""
    small = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _clipped(picture: NDArray[Any]) -> NDArray[np.uint8]:
    return picture.round().clip(0, 255).astype(np.uint8)


def _sheet(picture: NDArray[Any]) -> Print:
    return Print(_clipped(picture), np.ones(picture.shape[:2], np.float32), NO_QUADS)


def _board(rng: np.random.Generator, size_m: tuple[float, float], paint: Colour) -> Print:
    """Corrugated board: fine lines, stains, perhaps a strip of tape."""
    width, height = (round(side * TEXELS_PER_M) for side in size_m)
    lines = np.sin(np.arange(width) * (2 * np.pi / 5.0))[None, :] * 2.0
    tone = 5.0 * _clouds(rng, height, width, 5) + 3.0 * _clouds(rng, height, width, 40) + lines
    picture = np.array(paint, np.float32) + tone[:, :, None]
    if rng.random() < 0.4:
        middle, half = int(height * rng.uniform(0.3, 0.7)), int(rng.uniform(12, 24))
        picture[max(middle - half, 0) : middle + half] = picture[max(middle - half, 0) : middle + half] * 0.6 + 85
    return _sheet(picture)


def _painted(rng: np.random.Generator, size_m: tuple[float, float], paint: Colour) -> Print:
    """Printed carton or film: a gradient, areas and stripes of other colours."""
    width, height = (round(side * TEXELS_PER_M) for side in size_m)
    picture = np.broadcast_to(np.array(paint, np.float32), (height, width, 3)).copy()
    picture += np.linspace(-14, 14, height, dtype=np.float32)[:, None, None] * rng.choice([-1, 1])
    for _ in range(int(rng.integers(0, 4))):
        colour = _pick(rng, _PAINTS)
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.circle(picture, (x, y), int(rng.uniform(0.1, 0.4) * height), colour, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.rectangle(picture, (0, y), (width, y + int(rng.uniform(0.05, 0.25) * height)), colour, -1)
        else:
            for step in range(int(rng.integers(2, 7))):
                at = x + step * int(width * 0.06)
                cv2.line(picture, (at, 0), (at + height // 3, height), colour, max(width // 60, 2), cv2.LINE_AA)
    picture += 2.0 * _clouds(rng, height, width, 30)[:, :, None]
    return _sheet(picture)
