"""Makes the footage of docs/own-models.md that no camera filmed: faces that pass, and lines of text.

``python -m benchmarks.foreign.footage faces skimage/data --out faces.avi`` renders a camera that looks at pictures on a
belt. ``skimage/data`` is that folder of the wheel of scikit-image 0.26, which need not be installed: 100 faces and 100
other patches of 25 x 25 pixels (``lfw_subset.npy``, from Labeled Faces in the Wild) and photographs.

``python -m benchmarks.foreign.footage lines goods.mp4 --out lines`` cuts the lines of text out of the footage of the
labels recipe (docs/labels.md), by the true boxes beside the video, and turns every other one upside down.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
FPS = 10
VIEW_PX, PATCH_PX, GAP_PX = 96, 80, 24
STEP_PX = 13  # of the belt between two frames: a picture is in view for about 14 frames
PHOTOGRAPHS = ("coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "ihc.png", "brick.png", "gravel.png")
LINE_PX = (48, 192)  # height and width that the classifier of angles takes
LEAST_HEIGHT_PX = 10


def belt_of_faces(data: Path, rng: np.random.Generator) -> Picture:
    """(VIEW_PX, w, 3): faces, other patches and details of photographs beside each other, in random order."""
    patches = (np.load(data / "lfw_subset.npy") * 255).round().astype(np.uint8)
    small = [cv2.cvtColor(patch, cv2.COLOR_GRAY2BGR) for patch in patches]
    photographs = [cv2.imread(str(data / name)) for name in PHOTOGRAPHS]
    details = [_detail(photographs[i % len(photographs)], rng) for i in range(100)]
    shown = [small[i] for i in range(100)] + [small[100 + i] for i in range(50)] + details[:50]
    belt = np.full((VIEW_PX, len(shown) * (PATCH_PX + GAP_PX) + VIEW_PX, 3), 90, np.uint8)
    for place, number in enumerate(rng.permutation(len(shown))):
        left, top = place * (PATCH_PX + GAP_PX) + GAP_PX, (VIEW_PX - PATCH_PX) // 2
        picture = cv2.resize(shown[number], (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_CUBIC)
        belt[top : top + PATCH_PX, left : left + PATCH_PX] = picture
    return belt


def faces(data: Path, out: Path, seed: int) -> int:
    """Write the video of the belt; returns its frames."""
    rng = np.random.default_rng(seed)
    belt = belt_of_faces(data, rng)
    video = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (VIEW_PX, VIEW_PX))
    lefts = range(0, belt.shape[1] - VIEW_PX, STEP_PX)
    for number, left in enumerate(lefts):
        light = 1.0 + 0.25 * np.sin(number / 40)  # clouds pass
        noise = rng.normal(0, 6, (VIEW_PX, VIEW_PX, 3))
        video.write((belt[:, left : left + VIEW_PX] * light + noise).clip(0, 255).astype(np.uint8))
    video.release()
    return len(lefts)


def lines(video: Path, out: Path, seed: int) -> int:
    """Write one line of text of every frame as a picture; returns how many."""
    rng = np.random.default_rng(seed)
    truth: dict[int, list[list[float]]] = {}
    for annotation in msgspec.json.decode(video.with_suffix(".json").read_bytes())["annotations"]:
        truth.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    out.mkdir(parents=True, exist_ok=True)
    capture, written, number = cv2.VideoCapture(str(video)), 0, -1
    while capture.grab():
        number += 1
        readable = [box for box in truth.get(number, []) if box[3] >= LEAST_HEIGHT_PX and box[2] > box[3]]
        if readable:
            line = _line(capture.retrieve()[1], readable[rng.integers(len(readable))], bool(rng.random() < 0.5))
            cv2.imwrite(str(out / f"{written:05d}.png"), line)
            written += 1
    return written


def _line(frame: Any, box: list[float], upside_down: bool) -> Picture:
    """The text in a box, in the picture that the classifier takes: as high as it, grey on the right of a short one."""
    x, y, w, h = (max(round(edge), 0) for edge in box)
    text = frame[y : y + h, x : x + w]
    if upside_down:
        text = cv2.rotate(text, cv2.ROTATE_180)
    width = min(round(LINE_PX[0] * text.shape[1] / text.shape[0]), LINE_PX[1])
    line = np.full((*LINE_PX, 3), 128, np.uint8)
    line[:, :width] = cv2.resize(text, (width, LINE_PX[0]))
    return line


def _detail(photograph: Any, rng: np.random.Generator) -> Picture:
    side = int(rng.integers(60, min(photograph.shape[:2])))
    y, x = (int(rng.integers(0, edge - side + 1)) for edge in photograph.shape[:2])
    detail: Picture = photograph[y : y + side, x : x + side]
    return detail


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="foreign.footage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("faces", "lines"))
    parser.add_argument("source", type=Path, help="the folder of scikit-image's data, or the video of the goods")
    parser.add_argument("--out", type=Path, required=True, help="a video (.avi), or a folder of pictures")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    make = faces if options.what == "faces" else lines
    print(f"{make(options.source, options.out, options.seed)} frames in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
