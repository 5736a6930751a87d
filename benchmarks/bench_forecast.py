"""Compares boxes that move on by a forecast with boxes that stand still, per frame stride and latency.

``python -m benchmarks.bench_forecast`` runs the last exit of a few models on every frame of a split, once. Then it
plays a stream: one of every few frames is answered, each answer is out some capture periods after its capture, and what
a viewer sees at each capture is scored against that frame's truth. That is streaming accuracy
(``controller.streaming``); with latency 0.5 an answer is out before the next capture. The first column has the score of
the skipped frames alone, if answers are out at once. The third figure of a cell is what the twin replays: the scores
that ``mecpilot models train`` records per sample and lag (``runtime.building.variants.forecast_scores``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from controller.forecast import Forecaster
from controller.records import Floats
from controller.reuse import Answers, past_answer
from controller.streaming import TICK
from runtime.building.variants import forecast_scores, lagged_scores
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.recorded import MAX_LAG
from runtime.forecast.tracker import BoxTracker
from runtime.workloads.base import Workload, forecaster_of
from runtime.workloads.inputs import model_input

STRIDES = (1, 2, 3, 5)
LATENCIES = (0.5, 1.5, 2.5, 4.5)  # capture periods
SKIPPED = 0.0  # latency that stands for: answers are out at once, and only the skipped frames count
MODELS = ("nano:384", "medium:512")
SPLIT = "test"
COUNTS = (5, 50, 200)  # boxes


@dataclass(frozen=True)
class Case:
    """Mean scores of one model, stride and latency: of boxes that stand still, that move on, and in the twin."""

    model: str
    stride: int
    latency: float
    still: float
    forecast: float
    twin: float


def answers_of(bundle: Bundle, name: str, px: int) -> list[Any]:
    """What the last exit answers to every sample of the split."""
    work, model = bundle.work, bundle.model(name)
    found: list[Any] = []
    with torch.inference_mode():
        for index in range(work.sample_count(SPLIT)):
            image = work.resize(work.sample(index, SPLIT)[0], px)
            *_, outputs = model.all_exits(model_input(work, model, image[None]))
            found += work.answers(outputs.numpy(), px)
    return found


def played(
    work: Workload, answers: Sequence[Any], truths: Sequence[Any], stride: int, latency: float, first: int, moves: bool
) -> tuple[Floats, Floats]:
    """(N,) the score of what a viewer sees at each capture, and how many frames ago it was captured; NaN before the
    first answer. The frames ``first``, ``first + stride``, ... are answered."""
    forecaster: Forecaster | None = forecaster_of(work) if moves else None
    known, coming = Answers(), list(range(first, len(answers), stride))
    score, age = np.full(len(answers), np.nan), np.full(len(answers), np.nan)
    for frame, truth in enumerate(truths):
        while coming and coming[0] + latency <= frame + TICK:
            number = coming.pop(0)
            known.add(past_answer(number, number + latency, answers[number], forecaster))
        if (newest := known.newest_at(frame + TICK)) is not None:
            score[frame] = work.score(newest.at(frame).prediction, truth)
            age[frame] = frame - newest.frame
    return score, age


def cases_of(work: Workload, model: str, answers: Sequence[Any], truths: Sequence[Any]) -> list[Case]:
    """Every stride and latency, each as the mean over all first frames."""
    still, moved = lagged_scores(work, answers, truths), forecast_scores(work, answers, truths)
    assert still is not None
    assert moved is not None
    at_once = np.array([work.score(answer, truth) for answer, truth in zip(answers, truths, strict=True)])
    replayed = np.concatenate((at_once[None], moved))
    found = []
    for stride in STRIDES:
        for latency in (*([SKIPPED] if stride > 1 else []), *LATENCIES):
            runs = [
                [played(work, answers, truths, stride, latency, first, moves) for first in range(stride)]
                for moves in (False, True)
            ]
            ages = np.concatenate([age for _, age in runs[0]])
            counts = ages > 0 if latency == SKIPPED else ages >= 0  # false before the first answer
            tables = [np.concatenate([score for score, _ in run]) for run in runs]
            tables.append(np.concatenate([_replayed(replayed, age) for _, age in runs[0]]))
            found.append(Case(model, stride, latency, *(float(table[counts].mean()) for table in tables)))
    return found


def _replayed(table: Floats, age: Floats) -> Floats:
    """(N,) the recorded scores of the answers that are seen; ``table`` (lags + 1, samples)."""
    ago = np.nan_to_num(age).astype(np.int64)
    return np.asarray(table[np.minimum(ago, MAX_LAG), np.arange(len(age)) - ago])


def tracking_ms(count: int, rounds: int = 200) -> tuple[float, float]:
    """Median CPU time of one answer of so many boxes in the tracker, and of one forecast."""
    rng = np.random.default_rng(0)
    corner, speed = rng.uniform(0, (748, 526), (count, 2)), rng.normal(0, 2, (count, 2))
    tracker = BoxTracker((768, 576))
    add_s, at_s = [], []
    for frame in range(rounds):
        where = np.abs(corner + frame * speed) % (748, 526)
        boxes = np.column_stack((where, np.full((count, 1), 20.0), np.full((count, 1), 50.0), np.ones(count))).tolist()
        began_s = time.thread_time()
        tracks = tracker.add(frame, boxes)
        added_s = time.thread_time()
        assert tracks is not None
        tracks.at(frame + 1)
        add_s.append(added_s - began_s)
        at_s.append(time.thread_time() - added_s)
    return 1e3 * float(np.median(add_s)), 1e3 * float(np.median(at_s))


def table_of(cases: Sequence[Case]) -> Table:
    table = Table(title="streaming accuracy: standing still / forecast / forecast in the twin", box=box.MARKDOWN)
    headings = (
        "model",
        "1 of n frames",
        "skipped frames",
        *(f"out after {latency:g} periods" for latency in LATENCIES),
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for model, stride in dict.fromkeys((case.model, case.stride) for case in cases):
        row = [case for case in cases if (case.model, case.stride) == (model, stride)]
        cells = [f"{case.still:.3f} / {case.forecast:.3f} / {case.twin:.3f}" for case in row]
        table.add_row(model, str(stride), *([] if stride > 1 else [""]), *cells)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="campus", help="a shipped bundle's name, or a directory")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="MODEL:PX", help="models and resolutions")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = open_bundle(options.bundle)
    truths = [bundle.work.sample(index, SPLIT)[1] for index in range(bundle.work.sample_count(SPLIT))]
    cases: list[Case] = []
    for text in options.models:
        name, px = text.split(":")
        cases += cases_of(bundle.work, f"{name}, {px} px", answers_of(bundle, name, int(px)), truths)
    console = Console(width=160)
    console.print(table_of(cases))
    gain = min(case.forecast - case.still for case in cases)
    errors = [case.twin - case.forecast for case in cases]
    console.print(f"least gain {gain:+.3f}; twin - replay {min(errors):+.3f} to {max(errors):+.3f}", highlight=False)
    for count in COUNTS:
        add_ms, at_ms = tracking_ms(count)
        console.print(
            f"{count} boxes: {add_ms:.2f} ms of CPU time per answer, {at_ms:.2f} ms per forecast", highlight=False
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
