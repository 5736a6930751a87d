"""Augmentation of frames with boxes: take a window, change colours, compress.

Frames are u8 (h, w) grey or (h, w, 3) blue-green-red; boxes are (n, 4): left, top, right, bottom in pixels. Further
columns of the boxes, such as a class, stay as they are.
"""

from __future__ import annotations

import cv2
import numpy as np

from runtime.workloads.boxes import Floats
from runtime.workloads.types import Image


def view(
    frame: Image, boxes: Floats, scale: float, width: int, height: int, rng: np.random.Generator
) -> tuple[Image, Floats]:
    """Cut a window from the frame and scale it to (height, width[, 3]); returns it with its boxes.

    Three quarters of the windows contain a chosen object. Pixels outside the frame are grey.
    """
    full_height, full_width = frame.shape[:2]
    w, h = min(round(width / scale), full_width), min(round(height / scale), full_height)
    left, top = int(rng.integers(0, full_width - w + 1)), int(rng.integers(0, full_height - h + 1))
    if len(boxes) and rng.random() < 0.75:
        x0, y0, x1, y1 = boxes[int(rng.integers(len(boxes))), :4]
        left = int(np.clip((x0 + x1) / 2 - rng.uniform(0.1, 0.9) * w, 0, full_width - w))
        top = int(np.clip((y0 + y1) / 2 - rng.uniform(0.1, 0.9) * h, 0, full_height - h))
    size = min(round(w * scale), width), min(round(h * scale), height)
    image = np.full((height, width, *frame.shape[2:]), 110, np.uint8)
    image[: size[1], : size[0]] = cv2.resize(frame[top : top + h, left : left + w], size, interpolation=cv2.INTER_AREA)
    moved = (boxes[:, :4] - np.array([left, top, left, top], np.float32)) * scale
    inside = np.clip(moved, 0, [size[0], size[1], size[0], size[1]])
    area = (moved[:, 2:] - moved[:, :2]).prod(1)
    seen = (inside[:, 2:] - inside[:, :2]).prod(1)
    return image, np.concatenate((inside, boxes[:, 4:]), 1)[seen > 0.4 * area]


def recolour(image: Image, rng: np.random.Generator) -> Image:
    """Change brightness, contrast and, where there are colours, white balance at random."""
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    gain = gain if image.ndim == 3 else gain[:1]
    changed = image * gain.astype(np.float32) + np.float32(rng.uniform(-12, 12))
    return np.asarray(np.clip(changed, 0, 255), np.uint8)


def through_jpeg(image: Image, quality: int) -> Image:
    """The image after JPEG compression."""
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED), np.uint8)
