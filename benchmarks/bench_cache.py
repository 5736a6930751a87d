"""Measures the cache on the device: what it finds, how far its answers agree with fresh ones, and what it saves.

``python -m benchmarks.bench_cache [--plot docs/cache.png]`` answers the same frames with two devices in turns, one with
a cache and one without, both with real inference of one device-only decision, as fast as they can. So every cached
answer is compared with a fresh one, and both devices have the same disturbances. Streams: garments on a shelf, from
no item twice to nine of ten frames with an item that was shown before, and the campus camera. A chance is a frame whose
item the device has run before.

``--keys`` compares ways to make keys, on samples for validation. ``--evictions`` compares what goes when the memory is
full, on answers that were computed before.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.support.keys import KEYS
from controller.controllers.base import Controller
from controller.controllers.simple import FixedRow
from controller.costs import CostTable
from controller.records import NO_PAYLOAD, Floats, Outcome, Status
from controller.reuse import Answers, PastAnswer
from runtime.bundles.bundle import open_pair
from runtime.config.sections.shortcuts import CacheSection
from runtime.device.device import Device
from runtime.inference.segments import Segments
from runtime.profiling.profile import load_costs
from runtime.shortcuts.base import Context
from runtime.shortcuts.cache.shortcut import EdgeCache
from runtime.sources.frames import Frame
from runtime.workloads.base import Workload
from runtime.workloads.campus.workload import Campus
from runtime.workloads.garments.shelf import FRAMES, Shelf
from runtime.workloads.types import Split

Objects = NDArray[np.object_]
NOBODY = "tcp://127.0.0.1:9"
REPETITIONS = 0.0, 0.2, 0.4, 0.6, 0.8
#: The decision of every frame: model, resolution; its last exit, on the device.
RUN = {"garments": ("vgg", 28), "campus": ("small", 384)}
#: Goals: agreement, opportunities found at that agreement, latency at 0.8 repetition, slow-down where nothing repeats.
LEAST_AGREEMENT, LEAST_FOUND, LEAST_SPEED_UP, MOST_SLOWED = 0.95, 0.9, 3.0, 1.02


@dataclass(frozen=True)
class Measured:
    """What came of one stream."""

    stream: str
    opportunities: float  # share of the frames
    cached: float  # share of the frames
    found: float  # of the opportunities, answered by the cache
    verified: float  # of the opportunities, found as well, but run to compare
    agreement: float  # of cached answers with fresh ones
    score: float  # of all answers with the truth
    score_without: float  # the same without a cache
    median: float  # latency without / with a cache
    cpu: float  # mean time of the processor, likewise
    median_ms: float  # with a cache
    kilobytes: float
    threshold: float


def row_of(costs: CostTable) -> int:
    """The row that answers every frame."""
    decisions = costs.space.decisions
    model, px = RUN["campus" if decisions[0].resolution_px > 28 else "garments"]
    rows = [
        row
        for row, d in enumerate(decisions)
        if (d.model, d.resolution_px, d.payload, d.frame_stride) == (model, px, NO_PAYLOAD, 1)
    ]
    return max(rows, key=lambda row: decisions[row].exit_branch)


def pinned(costs: CostTable) -> Controller:
    """A controller that always decides that row."""
    return FixedRow("pinned", row_of(costs))


class _Device:
    """One of the two devices. Owns the outcomes and how long each of them took."""

    def __init__(self, workload: Workload, settings: CacheSection, frames: int) -> None:
        self._device = Device(
            workload=workload, controller=pinned, mec=NOBODY, fps=0, deadline_s=60.0, cache=settings, log=lambda _: None
        )
        self._run = self._device.prepare(frames=frames)
        self._run.warm_up()
        self.outcomes: list[Outcome] = []
        self.took_s: list[float] = []
        self.cpu_s: list[float] = []  # of the processor: whatever else runs on the machine does not count
        self._next = iter(self._run)

    def step(self) -> None:
        """Answer one frame."""
        began_s, began_cpu_s = time.perf_counter(), time.thread_time()
        self.outcomes.append(next(self._next))
        self.took_s.append(time.perf_counter() - began_s)
        self.cpu_s.append(time.thread_time() - began_cpu_s)

    def close(self) -> dict[str, float]:
        """End the run; the notes of the cache."""
        notes = self._run.shortcut_notes.get("cache", {})
        self._run.close()
        return notes


def measure(name: str, workload: Workload, settings: CacheSection, frames: int, items: Sequence[int]) -> Measured:
    """Both devices on the same frames, in turns; ``items`` (frames,) says what each frame shows."""
    with_cache, without = _Device(workload, settings, frames), _Device(workload, CacheSection(), frames)
    for frame in range(frames):
        first, second = (with_cache, without) if frame % 2 else (without, with_cache)
        first.step()
        second.step()
    notes = with_cache.close()
    without.close()
    return _summed_up(name, workload, with_cache, without, items, notes)


def _summed_up(
    name: str, workload: Workload, one: _Device, other: _Device, items: Sequence[int], notes: dict[str, float]
) -> Measured:
    cached = np.array([outcome.status is Status.CACHED for outcome in one.outcomes])
    known, chance = set[int](), np.zeros(len(items), bool)
    for frame, item in enumerate(items):
        chance[frame] = item in known
        if not cached[frame]:
            known.add(item)
    agreement = [
        workload.score(a.prediction, b.prediction)
        for a, b, hit in zip(one.outcomes, other.outcomes, cached, strict=True)
        if hit
    ]
    with_s, without_s = np.array(one.took_s)[1:], np.array(other.took_s)[1:]  # the first also connects
    return Measured(
        name,
        float(chance.mean()),
        float(cached.mean()),
        float((cached & chance).sum() / max(chance.sum(), 1)),
        float(notes.get("verified", 0.0) / max(chance.sum(), 1)),
        float(np.mean(agreement)) if agreement else float("nan"),
        _score(one.outcomes),
        _score(other.outcomes),
        float(np.median(without_s) / np.median(with_s)),
        float(np.mean(other.cpu_s[1:]) / np.mean(one.cpu_s[1:])),
        1e3 * float(np.median(with_s)),
        notes.get("kilobytes", 0.0),
        notes.get("threshold", 0.0),
    )


def _score(outcomes: Sequence[Outcome]) -> float:
    return float(np.mean([outcome.score or 0.0 for outcome in outcomes]))


# Tables -------------------------------------------------------------------------------------------------------


def table_of(found: Sequence[Measured]) -> Table:
    """One line per stream."""
    table = Table(box=box.MARKDOWN)
    headings = ("chances", "cached", "found", "agreement", "score", "without", "median latency", "CPU time", "kB")
    for heading in ("stream", *headings):
        table.add_column(heading, justify="left" if heading == "stream" else "right")
    for m in found:
        shares = f"{m.opportunities:.1%}", f"{m.cached:.1%}", f"{m.found:.1%}", f"{m.agreement:.1%}"
        factors = f"{m.median:.2f} x", f"{m.cpu:.2f} x", f"{m.kilobytes:,.0f}"
        table.add_row(m.stream, *shares, f"{m.score:.3f}", f"{m.score_without:.3f}", *factors)
    return table


def verdicts(found: Sequence[Measured]) -> Iterator[str]:
    """Whether the goals are reached."""
    for m in (m for m in found if m.stream.startswith("garments") and m.opportunities > 0.1):
        reached = m.found + m.verified >= LEAST_FOUND and m.agreement >= LEAST_AGREEMENT
        shares = f"{m.found:.1%} of the chances answered and {m.verified:.1%} verified"
        yield f"{m.stream}: {shares}, at an agreement of {m.agreement:.1%}: {_said(reached)}"
    for m in (m for m in found if m.stream == _name(0.8)):
        yield f"{m.stream}: median {m.median:.2f} times lower: {_said(m.median >= LEAST_SPEED_UP)}"
    for m in (m for m in found if m.stream == _name(0.0)):
        yield f"{m.stream}: {1 / m.cpu - 1:+.1%} CPU time: {_said(1 / m.cpu <= MOST_SLOWED)}"


def _said(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def _name(repetition: float) -> str:
    return f"garments, {repetition:g} repeated"


def plot(found: Sequence[Measured], path: Path) -> None:
    """Shares and factors over the repetition."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shelf = [m for m in found if m.stream.startswith("garments")]
    repetition = [float(m.stream.split()[1]) for m in shelf]
    figure, (shares, factors) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    shares.plot(repetition, [m.cached for m in shelf], "o-", label="frames answered by the cache")
    shares.plot(repetition, [m.opportunities for m in shelf], "k--", label="frames whose item was run before")
    shares.plot(repetition, [m.agreement for m in shelf], "s-", label="agreement of cached answers")
    shares.set(xlabel="frames with an item shown before", ylim=(0, 1.02), title="garments on a shelf")
    shares.legend(fontsize=8)
    factors.plot(repetition, [m.median for m in shelf], "o-", label="median latency")
    factors.plot(repetition, [m.cpu for m in shelf], "s-", label="mean, processor")
    factors.axhline(1.0, color="grey", linewidth=0.8)
    factors.set(xlabel="frames with an item shown before", title="time per frame, without / with a cache")
    factors.legend(fontsize=8)
    figure.savefig(path, dpi=120)


# Keys and evictions -------------------------------------------------------------------------------------------


def fresh_answers(workload: Workload, split: Split, count: int) -> list[object]:
    """Answers to the first samples of a split, each computed anew."""
    bundle, workload = open_pair(None, workload)
    segments = Segments(bundle, workload)
    model, px = RUN[bundle.workload]
    alone = [d for d in bundle.space.decisions if (d.model, d.resolution_px, d.payload) == (model, px, NO_PAYLOAD)]
    decision = max(alone, key=lambda d: d.exit_branch)
    pictures = (workload.sample(index, split)[0] for index in range(count))
    return [segments.answer(segments.whole(picture, decision), decision) for picture in pictures]


def replayed(
    workload: Workload,
    split: Split,
    answers: Sequence[object],
    settings: CacheSection,
    key_of: Callable[..., object] = KEYS["spectrum (used)"],
) -> tuple[Floats, Floats, Objects]:
    """(frames,) whether the cache answered, how far that agreed with the fresh answer, and the answers that were given;
    a look costs nothing."""
    cache = EdgeCache(settings, workload.score, key_of=key_of, clock=lambda: 0.0)  # type: ignore[arg-type]
    hit, agreement, given = np.zeros(len(answers)), np.zeros(len(answers)), np.empty(len(answers), object)
    for index, answer in enumerate(answers):
        picture = workload.sample(index, split)[0]
        now_s = 0.1 * index
        reuse = cache.try_answer(Frame(index, index, now_s), Context(now_s, Answers(), lambda picture=picture: picture))
        if reuse is not None and reuse.answer is not None:
            given[index] = reuse.answer.prediction
            hit[index], agreement[index] = 1.0, workload.score(given[index], answer)
        else:
            given[index] = answer
            cache.answered(PastAnswer(index, now_s + 0.01, answer))
    return hit, agreement, given


def compare_keys(console: Console) -> None:
    """What the cache finds with each key, and how long making one takes."""
    table = Table(box=box.MARKDOWN)
    for heading in ("key", "garments cached", "agreement", "us", "campus cached", "agreement", "us"):
        table.add_column(heading, justify="left" if heading == "key" else "right")
    streams: list[tuple[Workload, Split, int]] = [(Shelf(), "validation", 1000), (Campus(), "validation", 106)]
    fresh = [fresh_answers(*stream) for stream in streams]
    for name, key_of in KEYS.items():
        cells: list[str] = []
        for (workload, split, _), answers in zip(streams, fresh, strict=True):
            hit, agreement, _ = replayed(workload, split, answers, CacheSection(size="32MB"), key_of)
            cells += [f"{hit.mean():.1%}", f"{agreement.sum() / max(hit.sum(), 1):.1%}"]
            cells.append(f"{_key_us(workload, split, key_of):.0f}")
        table.add_row(name, *cells)
    console.print(table)


def _key_us(workload: Workload, split: Split, key_of: Callable[..., object]) -> float:
    pictures = [workload.sample(index, split)[0] for index in range(100)]
    took_s = []
    for picture in pictures:
        began_s = time.perf_counter()
        key_of(picture)
        took_s.append(time.perf_counter() - began_s)
    return 1e6 * float(np.median(took_s))


def time_looks(console: Console, frames: int = 600) -> None:
    """Median times of a look and of keeping an answer, each after a real run of a model: the constants of
    ``envs.twin.caching``."""
    bundle, workload = open_pair(None, Shelf(repetition=0.0))
    segments, cache = Segments(bundle, workload), EdgeCache(CacheSection(size="32MB"), workload.score)
    decision = bundle.space.decisions[row_of(load_costs(bundle, Path("shipped")))]
    times = np.zeros((frames, 3))
    for index in range(frames):
        picture, now_s = workload.sample(index, "validation")[0], 0.1 * index
        began_s = time.perf_counter()
        answer = segments.answer(segments.whole(picture, decision), decision)
        ran_s = time.perf_counter()
        context = Context(now_s, Answers(), lambda picture=picture: picture)  # type: ignore[misc]
        cache.try_answer(Frame(index, index, now_s), context)
        looked_s = time.perf_counter()
        cache.answered(PastAnswer(index, now_s + 0.01, answer))
        times[index] = ran_s - began_s, looked_s - ran_s, time.perf_counter() - looked_s
    run_us, look_us, keep_us = 1e6 * np.median(times[:200], axis=0)  # later it rests
    console.print(f"a run {run_us:.0f} us, a look {look_us:.0f} us, keeping an answer {keep_us:.0f} us")


def compare_twin(console: Console, frames: int = 2000) -> None:
    """What the cache finds with fresh answers to the changed pictures, and with the answers that the twin replays: the
    recorded ones to the items as they are."""
    table = Table(box=box.MARKDOWN)
    headings = ("equal answers", "cached", "twin", "agreement", "twin", "score", "twin")
    for heading in ("stream", *headings):
        table.add_column(heading, justify="left" if heading == "stream" else "right")
    for repetition in (0.2, 0.4, 0.8):
        shelf = Shelf(repetition=repetition)
        fresh = fresh_answers(shelf, "validation", frames)
        bundle = open_pair(None, shelf)[0]
        row = row_of(load_costs(bundle, Path("shipped")))
        label = bundle.recorded("validation").label
        assert label is not None, "the bundle of a classifier"
        recorded = label[bundle.space.variant[row], shelf.items("validation")[:frames]].tolist()
        truth = np.array([shelf.sample(index, "validation")[1] for index in range(frames)])
        cells: list[list[str]] = []
        for answers in (fresh, recorded):
            hit, agreed, given = replayed(shelf, "validation", answers, CacheSection(size="32MB"))
            agreement = agreed.sum() / max(hit.sum(), 1)
            cells.append([f"{hit.mean():.1%}", f"{agreement:.1%}", f"{(given == truth).mean():.3f}"])
        equal = np.mean(np.array(fresh) == np.array(recorded))
        table.add_row(_name(repetition), f"{equal:.1%}", *(cell for pair in zip(*cells, strict=True) for cell in pair))
    console.print(table)


def compare_evictions(console: Console) -> None:
    """Shares of frames that a small cache answers, by what goes when it is full."""
    sizes = ("64kB", "128kB", "256kB", "32MB")
    table = Table(box=box.MARKDOWN)
    for heading in ("eviction", *sizes):
        table.add_column(heading, justify="left" if heading == "eviction" else "right")
    workload = Shelf(repetition=0.8)
    answers = fresh_answers(workload, "validation", 1500)
    for eviction in ("gdsf", "lru", "w-tinylfu"):
        settings = [CacheSection(size=size, eviction=eviction) for size in sizes]  # type: ignore[arg-type]
        table.add_row(eviction, *(f"{replayed(workload, 'validation', answers, s)[0].mean():.1%}" for s in settings))
    console.print(table)


def run(options: argparse.Namespace, console: Console) -> None:
    """Measure and print."""
    import torch

    torch.set_num_threads(1)
    if options.keys:
        compare_keys(console)
    elif options.twin:
        compare_twin(console)
    elif options.times:
        time_looks(console)
    elif options.evictions:
        compare_evictions(console)
    else:
        compare_streams(options, console)


def compare_streams(options: argparse.Namespace, console: Console) -> None:
    """The devices with and without a cache."""
    settings = CacheSection(size="32MB")
    found = []
    for repetition in options.repetitions:
        shelf = Shelf(repetition=repetition)
        frames = min(options.frames, FRAMES)
        found.append(measure(_name(repetition), shelf, settings, frames, shelf.items("test")[:frames].tolist()))
        print(found[-1], file=sys.stderr, flush=True)  # the whole takes minutes
    campus = Campus()
    frames = campus.sample_count("test")
    found.append(measure("campus camera", campus, settings, frames, list(range(frames))))
    console.print(table_of(found))
    for line in verdicts(found):
        console.print(line, highlight=False)
    if options.plot:
        plot(found, options.plot)
    if options.json:
        options.json.write_text(json.dumps([asdict(m) for m in found], indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each stream of garments")
    parser.add_argument("--repetitions", type=float, nargs="+", default=REPETITIONS, help="of the streams of garments")
    parser.add_argument("--keys", action="store_true", help="compare ways to make keys instead")
    parser.add_argument("--twin", action="store_true", help="compare with the answers that the twin replays instead")
    parser.add_argument("--times", action="store_true", help="time looks instead")
    parser.add_argument("--evictions", action="store_true", help="compare what goes when the memory is full instead")
    parser.add_argument("--plot", type=Path, help="draw the figures here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    run(parser.parse_args(), Console(width=160))
    return 0


if __name__ == "__main__":
    sys.exit(main())
