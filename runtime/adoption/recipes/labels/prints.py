"""What is printed on goods: labels with lines of text, bar codes and symbols, and where their text is.

A ``Print`` is a small picture (h, w, 3) u8 with an opacity; the corners of every line of text are known. Fonts are
those that matplotlib ships.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from runtime.adoption.recipes.labels.words import NAMES, NOTES, PHRASES, UNITS

Picture = NDArray[np.uint8]
Quads = NDArray[np.float32]  # (texts, 4 corners, xy) in pixels of the picture
Colour = tuple[int, int, int]  # blue, green, red

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
)
NO_QUADS = np.zeros((0, 4, 2), np.float32)
_PAPERS: tuple[Colour, ...] = ((245, 248, 250), (235, 240, 240), (120, 220, 245), (225, 215, 190), (170, 190, 240))
_INKS: tuple[Colour, ...] = ((25, 22, 20), (25, 22, 20), (120, 50, 20), (30, 30, 160), (50, 90, 20))


@dataclass(frozen=True)
class Print:
    """A picture, how opaque each of its pixels is (h, w) from 0 to 1, and where its lines of text are."""

    picture: Picture
    opacity: NDArray[np.float32]
    quads: Quads

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.picture.shape[1], self.picture.shape[0]


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def text(words: str, font: str, size: int, colour: Colour) -> Print:
    """One line of text without paper. ``size`` is the size of the font in pixels; the box fits the ink closely."""
    face = _font(font, size)
    left, top, right, bottom = (int(edge) for edge in face.getbbox(words))
    canvas = Pictures.new("L", (right - left, bottom - top))
    ImageDraw.Draw(canvas).text((-left, -top), words, fill=255, font=face)
    ink = np.asarray(canvas)
    x, y, width, height = cv2.boundingRect(ink)
    opacity = ink[y : y + height, x : x + width].astype(np.float32) / 255.0
    picture = np.full((height, width, 3), colour, np.uint8)
    return Print(picture, opacity, _box(0, 0, width, height))


def _box(x: float, y: float, width: float, height: float) -> Quads:
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return np.array([corners], np.float32)


def bar_code(rng: np.random.Generator, height: int, module: int) -> Print:
    """Bars of random widths, without text."""
    widths = rng.integers(1, 5, int(rng.integers(35, 60))) * module
    row = np.repeat(np.arange(len(widths)) % 2 * 255, widths).astype(np.uint8)
    return _opaque(np.broadcast_to(row[None, :, None], (height, len(row), 3)).copy())


def matrix_code(rng: np.random.Generator, module: int) -> Print:
    """Random modules with finder patterns, as a QR code looks from afar."""
    count = int(rng.choice([21, 25, 29]))
    grid = (rng.random((count, count)) < 0.5).astype(np.uint8)
    finder = np.pad(np.pad(np.ones((3, 3), np.uint8), 1), 1, constant_values=1)
    for y, x in ((0, 0), (0, count - 7), (count - 7, 0)):
        grid[y : y + 7, x : x + 7] = finder
    dots = np.kron(1 - np.pad(grid, 2), np.ones((module, module), np.uint8)) * 255
    return _opaque(np.repeat(dots[:, :, None], 3, axis=2).astype(np.uint8))


def symbol(rng: np.random.Generator, size: int, ink: Colour) -> Print:
    """A sign without text: arrows, a glass, a ring, a triangle, stripes."""
    canvas, s = np.zeros((size, size), np.uint8), float(size)
    width = max(size // 14, 2)
    kind = int(rng.integers(5))
    if kind == 0:
        for x in (0.3, 0.7):
            tip = (round(x * s), round(0.1 * s))
            cv2.arrowedLine(canvas, (tip[0], round(0.85 * s)), tip, 255, width * 2, cv2.LINE_AA, tipLength=0.35)
        cv2.line(canvas, (width, size - width), (size - width, size - width), 255, width)
    elif kind == 1:
        bowl = np.array([(0.25, 0.08), (0.75, 0.08), (0.65, 0.45), (0.53, 0.55), (0.53, 0.85), (0.47, 0.85)])
        cv2.fillPoly(canvas, [np.vstack([bowl, [(0.47, 0.55), (0.35, 0.45)]]).dot(s).astype(np.int32)], 255)
        cv2.line(canvas, (round(0.3 * s), round(0.9 * s)), (round(0.7 * s), round(0.9 * s)), 255, width * 2)
    elif kind == 2:
        cv2.circle(canvas, (size // 2, size // 2), round(0.4 * s), 255, width * 2, cv2.LINE_AA)
        cv2.circle(canvas, (size // 2, size // 2), round(0.15 * s), 255, -1, cv2.LINE_AA)
    elif kind == 3:
        corners = np.array([(0.5, 0.08), (0.93, 0.88), (0.07, 0.88)]).dot(s).astype(np.int32)
        cv2.polylines(canvas, [corners], True, 255, width * 2, cv2.LINE_AA)
        cv2.line(canvas, (size // 2, round(0.4 * s)), (size // 2, round(0.65 * s)), 255, width * 2)
    else:
        for x in range(-size, size, max(size // 4, 4)):
            cv2.line(canvas, (x, size), (x + size, 0), 255, width * 2, cv2.LINE_AA)
    return Print(np.full((size, size, 3), ink, np.uint8), canvas.astype(np.float32) / 255.0, NO_QUADS)


def _opaque(picture: Picture, quads: Quads = NO_QUADS) -> Print:
    return Print(picture, np.ones(picture.shape[:2], np.float32), quads)


def label(rng: np.random.Generator, width: int, unit: float) -> Print:
    """A paper label of that width in pixels: a name, lines of data, perhaps a bar code or a matrix code.

    ``unit`` is the size in pixels of its smallest text.
    """
    paper, ink = _PAPERS[int(rng.integers(len(_PAPERS)))], _INKS[int(rng.integers(len(_INKS)))]
    margin = int(width * 0.05) + 2
    rows: list[Print] = []
    if rng.random() < 0.75:
        rows.append(_fitting(rng, name(rng), unit * rng.uniform(1.6, 3.2), ink, width - 2 * margin))
    rows += [_fitting(rng, data_line(rng), unit * rng.uniform(1.0, 1.6), ink, width - 2 * margin)
             for _ in range(int(rng.integers(1, 5)))]  # fmt: skip
    if rng.random() < 0.5:
        module = max(int(width / 190), 1)
        code = bar_code(rng, int(unit * rng.uniform(2.0, 4.0)), module)
        rows.append(_cropped(code, width - 2 * margin))
        if rng.random() < 0.6:
            digits = " ".join(digits_of(rng, count) for count in (1, 6, 6))
            rows.append(_fitting(rng, digits, unit, (25, 22, 20), width - 2 * margin))
    gap = int(unit * rng.uniform(0.45, 0.9)) + 2
    height = 2 * margin + sum(row.size[1] + gap for row in rows)
    sheet = _opaque(np.full((height, width, 3), paper, np.uint8))
    y = margin
    for row in rows:
        slack = width - 2 * margin - row.size[0]
        x = margin + int(slack * rng.choice([0.0, 0.0, 0.5]))
        sheet = pasted(sheet, row, shifted(x, y))
        y += row.size[1] + gap
    if rng.random() < 0.4:
        cv2.rectangle(sheet.picture, (2, 2), (width - 3, height - 3), ink, max(width // 150, 1))
    return sheet


def _cropped(code: Print, width: int) -> Print:
    return Print(code.picture[:, :width], code.opacity[:, :width], code.quads)


def _fitting(rng: np.random.Generator, words: str, size: float, ink: Colour, width: int) -> Print:
    """A line of text of at most that width: smaller, but not much, or fewer characters."""
    font = FONTS[int(rng.integers(len(FONTS)))]
    line = text(words, font, max(int(size), 7), ink)
    if line.size[0] > width:
        size = max(size * width / line.size[0], size * 0.75)
        line = text(words, font, max(int(size), 7), ink)
    while line.size[0] > width and len(words) > 3:
        words = words[: max(3, len(words) * 3 // 4)].rstrip()
        line = text(words, font, max(int(size), 7), ink)
    return line


def shifted(x: float, y: float, degrees: float = 0.0) -> NDArray[np.float32]:
    """(2, 3) a turn around the upper left corner, then a shift."""
    turn = np.deg2rad(degrees)
    return np.array([[np.cos(turn), -np.sin(turn), x], [np.sin(turn), np.cos(turn), y]], np.float32)


def pasted(ground: Print, top: Print, place: NDArray[np.float32]) -> Print:
    """The ground with another print on it. The opacity of the ground stays."""
    width, height = ground.size
    opacity = cv2.warpAffine(top.opacity, place, (width, height))[:, :, None]
    colour = cv2.warpAffine(top.picture, place, (width, height), borderMode=cv2.BORDER_REPLICATE)
    mixed = ground.picture * (1.0 - opacity) + colour * opacity
    quads = top.quads @ place[:, :2].T + place[:, 2]
    return Print(
        mixed.round().astype(np.uint8), ground.opacity, np.concatenate([ground.quads, quads]).astype(np.float32)
    )


def name(rng: np.random.Generator) -> str:
    """What a product calls itself."""
    words = " ".join(rng.choice(NAMES, int(rng.integers(1, 3)), replace=False))
    return words.upper() if rng.random() < 0.5 else words


def data_line(rng: np.random.Generator) -> str:
    """A line of the small print: a lot, a date, a weight, an order, a note."""
    kind = int(rng.integers(7))
    date = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{rng.integers(2025, 2032)}"
    if kind == 0:
        return f"LOT {letters_of(rng, 2)}{digits_of(rng, 5)}"
    if kind == 1:
        return f"{rng.choice(['EXP', 'BEST BEFORE', 'MFG', 'Packed'])} {date}"
    if kind == 2:
        return f"{rng.choice(['Net', 'NET WT', 'Gross', 'Contents'])} {digits_of(rng, 3)} {rng.choice(UNITS)}"
    if kind == 3:
        return f"{rng.choice(['Order', 'Ref.', 'SN', 'Art. No.', 'P/N'])} {digits_of(rng, 4)}-{digits_of(rng, 4)}"
    if kind == 4:
        return f"{digits_of(rng, 3)} x {digits_of(rng, 2)} x {digits_of(rng, 2)} mm"
    return str(rng.choice(NOTES if kind == 5 else PHRASES))


def digits_of(rng: np.random.Generator, count: int) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, count))


def letters_of(rng: np.random.Generator, count: int) -> str:
    return "".join(string.ascii_uppercase[i] for i in rng.integers(0, 26, count))
