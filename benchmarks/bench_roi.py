"""Compares parts of pictures with whole pictures, at the computation of each.

``python -m benchmarks.bench_roi`` plays a split with the parts of the device (``RegionFinder``, ``LocalCompute``, the
tracker): every frame or one of n is answered by one pinned decision, and each answer is out half a capture period after
its capture. With a crop, the whole picture is run at every ``--whole``-th answer (9: as rarely as the device allows),
and wherever the device would. Columns: F1 of the answered frames; streaming accuracy with forecasts and without;
multiply-accumulate operations per captured frame; bytes of a JPEG 30.

``--look`` measures the device's time for finding a window beside that of a head.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from controller.forecast import Forecaster
from controller.records import NO_PAYLOAD, Decision
from controller.regions import Aim
from controller.reuse import Answers, past_answer
from controller.streaming import TICK
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.codecs import get_codec
from runtime.device.local_compute import LocalCompute
from runtime.regions.finder import RegionFinder
from runtime.regions.part import part_of
from runtime.sources.frames import Frame
from runtime.workloads.base import Workload, forecaster_of
from runtime.workloads.types import Split

MODELS = ("nano",)
RESOLUTIONS_PX = (256, 384)
CROPS = (0.625, 0.75)
WHOLE_EVERY = (3, 9)
CODEC = "jpeg30"
HALF = 0.5  # capture periods after which an answer is out


@dataclass(frozen=True)
class Case:
    """What one decision does; ``whole_every``: answers from one whole picture to the next, 1 without a crop."""

    model: str
    resolution_px: int
    crop: float
    stride: int
    whole_every: int
    f1: float
    streaming: float  # with forecasts
    still: float  # streaming without them
    cropped_frac: float  # of the answered frames
    mmacs: float  # per captured frame, millions
    sent_bytes: float  # per captured frame, if it were sent as CODEC


class Player:
    """Plays one split. Owns the answers that were computed, because many cases need the same ones."""

    def __init__(self, bundle: Bundle, split: Split) -> None:
        self._bundle, self._work = bundle, bundle.work
        self._compute = LocalCompute(bundle, bundle.work, split)
        self._count, self._codec = bundle.work.sample_count(split), get_codec(CODEC)
        self._known: dict[tuple[Any, ...], tuple[Any, int]] = {}

    def case(self, model: str, px: int, crop: float, stride: int, whole_every: int) -> Case:
        info = self._bundle.info(model)
        last = len(info.exits) - 1
        d = Decision(model, px, last, info.exit_after[-1], NO_PAYLOAD, stride, crop=crop)
        f1, seen, cropped, sizes = self._played(d, whole_every, forecaster_of(self._work))
        still = self._played(d, whole_every, None)[1]
        macs = sum(stage.macs[px] for stage in info.stages) + info.exits[last].macs[px]
        means = (f1, seen, still, cropped, macs / 1e6 / stride, sizes / stride)
        return Case(model, px, crop, stride, whole_every if crop else 1, *(float(mean) for mean in means))

    def _played(self, d: Decision, every: int, forecaster: Forecaster | None) -> tuple[float, float, float, float]:
        finder, known = RegionFinder(self._compute.picture), Answers()
        own, seen, cropped, sizes = [], [], [], []
        since = every
        for index in range(self._count):
            if (newest := known.newest_at(index + TICK)) is not None:
                seen.append(self._score(newest.at(index).prediction, index))
            if index % d.frame_stride:
                continue
            crop = d.crop if since < every else 0.0
            aim = finder.aim(Frame(index, index, 0.0), crop, index)
            since = 1 if aim is None else since + 1
            found, size = self._answer(index, d, aim)
            prediction, _, kept = (found, 0, None) if aim is None else aim.completed(found, index)
            answer = past_answer(index, index + HALF, prediction, forecaster, kept=kept)
            known.add(answer)
            finder.answered(answer)
            own.append(self._score(prediction, index))
            cropped.append(aim is not None)
            sizes.append(size)
        return tuple(float(np.mean(column)) for column in (own, seen, cropped, sizes))  # type: ignore[return-value]

    def _answer(self, index: int, d: Decision, aim: Aim | None) -> tuple[Any, int]:
        """What the network says to the picture or to its part, and the bytes of either."""
        window = None if aim is None else aim.window
        key = (index, d.model, d.resolution_px, window)
        if key not in self._known:
            head = self._compute.head(index, d, lambda: None, window=window)
            picture = self._compute.picture(index)
            part = picture if window is None else part_of(picture, window)
            size = len(self._codec.encode(self._work.resize(part, d.resolution_px)))
            self._known[key] = self._compute.judge(index, head.outputs, d)[0], size
        return self._known[key]

    def _score(self, prediction: Any, index: int) -> float:
        return float(self._work.score(prediction, self._compute.truth(index)))


def cases_of(player: Player, note: Callable[[str], None]) -> list[Case]:
    """Crops, whole pictures of the same computation, and whole pictures of a higher resolution at a longer stride."""
    found = []
    for model in MODELS:
        for px, stride in ((256, 1), (384, 1), (384, 2), (512, 1), (512, 2)):
            found.append(player.case(model, px, 0.0, stride, 1))
        for px in RESOLUTIONS_PX:
            for crop in CROPS:
                found += [player.case(model, px, crop, 1, every) for every in WHOLE_EVERY]
            note(f"{model}, {px} px")
    return found


def looking(bundle: Bundle, split: Split, rounds: int = 200) -> dict[str, float]:
    """Median CPU seconds of finding a window, and of the head of the smallest crop, in turn."""
    compute = LocalCompute(bundle, bundle.work, split)
    d = Decision("nano", 256, 2, bundle.info("nano").exit_after[-1], NO_PAYLOAD, crop=0.75)
    finder, look_s, head_s = RegionFinder(compute.picture), [], []
    forecaster: Forecaster | None = None
    for index in range(min(rounds, compute.samples)):
        compute.picture(index)
        began_s = time.thread_time()
        aim = finder.aim(Frame(index, index, 0.0), 0.0 if index % 9 == 0 else 0.75, index)
        found_s = time.thread_time()
        head = compute.head(index, d, lambda: None, window=None if aim is None else aim.window)
        if aim is None:
            finder.answered(past_answer(index, index + HALF, compute.judge(index, head.outputs, d)[0], forecaster))
        else:
            look_s.append(found_s - began_s)
            head_s.append(time.thread_time() - found_s)
    return {"look_s": float(np.median(look_s)), "head_s": float(np.median(head_s))}


def table_of(cases: Sequence[Case], work: Workload) -> Table:
    headings = ("model", "px", "crop", "1 of n", "whole every", "in part", "F1", "streaming", "still", "MMAC", "kB")
    table = Table(title=f"{work.name}: parts and whole pictures", box=box.MARKDOWN)
    for heading in headings:
        table.add_column(heading, justify="right")
    for c in cases:
        crop, every = (f"{c.crop:g}", str(c.whole_every)) if c.crop else ("", "")
        scores = (f"{score:.3f}" for score in (c.f1, c.streaming, c.still))
        cells = (c.model, str(c.resolution_px), crop, str(c.stride), every, f"{100 * c.cropped_frac:.0f} %")
        table.add_row(*cells, *scores, f"{c.mmacs:.0f}", f"{c.sent_bytes / 1e3:.2f}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--look", action="store_true", help="only measure the time for finding a window")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle, console = open_bundle("campus"), Console(width=140)
    if options.look:
        times = looking(bundle, options.split)
        console.print(f"window {1e3 * times['look_s']:.3f} ms, head of nano at 256 px {1e3 * times['head_s']:.3f} ms")
        return 0
    cases = cases_of(Player(bundle, options.split), lambda text: print(text, file=sys.stderr, flush=True))
    console.print(table_of(cases, bundle.work))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(case) for case in cases], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
