"""Measures the input filter on the campus camera: frames filtered, and what that costs in accuracy.

``python -m benchmarks.bench_filter [--forecast] [--split test] [--laps 3] [--out filter.png]`` runs one detector on
every frame of a split, as it is and darker, and then plays the frames in order through the filter of the device: off,
with fixed thresholds, and adapting. An answer is out before the next capture, so the filter is all that differs.
Columns: share of frames filtered; score of the frames' own answers, and streaming accuracy, both relative to the filter
off.
``hindsight`` is the best that any choice of frames to run can reach, with all scores known. The last line has the time
of a look at a picture.

With ``--forecast`` the device's tracker moves boxes on, with the filter off too. What a forecast scores depends on all
answers before it, so there is no ``hindsight`` then. ``1 of n`` runs one of n frames, whatever the pictures show.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from controller.filtering import MOST_AGE
from controller.records import NO_PAYLOAD, Decision, Status
from controller.reuse import Answers, Reuse, past_answer
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.device.local_compute import LocalCompute
from runtime.shortcuts.base import Context, Shortcut
from runtime.shortcuts.chain import Chain
from runtime.shortcuts.filtering.differencing import Differencing
from runtime.shortcuts.filtering.features import FEATURES, Differencer
from runtime.sources.frames import Frame
from runtime.sources.samples import Samples
from runtime.workloads.base import forecaster_of
from runtime.workloads.types import Image, Split

#: Goals: share of frames filtered, at this share of the unfiltered accuracy.
FILTERED, KEPT = 0.6, 0.95
#: A fixed threshold that is right for the training frames (98 to 95 % of the score), and others that users may guess.
FIXED = (0.005, 0.01, 0.012, 0.02)
TARGETS = (0.95, 0.98)
#: With forecasts 0.88 filters 61 to 67 % of the training and validation frames, and keeps 97 % or more of the streaming
#: accuracy.
FORECAST_TARGETS = (0.88, 0.95)
EVERY = (2, 3, 4)
DIMMED = 0.6
PERIOD_S = 0.1


class Played(NamedTuple):
    """Figures of one pass."""

    filtered: float
    score: float  # of each frame's own answer
    streaming: float


class Footage:
    """The frames of a split with one gain, and the detector's answers to them."""

    def __init__(self, bundle: Bundle, split: Split, gain: float) -> None:
        work = self.work = bundle.work
        self.score = work.score
        samples = [work.sample(index, split) for index in range(work.sample_count(split))]
        self.pictures: list[Image] = [cv2.convertScaleAbs(picture, alpha=gain) for picture, _ in samples]
        self.truths = [truth for _, truth in samples]
        self.answers = self._answers(bundle, split)

    def _answers(self, bundle: Bundle, split: Split) -> list[Any]:
        decision = best_alone(bundle)
        compute = LocalCompute(bundle, bundle.work, source=_Shown(bundle, split, self.pictures))
        heads = (compute.head(index, decision, lambda: None) for index in range(len(self.pictures)))
        return [compute.judge(index, head.outputs, decision)[0] for index, head in enumerate(heads)]

    def aged(self) -> np.ndarray:
        """(MOST_AGE + 1, N) score of each answer on the frame so many later; 0 beyond the end."""
        count = len(self.answers)
        found = np.zeros((MOST_AGE + 1, count))
        for age in range(MOST_AGE + 1):
            for frame in range(count - age):
                found[age, frame] = self.score(self.answers[frame], self.truths[frame + age])
        return found


class _Shown(Samples):
    """The workload's samples with other pictures."""

    def __init__(self, bundle: Bundle, split: Split, pictures: Sequence[Image]) -> None:
        super().__init__(bundle.work, split)
        self._pictures = pictures

    def picture(self, index: int) -> Image:
        return self._pictures[index]


def best_alone(bundle: Bundle) -> Decision:
    """The device-only decision with the best score on the validation frames."""
    score, space = bundle.recorded("validation").score.mean(axis=1), bundle.space
    alone = [row for row, d in enumerate(space.decisions) if d.payload == NO_PAYLOAD and d.frame_stride == 1]
    return space.decisions[max(alone, key=lambda row: float(score[space.variant[row]]))]


class Every(Shortcut):
    """Runs one of n frames."""

    needs_picture = True

    def __init__(self, every: int) -> None:
        self._every = every

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        return Reuse(Status.FILTERED, context.newest) if frame.index % self._every else None


def play(footage: Footage, member: Shortcut | None, laps: int, moves: bool = False) -> Played:
    """Play the frames in order, ``laps`` times. Each answer is out half a period after its capture. ``moves``: answers
    move on by forecasts."""
    count, out = len(footage.pictures), Answers()
    chain = Chain([] if member is None else [member], 1.0, footage.pictures.__getitem__)
    forecaster = forecaster_of(footage.work) if moves else None
    filtered, scores, seen = 0, [], []
    for index in range(laps * count):
        sample = index % count
        frame, truth = Frame(index, sample, index * PERIOD_S), footage.truths[sample]
        if (newest := out.newest_at(frame.captured_s)) is not None:
            seen.append(footage.score(newest.at(index).prediction, truth))
        reuse, shown = chain.before_decision(frame, frame.captured_s), footage.answers[sample]
        if reuse is None:
            chain.decided(index, 1)
            out.add(answer := past_answer(index, frame.captured_s + PERIOD_S / 2, shown, forecaster))
            chain.answered(answer)
        else:
            filtered, shown = filtered + 1, reuse.shown(index).prediction
        scores.append(footage.score(shown, truth))
    return Played(filtered / (laps * count), float(np.mean(scores)), float(np.mean(seen)))


def hindsight(footage: Footage) -> list[tuple[float, float]]:
    """Share of frames not run, and streaming accuracy, of the best choices: a shortest path for each price of a run."""
    aged, count = footage.aged(), len(footage.answers)
    found = []
    for price in np.linspace(0.0, 0.9, 19):
        value, following = np.zeros(count + 1), np.full(count, count)
        for frame in range(count - 1, -1, -1):
            last = min(frame + MOST_AGE, count)
            gains = np.cumsum([aged[at - frame, frame] if at < count else 0.0 for at in range(frame + 1, last + 1)])
            best = int(np.argmax(gains + value[frame + 1 : last + 1]))
            following[frame], value[frame] = frame + 1 + best, gains[best] + value[frame + 1 + best] - price
        frame, runs, total = 0, 0, 0.0
        while frame < count:
            runs += 1
            total += sum(aged[at - frame, frame] for at in range(frame + 1, min(following[frame] + 1, count)))
            frame = int(following[frame])
        found.append((1.0 - runs / count, total / (count - 1)))
    return found


def filters(score: Callable[[Any, Any], float], moves: bool, feature: str = "pixel") -> dict[str, Shortcut]:
    """New filters by name."""

    def make(threshold: float | None, target: float) -> Shortcut:
        differencer = Differencer(feature)
        return Differencing(differencer, score, threshold=threshold, target=target, most_age=MOST_AGE, moves=moves)

    every = {f"1 of {count}": Every(count) for count in EVERY} if moves else {}
    fixed = {f"fixed {threshold:g}": make(threshold, KEPT) for threshold in FIXED}
    targets = FORECAST_TARGETS if moves else TARGETS
    return every | fixed | {f"auto, target {target:g}": make(None, target) for target in targets}


def look_ms(pictures: Sequence[Image], feature: str) -> float:
    """Median time of a look."""
    differencer, taken = Differencer(feature), []
    before = differencer.sketch(pictures[0])
    for picture in pictures:
        began_s = time.perf_counter()
        differencer.difference(before, differencer.sketch(picture))
        taken.append(time.perf_counter() - began_s)
    return 1e3 * float(np.median(taken))


def jpeg_ms(bundle: Bundle, pictures: Sequence[Image]) -> float:
    """Median time of encoding a frame of 384 px as JPEG, quality 30."""
    taken = []
    for picture in pictures:
        resized = bundle.work.resize(picture, 384)
        began_s = time.perf_counter()
        cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, 30])
        taken.append(time.perf_counter() - began_s)
    return 1e3 * float(np.median(taken))


def measure(bundle: Bundle, split: Split, laps: int, moves: bool) -> list[dict[str, Any]]:
    """A row for each gain and filter, and for some best choices in hindsight; see ``play`` for ``moves``."""
    rows = []
    for name, gain in (("as it is", 1.0), (f"gain {DIMMED:g}", DIMMED)):
        footage = Footage(bundle, split, gain)
        off = play(footage, None, laps, moves)
        found = {"off": off}
        if moves:
            found["off, no forecast"] = play(footage, None, laps)
        found |= {label: play(footage, member, laps, moves) for label, member in filters(footage.score, moves).items()}
        for label, played in found.items():
            rows.append(_row(name, label, played.filtered, played.score / off.score, played.streaming / off.streaming))
        for filtered, streaming in [] if moves else _best_shares(footage):
            rows.append(_row(name, "hindsight", filtered, None, streaming / off.streaming))
    return rows


def _best_shares(footage: Footage) -> list[tuple[float, float]]:
    """The choices in hindsight that filter about as much as the goal, and less."""
    best = hindsight(footage)
    return [min(best, key=lambda pair: abs(pair[0] - share)) for share in (0.3, 0.4, 0.5, FILTERED)]


def _row(footage: str, label: str, filtered: float, score: float | None, streaming: float) -> dict[str, Any]:
    return {"footage": footage, "filter": label, "filtered": filtered, "score": score, "streaming": streaming}


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table("footage", "filter", title=title, box=box.MARKDOWN)
    for heading in ("filtered", "score / off", "streaming / off"):
        table.add_column(heading, justify="right")
    for row in rows:
        score = "" if row["score"] is None else f"{row['score']:.3f}"
        table.add_row(row["footage"], row["filter"], f"{row['filtered']:.1%}", score, f"{row['streaming']:.3f}")
    return table


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Streaming accuracy over frames filtered."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharex=True, sharey=True)
    for axis, measured in zip(axes, ("score", "streaming"), strict=True):
        for kind, marker in (("fixed", "o"), ("auto", "D"), ("hindsight", "_"), ("1 of", "x")):
            for footage, colour in zip(dict.fromkeys(row["footage"] for row in rows), ("C0", "C1"), strict=False):
                of = [r for r in rows if r["footage"] == footage and r["filter"].startswith(kind) and r[measured]]
                x, y = [row["filtered"] for row in of], [row[measured] for row in of]
                if of:
                    axis.plot(x, y, marker, color=colour, label=f"{kind}, {footage}")
        axis.axhline(KEPT, color="grey", linewidth=0.7)
        axis.axvline(FILTERED, color="grey", linewidth=0.7)
        axis.set_xlabel("frames filtered")
        axis.set_title(f"{'score of own answers' if measured == 'score' else 'streaming accuracy'} / off")
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--forecast", action="store_true", help="boxes move on by forecasts")
    parser.add_argument("--laps", type=int, default=3, help="how often the frames are played")
    parser.add_argument("--out", type=Path, help="write a plot here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    bundle = open_bundle("campus")
    rows = measure(bundle, options.split, options.laps, options.forecast)
    console = Console(width=120)
    console.print(table_of(rows, f"campus, {options.split} frames, {options.laps} laps, {best_alone(bundle).label}"))
    pictures = [bundle.work.sample(index, options.split)[0] for index in range(100)]
    times = {feature: look_ms(pictures, feature) for feature in FEATURES} | {"JPEG": jpeg_ms(bundle, pictures)}
    console.print("ms per picture: " + ", ".join(f"{name} {ms:.3f}" for name, ms in times.items()), highlight=False)
    if options.out:
        draw(rows, options.out)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "ms": times}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
