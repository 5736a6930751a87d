"""Make the cheaper relatives of a foreign model within a time: exit heads, bottlenecks, a student.

What does not reach its target is left out, and is reported with its figures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from runtime.adoption.relatives.bottlenecks import best_cut, train_bottleneck
from runtime.adoption.relatives.features import Features, collect, frames_that_fit
from runtime.adoption.relatives.fitting import Pace
from runtime.adoption.relatives.heads import head_specs, train_heads
from runtime.adoption.relatives.payloads import Payload, bottleneck_payloads, jpegs, smallest, whole_compared
from runtime.adoption.relatives.student import train_student
from runtime.adoption.relatives.teacher import Teacher
from runtime.models.stages import BranchyModel
from runtime.models.training import Scalars
from runtime.workloads.adopted.families import BottleneckFamily, ExitSpec, Family, StudentFamily, WholeFamily, build
from runtime.workloads.family_decisions import FamilyDecisions
from runtime.workloads.types import Split

if TYPE_CHECKING:
    from runtime.workloads.adopted.workload import Adopted

#: Called with what is being done and the share of it that is done.
Progress = Callable[[str, float], None]

#: An exit head, where it is, and its score at each resolution.
Head = tuple[ExitSpec, nn.Module, Mapping[int, float]]

LEAST_VALIDATION, MOST_VALIDATION = 24, 60  # frames that scores are measured on; fewer say little
LOG_EVERY_S = 1.0
NO_TIME = "no time was left to train it; give a larger --budget"


@dataclass(frozen=True)
class Target:
    """What a relative must reach, as a share of the whole model's score at the same resolution."""

    exit_frac: float = 0.5  # on average over the resolutions
    bottleneck_frac: float = 0.9  # and fewer bytes than the smallest JPEG that agrees as well
    student_frac: float = 0.5  # of the whole model's best score


@dataclass(frozen=True)
class Code:
    """A kind of bottleneck to try."""

    name: str  # of the family
    kind: str  # "signs" or "levels"
    channels: int
    bits: tuple[int, ...] = ()


CODES = (Code("signs", "signs", 24), Code("levels", "levels", 6, (1, 2, 4)))


@dataclass(frozen=True)
class Plan:
    """What to make, and how long it may take."""

    budget_s: float = 1_200.0
    seed: int = 0
    #: Of each training; None: as many as fit. With a number time counts nowhere, and equal seeds give equal weights.
    steps: int | None = None
    target: Target = Target()
    codes: tuple[Code, ...] = CODES
    student: str | None = None  # size; None: "small" for boxes, "tiny" for classes
    heads: bool = True
    trunk: int = 64  # channels of decoders


@dataclass(frozen=True)
class Made:
    """A relative that reached its target."""

    name: str  # of the family
    family: Family
    model: BranchyModel  # trained, before folding; foreign stages have their pieces
    score: float  # of the last exit that was made here, on validation frames, at its best resolution
    scores: Mapping[int, tuple[float, ...]]  # of each of its exits, by resolution
    words: str
    decisions: FamilyDecisions | None = None  # where they are not as for every family
    payloads: tuple[Payload, ...] = ()  # of a bottleneck


@dataclass(frozen=True)
class Left:
    """A relative that was left out, and why."""

    name: str
    words: str


@dataclass
class Relatives:
    """What came of it."""

    made: list[Made] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    whole: dict[int, float] = field(default_factory=dict)  # the whole model's score at each resolution
    jpegs: list[Payload] = field(default_factory=list)  # of the whole model, sent pictures

    def leave(self, name: str, words: str) -> None:
        self.left.append(Left(name, words))


def make_relatives(work: Adopted, whole: BranchyModel, plan: Plan, progress: Progress, logs: Path) -> Relatives:
    """Train all relatives of the whole model, whose foreign stages have their pieces and whose last exit decodes.

    TensorBoard logs go to ``logs``. Scores are those of the workload, on validation frames.
    """
    return _Making(work, whole, plan, progress, logs).run()


class _Making:
    """Owns the clock, the teacher, and what came of it so far."""

    def __init__(self, work: Adopted, whole: BranchyModel, plan: Plan, progress: Progress, logs: Path) -> None:
        self._plan, self._progress, self._logs = plan, progress, logs
        self._end_s = time.monotonic() + plan.budget_s
        self._teacher = Teacher(work, whole, LEAST_VALIDATION)
        self._teacher = Teacher(work, whole, self._validation_frames())
        self._found = Relatives()
        self._compared: dict[int, float] = {}  # the whole model's scores on the frames that payloads are compared on

    def _validation_frames(self) -> int:
        """As many as the whole model answers in a twentieth of the time."""
        if self._plan.steps:
            return MOST_VALIDATION
        teacher, taken_s = self._teacher, 0.0
        for px in teacher.widths_px:
            picture = teacher.picture(0, px, "validation")[None]
            teacher.run(picture, px, 0, teacher.stages)
            start_s = time.monotonic()
            teacher.run(picture, px, 0, teacher.stages)
            taken_s += time.monotonic() - start_s
        fitting = int(0.05 * self._plan.budget_s / max(taken_s, 1e-6))
        return min(max(fitting, LEAST_VALIDATION), MOST_VALIDATION)

    def run(self) -> Relatives:
        teacher = self._teacher
        self._progress("the whole model on validation frames", 0.0)
        self._found.whole = teacher.whole_scores
        specs = head_specs(teacher) if self._plan.heads and teacher.answers else []
        cut = best_cut(teacher) if self._plan.codes else None
        cuts = {spec.after for spec in specs} | ({cut, teacher.stages} if cut is not None else set())
        if specs and not teacher.has_boxes:
            cuts.add(teacher.stages)  # heads of classes learn logits
        train, held_out = self._features(cuts)
        self._heads(specs, train, held_out)
        self._bottlenecks(cut, train, held_out)
        del train, held_out  # the student needs the memory
        self._student()
        return self._found

    def _left_s(self, share: float) -> float:
        """A share of the time that is left."""
        return max(share * (self._end_s - time.monotonic()), 1.0)

    def _untimed(self, share: float) -> float:
        """The same, or no limit where the number of steps is given."""
        return math.inf if self._plan.steps else self._left_s(share)

    # Steps -------------------------------------------------------------------------------------------------------

    def _features(self, cuts: set[int]) -> tuple[Mapping[int, Features], Mapping[int, Features]]:
        if not cuts:
            return {}, {}
        frames = frames_that_fit(self._teacher, cuts, self._untimed(0.2))
        found = []
        splits: tuple[Split, ...] = ("train", "validation")
        for split in splits:
            advance = partial(self._progress, f"features of {split} frames")
            found.append(collect(self._teacher, cuts, split, frames, advance))
        return found[0], found[1]

    def _heads(
        self, specs: Sequence[ExitSpec], train: Mapping[int, Features], held_out: Mapping[int, Features]
    ) -> None:
        teacher, answers = self._teacher, self._teacher.answers
        if not specs or answers is None:
            return self._found.leave("exit heads", self._why_no_heads())
        with self._pace("exit heads", 0.22) as pace:
            heads, scores, steps = train_heads(teacher, specs, train, held_out, pace)
        kept: list[Head] = []
        for spec, head, reached in zip(specs, heads, scores, strict=True):
            words = f"after {teacher.macs_before[spec.after]:.0%} of the work: {self._against_whole(reached)}"
            if self._reached(reached, self._plan.target.exit_frac):
                kept.append((spec, head, reached))
            else:
                self._found.leave(
                    f"exit after stage {spec.after}", f"{words}; target {self._plan.target.exit_frac:.0%}"
                )
        if kept:
            self._keep_heads(kept, steps)
        return None

    def _keep_heads(self, kept: Sequence[Head], steps: int) -> None:
        teacher = self._teacher
        family = WholeFamily(teacher.stages, tuple(spec for spec, _, _ in kept), teacher.answers)
        model = build(family, lambda: teacher.whole.exits[-1])
        for index, stage in enumerate(teacher.whole.stages):
            model.stages[index] = stage
        for index, (_, head, _) in enumerate(kept):
            model.exits[index] = head
        scores = {px: tuple(each[px] for _, _, each in kept) for px in teacher.widths_px}
        places = ", ".join(f"{teacher.macs_before[spec.after]:.0%}" for spec, _, _ in kept)
        words = f"{len(kept)} exit heads, after {places} of the work; {steps} steps; {self._against_whole(kept[-1][2])}"
        best = max(each[-1] for each in scores.values())
        self._found.made.append(Made("whole", family, model.eval(), best, scores, words))

    def _why_no_heads(self) -> str:
        if not self._plan.heads:
            return "not asked for"
        if self._teacher.answers is None:
            return "what the outputs of a custom task mean is not known"
        return "no cut has features that a head could read"

    def _bottlenecks(self, cut: int | None, train: Mapping[int, Features], held_out: Mapping[int, Features]) -> None:
        teacher = self._teacher
        if cut is None:
            return self._found.leave("bottleneck", "no cut is of maps (channels, h, w) alone")
        if teacher.work.adoption.geometry.channels == 1:
            return self._found.leave("bottleneck", "the encoder of pixels takes three colours; the model takes grey")
        self._compared = whole_compared(teacher)
        self._found.jpegs = jpegs(
            teacher, self._untimed(0.12), lambda done: self._progress("JPEG for comparison", done)
        )
        codes = [code for code in self._plan.codes if teacher.work.fps or code.kind != "signs"]
        if len(codes) < len(self._plan.codes):
            self._found.leave("signs", "its payloads refer to earlier frames; these pictures are unrelated, see --fps")
        for number, code in enumerate(codes):
            family = BottleneckFamily(
                teacher.stages,
                cut,
                teacher.cut_shapes[cut],
                code.kind,  # type: ignore[arg-type]
                code.channels,
                code.bits,  # type: ignore[arg-type]
                self._plan.trunk,
            )
            share = 0.6 / (len(codes) - 0.6 * number)
            with self._pace(code.name, share) as pace:
                model, words = train_bottleneck(teacher, family, train, held_out, pace)
            self._judge_bottleneck(code.name, family, model, f"in place of the first {cut} stages; {words}")
        return None

    def _judge_bottleneck(self, name: str, family: BottleneckFamily, model: BranchyModel, words: str) -> None:
        """Keep the resolutions and codecs that reach the target."""
        teacher = self._teacher
        payloads = [each for px in teacher.widths_px for each in bottleneck_payloads(teacher, family, model, px)]
        good = [each for each in payloads if self._pays(each)]
        said = "; ".join(f"{each.words} ({self._against_jpeg(each)})" for each in payloads)
        if not good:
            least = f"{self._plan.target.bottleneck_frac:.0%} of the whole model's and fewer bytes than JPEG"
            return self._found.leave(name, f"{said}; target {least}; {words}")
        widths = tuple(px for px in teacher.widths_px if any(each.px == px for each in good))
        codecs = tuple(codec for codec in family.codecs if any(each.codec == codec for each in good))
        decisions = FamilyDecisions(widths, (), {family.cut: codecs})
        scores = {px: (max(each.score for each in good if each.px == px),) for px in widths}
        best = max(each.score for each in good)
        self._found.made.append(Made(name, family, model, best, scores, f"{said}; {words}", decisions, tuple(payloads)))
        return None

    def _pays(self, payload: Payload) -> bool:
        jpeg = smallest(self._found.jpegs, payload.score)
        enough = payload.score >= self._plan.target.bottleneck_frac * self._compared[payload.px]
        return enough and (jpeg is None or payload.size < jpeg.size)

    def _against_jpeg(self, payload: Payload) -> str:
        jpeg = smallest(self._found.jpegs, payload.score)
        if jpeg is None:
            return "no JPEG that was tried agrees as well"
        return f"{payload.size / jpeg.size:.2f} of the smallest JPEG that agrees as well, {jpeg.words}"

    def _student(self) -> None:
        teacher, answers = self._teacher, self._teacher.answers
        if answers is None:
            return self._found.leave("student", "what the outputs of a custom task mean is not known")
        size = self._plan.student or ("small" if answers.boxes else "tiny")
        grey = teacher.work.adoption.geometry.channels == 1
        family = StudentFamily(size, answers, 1 if grey else 3)  # type: ignore[arg-type]
        with self._pace("student", 0.9) as pace:
            model, scores, steps = train_student(teacher, family, pace)
        if steps == 0:
            return self._found.leave("student", NO_TIME)
        last = {px: each[-1] for px, each in scores.items()}
        words = f"size {size}, {steps} steps; last exit: {self._against_whole(last)}"
        best, wanted = max(last.values()), self._plan.target.student_frac * max(self._found.whole.values())
        if best < wanted:
            return self._found.leave("student", f"{words}; target {wanted:.3f}")
        self._found.made.append(Made("student", family, model, best, scores, words))
        return None

    # Helpers -----------------------------------------------------------------------------------------------------

    def _reached(self, scores: Mapping[int, float], frac: float) -> bool:
        """On average over the resolutions: a head that is good at one of them alone is measured at all of them."""
        whole = [self._found.whole[px] for px in scores]
        return sum(scores.values()) >= frac * sum(whole) > 0.0

    def _against_whole(self, scores: Mapping[int, float]) -> str:
        whole = self._found.whole
        return ", ".join(f"{score:.3f} at {px} px (whole model {whole[px]:.3f})" for px, score in scores.items())

    @contextmanager
    def _pace(self, name: str, share: float) -> Iterator[Pace]:
        """The pace of one training, which reports progress and writes logs."""
        from torch.utils.tensorboard import SummaryWriter

        torch.manual_seed(self._plan.seed)
        writer = SummaryWriter(str(self._logs / name.replace(" ", "-")), purge_step=0)
        calls, last_s = 0, 0.0

        def report(done: float, scalars: Scalars) -> None:
            nonlocal calls, last_s
            calls += 1
            now_s = time.monotonic()
            if now_s - last_s >= LOG_EVERY_S or done >= 1.0 or "validation" in scalars:
                last_s = now_s
                for key, value in scalars.items():
                    writer.add_scalar(key, value, calls)
            self._progress(name, done)

        try:
            yield Pace(self._left_s(share), self._plan.seed, self._plan.steps, report=report)
        finally:
            writer.close()
