"""The truth of every frame: the user's labels, else the answers of the whole model at its largest resolution."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from controller.errors import UsageError
from runtime.adoption.describing import decoder_of
from runtime.adoption.members import whole_member
from runtime.adoption.report import LeftOut
from runtime.adoption.request import Request
from runtime.adoption.steps import Advance
from runtime.adoption.subject import Subject
from runtime.adoption.truth.footage import LABELS, MODEL, check_found
from runtime.adoption.truth.labels import read_labels
from runtime.adoption.truth.reference import answers_of_whole, as_truth, write_truths
from runtime.workloads.adopted.description import TRUTH_FILE, Adoption, Truth
from runtime.workloads.adopted.workload import read_adopted


@dataclass(frozen=True)
class Truths:
    """One truth for each frame, and what they rest on."""

    truths: Sequence[Any]
    by: str  # MODEL or LABELS
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()


def labels_of(request: Request, subject: Subject) -> Truths | None:
    """The truths of the user's labels; None without labels. UsageError when they do not fit."""
    if request.labels is None:
        return None
    found = read_labels(request.labels, subject.found, request.classes, request.task)
    _check_count(found.classes, request, subject)
    left = tuple(LeftOut(f"labels of {name!r}", "the model does not know the class") for name in found.left_out)
    return Truths(found.truths, LABELS, found.classes, left)


def _check_count(classes: Sequence[str], request: Request, subject: Subject) -> None:
    """UsageError when labels that no --classes explain have more classes than the model."""
    shapes = next(iter(subject.decoding.outputs.values()))
    count = decoder_of(request).classes(shapes)
    if count is not None and len(classes) > count:
        raise UsageError(
            f"--labels {request.labels} have {len(classes)} classes and the model {count}; expected at most as many, "
            "or --classes with the names of the model's"
        )


def answers_as_truths(folder: Path, subject: Subject, request: Request, advance: Advance) -> Truths:
    """The whole model's answers to every frame, by as many threads as there are jobs.

    The folder holds the description. FailureError when an answer is not finite.
    """
    count, jobs = subject.footage.frames, max(request.jobs, 1)
    edges = list(accumulate([count // jobs + (part < count % jobs) for part in range(jobs)], initial=0))
    done, lock = [0], Lock()

    def add(frames: int) -> None:
        with lock:
            done[0] += frames
            advance(done[0], count)

    def part(start: int, stop: int) -> list[Any]:
        work = read_adopted(folder)  # readers of footage are not shared between threads
        return answers_of_whole(work, whole_member(work, subject.cut).model, range(start, stop), advance=add)

    with ThreadPoolExecutor(jobs) as pool:
        parts = list(pool.map(part, *zip(*pairwise(edges), strict=True)))
    answers = [answer for found in parts for answer in found]
    return Truths(as_truth(answers, request.task), MODEL, request.classes)


def with_truths(folder: Path, adoption: Adoption, request: Request, found: Truths) -> Adoption:
    """The description with the truths, which are written into the folder; UsageError where there are no boxes, or the
    classes of labels cannot be those of the model."""
    if found.by == LABELS:
        _check_named(request, adoption, found.classes)
    if request.task in ("detect", "text"):
        check_found(found.truths, adoption.splits, found.by)
    digest = write_truths(folder / TRUTH_FILE, found.truths)
    named = request.labels.name if request.labels is not None else ""
    kind = Truth("labels", digest, named) if found.by == LABELS else Truth("model", digest)
    return msgspec.structs.replace(adoption, truth=kind, classes=found.classes)


def _check_named(request: Request, adoption: Adoption, classes: tuple[str, ...]) -> None:
    """UsageError when labels name other classes than the model has, and nothing says which is which."""
    count = decoder_of(request).classes(next(iter(adoption.decoding.outputs.values())))
    numbered = classes == tuple(map(str, range(len(classes))))  # labels that state the model's own numbers
    if not (request.classes or numbered or request.task == "text" or count in (None, len(classes))):
        raise UsageError(
            f"the labels are of {len(classes)} classes ({', '.join(classes[:3])}), the model has {count}; expected the "
            "names of the model's classes in its order: give them with --classes"
        )
