"""Compares the compressed models of a bundle with those that they were made from.

``python -m benchmarks.bench_compression --bundle DIRECTORY`` takes a bundle that ``mecpilot models compress`` wrote.
Bytes, multiply-accumulates and scores are those of its manifest: scores of the test split, at one resolution, per exit.
Times are measured now, on one thread: each head segment (the stages before a cut, without payload) and the whole model
up to its last exit, model and variant taking turns on the same frames. A ratio below 1 is a gain.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from controller.errors import MecpilotError, UsageError
from runtime.bundles.bundle import Bundle, open_pair
from runtime.bundles.manifest import LOSSLESS, ModelInfo
from runtime.inference.engines import open_engines
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.inputs import model_input

WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """What one model is, relative to the one that it was made from (itself: ratios of 1)."""

    model: str
    made_from: str
    size_bytes: int
    macs: int  # of all stages up to the last exit, and its head
    head_ratios: tuple[float, ...]  # of the time of each head segment
    whole_ratio: float  # of the time up to the last exit
    scores: tuple[float, ...]  # per exit, on the test split
    validation: tuple[float, ...]


def rows_of(bundle: Bundle, work: Workload, px: int, rounds: int) -> list[Row]:
    """A row for each variant and for each model that has one."""
    origin = {
        name: training["compressed_from"]
        for name, training in bundle.manifest.training.items()
        if "compressed_from" in training
    }
    origin = {name: _first(name, origin) for name in origin}
    wanted = [info for info in bundle.manifest.models if info.name in {*origin, *origin.values()}]
    return [_row(bundle, work, info, origin.get(info.name, info.name), px, rounds) for info in wanted]


def _first(name: str, origin: dict[str, str]) -> str:
    """The model at the start of a chain of compressions."""
    while name in origin:
        name = origin[name]
    return name


def _row(bundle: Bundle, work: Workload, info: ModelInfo, made_from: str, px: int, rounds: int) -> Row:
    ratios = [1.0] * len(info.stages), 1.0
    if made_from != info.name:
        ratios = time_ratios(bundle.model(info.name), bundle.model(made_from), work, px, rounds)
    macs = sum(stage.macs[px] for stage in info.stages) + info.exits[-1].macs[px]
    scores = [_scores(bundle, info.name, px, split) for split in ("test", "validation")]
    return Row(info.name, made_from, info.file.size_bytes, macs, tuple(ratios[0]), ratios[1], *scores)


def _scores(bundle: Bundle, model: str, px: int, split: str) -> tuple[float, ...]:
    rows = [v for v in bundle.manifest.variants if (v.model, v.resolution_px, v.codec) == (model, px, LOSSLESS)]
    return tuple(row.accuracy[split] for row in rows)


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
        cells = [f"{row.size_bytes / 1e3:.0f}", f"{row.macs / 1e6:.2f}"]
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
    open_engines(bundle, work)  # UsageError where a library is missing
    px = options.px or bundle.manifest.resolutions_px[0]
    if px not in bundle.manifest.resolutions_px:
        known = ", ".join(map(str, bundle.manifest.resolutions_px))
        raise UsageError(f"--px {px}; expected one of: {known}")
    rows = rows_of(bundle, work, px, options.rounds)
    if not rows:
        print(
            f"{bundle.directory} has no compressed models; make some with `mecpilot models compress`", file=sys.stderr
        )
    console = Console(width=220)
    for base in dict.fromkeys(row.made_from for row in rows):
        of_base = [row for row in rows if row.made_from == base]
        console.print(
            table_of(of_base, f"{bundle.workload}, {base}, {px} px: times relative to it, scores in per cent")
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="garments", help="a bundle with compressed models, or its directory")
    parser.add_argument("--px", type=int, help="default: the largest resolution")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures here")
    try:
        run(parser.parse_args())
    except MecpilotError as error:
        print(f"bench_compression: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
