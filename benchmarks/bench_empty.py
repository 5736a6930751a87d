"""Measures the filter that knows empty frames, on sub-windows of the campus camera: empty frames filtered, and recall.

``python -m benchmarks.bench_empty [--out filter-empty.png]`` fits the network on training frames and sets a threshold
on validation frames for each window, as ``mecpilot models empty`` does, with the answers of a detector as labels. Then
it plays the test frames of each window in order through the filter of the device. Empty frames, and frames with a
target, are those of the teacher's labels. In ``nobody at all`` no part of a person is in the window.

Windows of 192 x 144 pixels on a grid of 48 pixels count, in which 5 to 50 % of the training frames and of the
validation frames hold a person. The main one has the most frames with a person among these. ``all`` sums over the
windows. ``changed pixels`` is the baseline: the share of the pixels that differ from the same background, with a
threshold set in the same way. ``in hindsight`` is the best threshold on the test frames. The last line has the time of
a look.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from controller.emptiness import FRAMES_IN_A_ROW
from controller.reuse import PastAnswer
from runtime.building.emptiness.footage import Labelled, labelled, labeller, samples_of
from runtime.building.emptiness.training import Fitted, calibrated, fit, reached_by, scored, small_place, windows_near
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.emptiness.background import FAST_STEP, Background
from runtime.emptiness.file import EmptyKnown, EmptyManifest
from runtime.shortcuts.chain import Chain
from runtime.shortcuts.filtering.emptiness import Emptiness
from runtime.sources.frames import Frame
from runtime.sources.window import Window
from runtime.workloads.base import Task
from runtime.workloads.boxes import Boxes, inside

#: Goals: share of the empty frames filtered, at this share of the frames with a target run.
FILTERED, RECALL = 0.9, 0.98
WIDTH_PX, HEIGHT_PX, GRID_PX = 192, 144, 48
LEAST_BUSY, MOST_BUSY = 0.05, 0.5
GAINS = (1.0, 0.95, 0.6)
PERIOD_S = 0.1

Scores = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Result(NamedTuple):
    """Counts of one window, or sums."""

    filtered: int  # empty frames
    empty: int
    run: int  # frames with a target
    holding: int
    bare_filtered: int  # empty frames that no part of a person reaches
    bare: int

    @property
    def filtered_frac(self) -> float:
        return self.filtered / max(self.empty, 1)

    @property
    def recall(self) -> float:
        return self.run / max(self.holding, 1)

    @property
    def bare_frac(self) -> float:
        return self.bare_filtered / max(self.bare, 1)


class Footage(NamedTuple):
    """The test frames with one gain: small copies, the detector's answers, and the teacher's boxes."""

    seen: Labelled
    truths: list[Boxes]


def holding(truths: Sequence[Boxes], window: Window) -> Bools:
    """(N,) whether each frame holds a person in the window."""
    return np.array([bool(inside(truth, window)) for truth in truths])


def touched(truths: Sequence[Boxes], window: Window) -> Bools:
    """(N,) whether a part of a person is in the window, though the middle may be outside."""
    x, y, w, h = window
    return np.array(
        [any(b[0] < x + w and b[0] + b[2] > x and b[1] < y + h and b[1] + b[3] > y for b in t) for t in truths]
    )


def windows_of(bundle: Bundle) -> list[Window]:
    """The windows that count, the main one first. Chosen by the labels of training and validation frames."""
    work = bundle.work
    parts = {
        split: [work.sample(index, split)[1] for index in range(work.sample_count(split))]
        for split in ("train", "validation")
    }
    height, width = bundle.frame_shape[:2]
    grid = [
        Window(x, y, WIDTH_PX, HEIGHT_PX)
        for y in range(0, height - HEIGHT_PX + 1, GRID_PX)
        for x in range(0, width - WIDTH_PX + 1, GRID_PX)
    ]
    held = {window: [holding(truths, window) for truths in parts.values()] for window in grid}
    kept = [w for w, holds in held.items() if all(LEAST_BUSY <= each.mean() <= MOST_BUSY for each in holds)]
    return sorted(kept, key=lambda window: -sum(int(each.sum()) for each in held[window]))


def known(found: Fitted, level: Any, threshold: float, window: Window) -> EmptyKnown:
    """What a device reads from a file."""
    frame = (found.level.shape[0] * found.step, found.level.shape[1] * found.step)
    return EmptyKnown(EmptyManifest("campus", frame, window, threshold, RECALL, 0, "", "", ""), found.weights, level)


def play(filter_: Emptiness, footage: Footage, window: Window) -> Result:
    """Every frame through the device's filter; a frame that is run is answered before the next one."""
    place = small_place(window, 4)
    smalls = [small[place] for small in footage.seen.smalls]
    chain, passed = Chain([filter_], 1.0, smalls.__getitem__), []
    for index, boxes in enumerate(footage.seen.boxes):
        frame = Frame(index, index, index * PERIOD_S)
        reuse = chain.before_decision(frame, frame.captured_s)
        passed.append(reuse is not None)
        if reuse is None:
            chain.answered(PastAnswer(index, frame.captured_s + PERIOD_S / 2, inside(boxes, window)))
    return result(np.array(passed), footage.truths, window)


def result(passed: Bools, truths: Sequence[Boxes], window: Window) -> Result:
    holds, bare = holding(truths, window), ~touched(truths, window)
    counts = (passed & ~holds, ~holds, ~passed & holds, holds, passed & bare, bare)
    return Result(*(int(each.sum()) for each in counts))


def total(results: Sequence[Result]) -> Result:
    return Result(*(sum(column) for column in zip(*results, strict=True)))


def curve(scores: Sequence[Scores], holds: Sequence[Bools]) -> list[tuple[float, float]]:
    """Recall and share of the empty frames filtered, for each threshold, over all windows."""
    all_scores, held = np.concatenate(scores), np.concatenate(holds)
    found = []
    for threshold in np.unique(all_scores[held]):
        passed = all_scores < threshold
        found.append((float((~passed)[held].mean()), float(passed[~held].mean())))
    return found


def at_recall(points: Sequence[tuple[float, float]], recall: float) -> float:
    return max((filtered for reached, filtered in points if reached >= recall), default=0.0)


def changed(found: Fitted, footage: Labelled, window: Window) -> Scores:
    """(N,) largest share of changed pixels of each frame and those just before: the baseline."""
    place, last = small_place(window, found.step), deque[float](maxlen=FRAMES_IN_A_ROW)
    background, scores = Background(found.level[place]), []
    for small in footage.smalls:
        picture = small[place].astype(np.float32)
        last.append(background.difference(picture).changed)
        background.follow(picture, FAST_STEP)
        scores.append(max(last))
    return np.array(scores)


def changed_threshold(found: Fitted, rest: Labelled, window: Window) -> float:
    """As ``calibrated`` sets the network's."""
    pools = []
    for each in windows_near(window, found.level.shape, found.step):
        holds = holding(rest.boxes, each)
        if holds.any() and holds.mean() <= MOST_BUSY:
            pools.append(changed(found, rest, each)[holds])
    return reached_by(np.concatenate(pools), RECALL)


def darker(frames: Any, gain: float) -> Any:
    return (cv2.convertScaleAbs(frame, alpha=gain) for frame in frames)


def measure(bundle: Bundle, console: Console) -> tuple[list[dict[str, Any]], dict[str, list[tuple[float, float]]]]:
    work, decision = bundle.work, labeller(bundle)
    label = partial(labelled, bundle=bundle, work=work, decision=decision, seen=lambda: None)
    found = fit(label(samples_of(work, "train")), step=4)
    rest = label(samples_of(work, "validation"))
    truths = [work.sample(index, "test")[1] for index in range(work.sample_count("test"))]
    windows = windows_of(bundle)
    ready = {window: calibrated(found, rest, window, RECALL) for window in windows}
    console.print(f"labels: {decision.label}; {found.weights.numbers} weights; {len(windows)} windows", highlight=False)
    rows, curves = list[dict[str, Any]](), dict[str, list[tuple[float, float]]]()
    for gain in GAINS:
        footage = Footage(label(darker(samples_of(work, "test"), gain)), truths)
        played = {}
        for window in windows:
            one = known(found, ready[window].level, ready[window].threshold, window)
            played[window] = play(_Small(one, work), footage, window)
        rows += _rows(f"gain {gain:g}", "network", played)
        if gain == 1.0:
            curves = _curves(found, footage, windows)
            base = {w: changed(found, footage.seen, w) < changed_threshold(found, rest, w) for w in windows}
            rows += _rows("gain 1", "changed pixels", {w: result(base[w], truths, w) for w in windows})
    return rows, curves


class _Small(Emptiness):
    """Looks at small copies that were made before."""

    def __init__(self, one: EmptyKnown, task: Task) -> None:
        super().__init__(one, task)
        self._known = _AsItIs(one.manifest, one.weights, one.level)


class _AsItIs(EmptyKnown):
    def small(self, picture: Any) -> Any:
        return picture.astype(np.float32)


def _curves(found: Fitted, footage: Footage, windows: Sequence[Window]) -> dict[str, list[tuple[float, float]]]:
    curves = {}
    for name, score in (("network", lambda *a: scored(*a)[0]), ("changed pixels", changed)):
        for which, some in (("main", windows[:1]), ("all", windows)):
            scores = [score(found, footage.seen, window) for window in some]
            curves[f"{name}, {which}"] = curve(scores, [holding(footage.truths, window) for window in some])
    return curves


def _rows(footage: str, how: str, played: dict[Window, Result]) -> list[dict[str, Any]]:
    sums = {"all": total(list(played.values()))} | {window.text: found for window, found in played.items()}
    names = list(sums)
    names[0], names[1] = names[1], names[0]  # the main window first
    return [
        {"footage": footage, "filter": how, "window": name, **sums[name]._asdict()}
        | {"filtered_frac": sums[name].filtered_frac, "recall": sums[name].recall, "bare_frac": sums[name].bare_frac}
        for name in names
    ]


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("footage", "filter", "window", title="campus, test frames", box=box.MARKDOWN)
    for heading in ("empty", "filtered", "with a target", "run", "nobody at all", "filtered"):
        table.add_column(heading, justify="right")
    for row in rows:
        counts = (str(row["empty"]), f"{row['filtered_frac']:.1%}", str(row["holding"]), f"{row['recall']:.1%}")
        counts += (str(row["bare"]), f"{row['bare_frac']:.1%}")
        table.add_row(row["footage"], row["filter"], row["window"], *counts)
    return table


def draw(curves: dict[str, list[tuple[float, float]]], rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Empty frames filtered over recall, and where the thresholds of the device lie."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4))
    for (name, points), colour in zip(curves.items(), ("C0", "C0", "C1", "C1"), strict=True):
        style = "-" if name.endswith("all") else ":"
        axis.step(*zip(*points, strict=True), style, color=colour, label=name, where="post")
    for row in [row for row in rows if row["footage"] == "gain 1"][: len(rows)]:
        if row["window"] == "all":
            axis.plot(row["recall"], row["filtered_frac"], "D", color="C0" if row["filter"] == "network" else "C1")
    axis.axhline(FILTERED, color="grey", linewidth=0.7)
    axis.axvline(RECALL, color="grey", linewidth=0.7)
    axis.set(xlim=(0.85, 1.002), xlabel="frames with a person that are run", ylabel="empty frames filtered")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def median_ms(call: Callable[[int], Any], count: int) -> float:
    taken = []
    for index in range(count):
        began_s = time.perf_counter()
        call(index)
        taken.append(time.perf_counter() - began_s)
    return 1e3 * float(np.median(taken))


def look_ms(bundle: Bundle, window: Window) -> dict[str, float]:
    """Median time of a look at a window, at a whole frame, and of running the labelling model."""
    from runtime.emptiness.scene import Scene
    from runtime.workloads.inputs import model_input

    work, decision, times = bundle.work, labeller(bundle), {}
    pictures = [work.sample(index, "test")[0] for index in range(50)]
    rng = np.random.default_rng(0)
    from runtime.emptiness.network import SHAPES, Weights

    weights = Weights(*(rng.normal(0, 0.1, array.shape).astype(np.float32) for array in SHAPES))
    height, width = bundle.frame_shape[:2]
    for name, place in (("window", window), ("whole frame", Window(0, 0, width, height))):
        one = EmptyKnown(
            EmptyManifest("campus", (height, width), place, 0.0, RECALL, 0, "", "", ""), weights, SHAPES.first
        )
        scene = Scene(weights, one.small(pictures[0]))
        times[name] = median_ms(lambda n, one=one, scene=scene: scene.look(one.small(pictures[n])), len(pictures))
    model = bundle.model(decision.model)

    def run(index: int) -> None:
        with torch.inference_mode():
            model.all_exits(model_input(work, model, work.resize(pictures[index], decision.resolution_px)[None]))

    return times | {decision.label: median_ms(run, 20)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write a plot here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    bundle, console = open_bundle("campus"), Console(width=120)
    rows, curves = measure(bundle, console)
    console.print(table_of(rows))
    for name, points in curves.items():
        shares = ", ".join(f"{at_recall(points, recall):.1%} at {recall:g}" for recall in (0.99, 0.98, 0.95, 0.9))
        console.print(f"in hindsight, {name}: {shares}", highlight=False)
    times = look_ms(bundle, windows_of(bundle)[0])
    console.print("ms: " + ", ".join(f"{name} {ms:.2f}" for name, ms in times.items()), highlight=False)
    if options.out:
        draw(curves, rows, options.out)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "curves": curves, "ms": times}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
