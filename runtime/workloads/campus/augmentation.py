"""Augmentation of campus frames: cut people out and paste them elsewhere.

Frames and crops are u8 (h, w, 3) blue-green-red; boxes are (n, 4): left, top, right, bottom in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.workloads.boxes import Floats
from runtime.workloads.types import Image

FOREGROUND_DIFFERENCE = 25  # least difference of a pixel's strongest channel from the median


@dataclass(frozen=True)
class Person:
    """A person cut out of a training frame."""

    pixels: Image
    mask: NDArray[np.float32]  # (h, w, 1) opacity
    left: int
    top: int


def cut_out(frame: Image, boxes: Floats, background: Image) -> Iterator[Person]:
    """The people of a frame whose box touches no other box."""
    height, width = frame.shape[:2]
    for left, top, right, bottom in boxes:
        shape_fits = 1.7 < (bottom - top) / (right - left) < 4.5
        overlapping = (np.minimum(right, boxes[:, 2]) > np.maximum(left, boxes[:, 0])) & (
            np.minimum(bottom, boxes[:, 3]) > np.maximum(top, boxes[:, 1])
        )
        if not shape_fits or overlapping.sum() > 1:  # every box overlaps itself
            continue
        x0, y0 = max(int(left) - 1, 0), max(int(top) - 1, 0)
        x1, y1 = min(int(right) + 2, width), min(int(bottom) + 2, height)
        pixels = frame[y0:y1, x0:x1]
        difference = cv2.absdiff(pixels, background[y0:y1, x0:x1]).max(axis=2)
        mask = (difference > FOREGROUND_DIFFERENCE).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        if mask.mean() > 0.35:
            soft = np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0), np.float32)
            yield Person(pixels, soft[..., None], x0, y0)


def paste(frame: Image, boxes: Floats, person: Person, rng: np.random.Generator) -> Floats:
    """Paste a person into the frame, in place, unless it would hide another one; returns the new boxes (n, 4)."""
    height, width = frame.shape[:2]
    h, w = person.mask.shape[:2]
    top = int(np.clip(person.top + rng.normal(0, 6), 0, height - h))
    left = int(rng.integers(0, width - w))
    if len(boxes) and rng.random() < 0.4:  # beside another person, like a walking group
        near = boxes[int(rng.integers(len(boxes)))]
        if abs(near[3] - (top + h)) < 25:
            left = int(np.clip(near[0] + rng.choice((-1, 1)) * rng.uniform(0.5, 1.3) * w, 0, width - w))
    box = np.array([[left + 1, top + 1, left + w - 1, top + h - 1]], np.float32)
    if len(boxes):
        shared = np.clip(np.minimum(box[:, 2:], boxes[:, 2:]) - np.maximum(box[:, :2], boxes[:, :2]), 0, None).prod(1)
        if (shared / (boxes[:, 2:] - boxes[:, :2]).prod(1)).max() > 0.5 or shared.max() > 0.5 * w * h:
            return boxes
    pixels, mask = person.pixels, person.mask
    if rng.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    tint = rng.uniform(0.7, 1.3) * rng.uniform(0.85, 1.15, 3)
    coloured = np.clip(pixels * tint + rng.uniform(-15, 25), 0, 255)
    target = frame[top : top + h, left : left + w]
    target[:] = (mask * coloured + (1.0 - mask) * target).astype(np.uint8)
    return np.concatenate((boxes, box))
