"""A sheet of pictures that shows the prediction of every exit for one frame: a row per model, a column per exit."""

from __future__ import annotations

import numpy as np

from controller.errors import UsageError
from controller.records import NO_PAYLOAD, Decision
from runtime.bundles.bundle import Bundle
from runtime.inference.segments import Segments
from runtime.observe.pictures import MARGIN_PX, grid, scaled
from runtime.workloads.base import Frames, Workload
from runtime.workloads.drawing import FAINT, WHITE, blank, write
from runtime.workloads.types import Image, Split

CELL_WIDTH_PX = 400
TITLE_HEIGHT_PX = 52
CELL_TEXT = 0.66


def exit_sheet(bundle: Bundle, workload: Workload, frame: int, px: int, split: Split = "test") -> Image:
    """The sheet (h, w, 3) for one frame at resolution ``px``; each cell states the score and the multiply-accumulates.

    ``frame`` is the number that outcomes show: test image, or frame of the video. UsageError if the split lacks it.
    """
    image, truth = workload.sample(_sample_of(frame, workload, split), split)
    segments = Segments(bundle, workload)
    models = [model for model in bundle.manifest.models if px in bundle.manifest.resolutions_of(model)]
    columns = max(len(model.exits) for model in models)
    cells: list[Image] = []
    for model in models:
        for exit_branch, exit_info in enumerate(model.exits):
            decision = Decision(model.name, px, exit_branch, exit_info.after, NO_PAYLOAD)
            prediction = segments.answer(segments.whole(image, decision), decision)
            score = workload.score(prediction, truth)
            macs = sum(stage.macs[px] for stage in model.stages[: exit_info.after]) + exit_info.macs[px]
            drawn = scaled(workload.draw(image, prediction), CELL_WIDTH_PX)
            cells.append(_titled(drawn, f"{model.name}, exit {exit_branch}", f"{_count(macs)}, score {score:.2f}"))
        cells += [_empty(cells[0])] * (columns - len(model.exits))
    title = blank(TITLE_HEIGHT_PX, columns * (CELL_WIDTH_PX + MARGIN_PX) + MARGIN_PX)
    write(title, f"{workload.name}, frame {frame}, {px} px, every model and exit", (MARGIN_PX, 35), 0.9)
    return np.vstack((title, grid(cells, columns)))


def _sample_of(frame: int, workload: Frames, split: Split) -> int:
    numbers = [workload.source_index(index, split) for index in range(workload.sample_count(split))]
    if frame not in numbers:
        raise UsageError(f"frame {frame} is not in the {split} part; expected {numbers[0]} to {numbers[-1]}")
    return numbers.index(frame)


def _titled(image: Image, left: str, right: str) -> Image:
    title = blank(38, image.shape[1])
    write(title, left, (MARGIN_PX, 26), CELL_TEXT)
    write(title, right, (image.shape[1] - MARGIN_PX, 26), CELL_TEXT, FAINT, align="right")
    return np.vstack((title, image))


def _empty(cell: Image) -> Image:
    return blank(cell.shape[0], cell.shape[1], WHITE)


def _count(macs: float) -> str:
    """Multiply-accumulates with three digits and a unit."""
    return f"{macs / 1e9:.2f} GMAC" if macs >= 1e9 else f"{macs / 1e6:.3g} MMAC"
