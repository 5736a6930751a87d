"""Temporary: footage and reference answers, until runtime.adoption.truth is there."""

from __future__ import annotations

from pathlib import Path

import cv2

from runtime.workloads.adopted.description import Footage
from runtime.workloads.adopted.pictures import digest_of, size_of


def open_footage(path: Path) -> tuple[Footage, tuple[int, ...]]:
    capture = cv2.VideoCapture(str(path))
    frames, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    _, picture = capture.read()
    return Footage(path.name, str(path.resolve()), digest_of(path), size_of(path), frames, fps), picture.shape


def reference(work, model, advance):
    import torch

    px = max(work.resolutions_px)
    found = []
    count = work.sample_count("all")
    with torch.inference_mode():
        for number in range(count):
            frame = work._reader.frame(number)
            outputs = model.whole(work.to_input(work.resize(frame, px)[None]), len(model.exits) - 1)
            found += work.answers(outputs.numpy(), px)
            advance(number + 1, count)
    return found
