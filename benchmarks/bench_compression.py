"""Compares compressed models with those that they were made from.

``python -m benchmarks.bench_compression --bundle DIRECTORY`` takes a bundle that ``mecpilot models compress`` wrote;
``--bundle garments --made FOLDER`` takes the weights of variants in a folder instead, as ``--made`` of that command.
Scores are those of every exit on the test split, at one resolution. Times are measured on one thread: each head segment
(the stages before a cut, without payload) and the whole model up to its last exit, model and variant taking turns on
the same frames. A ratio below 1 is a gain.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.support.ending import exit_code
from controller.errors import UsageError
from runtime.building.split_frames import first_frames
from runtime.bundles.bundle import Bundle, open_pair
from runtime.bundles.manifest import ModelInfo
from runtime.bundles.weights import load_for_inference
from runtime.models.describe import describe_layers
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Split

WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class Candidate:
    """A model, and the one that it was made from."""

    name: str
    base: ModelInfo
    file: Path

    def load(self, work: Workload) -> BranchyModel:
        """The inference copy."""
        return load_for_inference(self.file, work.build, self.base.family, self.base.exit_after)


@dataclass(frozen=True)
class Row:
    """What one model is, relative to the one that it was made from (itself: ratios of 1)."""

    model: str
    made_from: str
    size_bytes: int
    macs: int | None  # of all stages and exit heads; None where the layers cannot be counted
    head_ratios: tuple[float, ...]  # of the time of each head segment
    whole_ratio: float  # of the time up to the last exit
    scores: tuple[float, ...]  # per exit


def candidates(bundle: Bundle, made: Path | None) -> Iterator[Candidate]:
    """The compressed models of a bundle, or of a folder, each after the model that it was made from."""
    training = bundle.manifest.training
    origin = {name: of["compressed_from"] for name, of in training.items() if "compressed_from" in of}
    for info in bundle.manifest.models:
        if info.name in origin:
            continue
        variants = [name for name in origin if _first(name, origin) == info.name]
        files = [bundle.directory / bundle.info(name).file.name for name in variants]
        if made is not None:
            files = sorted(made.glob(f"{info.name}-*.safetensors"))
        if files:
            yield Candidate(info.name, info, bundle.directory / info.file.name)
        for file in files:
            yield Candidate(file.stem, info, file)


def _first(name: str, origin: dict[str, str]) -> str:
    """The model at the start of a chain of compressions."""
    while name in origin:
        name = origin[name]
    return name


def row_of(candidate: Candidate, base: BranchyModel, work: Workload, options: argparse.Namespace) -> Row:
    """Measure one model."""
    model, px = candidate.load(work), options.px
    is_base = candidate.name == candidate.base.name
    heads, whole = [1.0] * len(model.stages), 1.0
    if not is_base:
        heads, whole = time_ratios(model, base, work, px, options.rounds)
    example = model_input(work, model, work.resize(work.sample(0)[0], px)[None].copy())
    layers = describe_layers(model, example)
    macs = sum(layer.macs for part in (*layers.stages, *layers.exits) for layer in part)
    counted = any(layer.macs for stage in layers.stages for layer in stage)
    size_bytes = candidate.file.stat().st_size
    scores = scores_of(model, work, px, options.split, options.samples)
    names = candidate.name, candidate.base.name
    return Row(*names, size_bytes, macs if counted else None, tuple(heads), whole, scores)


@torch.inference_mode()
def scores_of(model: BranchyModel, work: Workload, px: int, split: Split, samples: int | None) -> tuple[float, ...]:
    """Mean score of each exit."""
    frames = first_frames(work, split, samples)
    truths, found = frames.truths(), [[] for _ in model.exits]
    for batch in frames.batches(px):
        for exit_branch, output in enumerate(model.all_exits(model_input(work, model, batch))):
            found[exit_branch] += work.answers(output.numpy(), px)
    return tuple(float(np.mean([work.score(*pair) for pair in zip(of, truths, strict=True)])) for of in found)


@torch.inference_mode()
def time_ratios(
    model: BranchyModel, base: BranchyModel, work: Workload, px: int, rounds: int
) -> tuple[list[float], float]:
    """Time of each head segment and of the whole, of a model relative to another one on the same frames.

    The ratio of lower quartiles: on a machine that does other work, the rest of the samples shows that work.
    """
    seconds: list[list[list[float]]] = [[], []]
    for number in range(-WARM_UP_ROUNDS, rounds):
        small = work.resize(work.sample(number % 16, "validation")[0], px)[None].copy()
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            found = _marks(base if which else model, work, small)
            if number >= 0:
                seconds[which].append(found)
    mine, its = (np.percentile(np.array(times), 25, axis=0) for times in seconds)
    ratios = (mine / its).tolist()
    return ratios[:-1], ratios[-1]


def _marks(model: BranchyModel, work: Workload, image: np.ndarray) -> list[float]:
    """Seconds from the input until each stage has ended, and until the last exit has answered."""
    x = model_input(work, model, image)
    start_s, marks = time.perf_counter(), []
    for stage in range(len(model.stages)):
        x = model.run_stages(x, stage, stage + 1)
        marks.append(time.perf_counter() - start_s)
    model.exits[-1](x)
    return [*marks, time.perf_counter() - start_s]


def table_of(rows: list[Row], title: str) -> Table:
    """A row per model; scores in per cent, the difference to the original in brackets."""
    table = Table("model", title=title, box=box.MARKDOWN)
    for heading in ("kB", "MMAC", "head time", "whole time", *(f"exit {e}" for e in range(len(rows[0].scores)))):
        table.add_column(heading, justify="right")
    by_name = {row.model: row for row in rows}
    for row in rows:
        base = by_name[row.made_from]
        cells = [f"{row.size_bytes / 1e3:.0f}", "-" if row.macs is None else f"{row.macs / 1e6:.2f}"]
        if base is row:
            cells += ["1", "1", *(f"{100 * score:.2f}" for score in row.scores)]
        else:
            cells += [" ".join(f"{ratio:.2f}" for ratio in row.head_ratios), f"{row.whole_ratio:.2f}"]
            pairs = zip(row.scores, base.scores, strict=True)
            cells += [f"{100 * mine:.2f} ({100 * (mine - its):+.2f})" for mine, its in pairs]
        table.add_row(row.model, *cells)
    return table


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    bundle, work = open_pair(options.bundle)
    known = bundle.manifest.resolutions_px
    options.px = options.px or known[0]
    if options.px not in known:
        raise UsageError(f"--px {options.px}; expected one of: {', '.join(map(str, known))}")
    rows: list[Row] = []
    for candidate in candidates(bundle, options.made):
        rows.append(row_of(candidate, bundle.model(candidate.base.name), work, options))
    if not rows:
        print(
            f"{bundle.directory} has no compressed models; make some with `mecpilot models compress`", file=sys.stderr
        )
    for base in dict.fromkeys(row.made_from for row in rows):
        of_base = [row for row in rows if row.made_from == base]
        title = f"{bundle.workload}, {base}, {options.px} px: times relative to it, {options.split} scores in per cent"
        Console(width=220).print(table_of(of_base, title))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="garments", help="a bundle with compressed models, or its directory")
    parser.add_argument("--made", type=Path, help="folder with the weights of variants; default: those of the bundle")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--samples", type=int, help="of the split; default: all")
    parser.add_argument("--px", type=int, help="default: the largest resolution")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    return exit_code("bench_compression", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
