"""The whole model's answers at its largest resolution: the truth of footage without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from controller.errors import FailureError
from runtime.files.atomic import write_whole
from runtime.models.stages import BranchyModel
from runtime.workloads.adopted.workload import Adopted
from runtime.workloads.inputs import model_input


@torch.no_grad()
def answers_of_whole(
    work: Adopted,
    model: BranchyModel,
    numbers: Iterable[int] | None = None,
    px: int | None = None,
    advance: Callable[[int], None] = lambda frames: None,
) -> list[Any]:
    """The answers of a model's last exit to frames of the footage, one at a time.

    ``numbers``: the frames; default: all. ``px``: default: the largest resolution. ``advance`` gets the number of
    frames since its last call. FailureError when outputs are not finite.
    """
    model.eval()
    at_px = px or max(work.resolutions_px)
    found = []
    for number in work.adoption.numbers("all") if numbers is None else numbers:
        picture = work.resize(work.frame(number), at_px)
        outputs = model.run_stages(model_input(work, model, picture[None]), 0, len(model.stages))
        if not torch.isfinite(outputs).all():
            raise FailureError(
                f"the model gives values that are not finite (NaN or infinite) for frame {number} at {at_px} px; check "
                "--scale, --mean and --std, or the export of the model"
            )
        found += work.answers(model.exits[-1](outputs).numpy(), at_px)
        advance(1)
    return found


def agreement(work: Adopted, answers: Sequence[Any], truths: Sequence[Any]) -> float:
    """Mean score of answers against truths, one for each frame."""
    scores = [work.score(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
    return sum(scores) / max(len(scores), 1)


def as_truth(answers: Sequence[Any], task: str) -> list[Any]:
    """Answers as truths: boxes are certain."""
    if task not in ("detect", "text"):
        return list(answers)
    return [[[*box[:4], 1.0, *box[5:]] for box in boxes] for boxes in answers]


def write_truths(path: Path, truths: Sequence[Any]) -> str:
    """Write one truth for each frame; SHA-256 of the file."""
    content = msgspec.json.encode(list(truths))
    write_whole(path, content, "truths", make_folder=True)
    return hashlib.sha256(content).hexdigest()
