"""The whole model's answers to footage are its truth."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from support.adopted import FRAMES, adoption_of, truth_at, write_video
from torch import Tensor, nn

from controller.errors import FailureError
from runtime.adoption.truth.reference import agreement, answers_of_whole, as_truth, write_truths
from runtime.models.stages import BranchyModel
from runtime.workloads.adopted.workload import Adopted


class RedBox(nn.Module):
    """Finds the rectangle by its red: outputs of one box in the order of YOLOv8, class 1."""

    def forward(self, x: Tensor) -> Tensor:
        red = (x[0, 0] - x[0, 2] > 0.4).nonzero()
        (top, left), (bottom, right) = red.min(0).values, red.max(0).values + 1
        column = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0.0, 0.9])
        return torch.nn.functional.pad(column[:, None], (0, 4)).reshape(1, -1)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    folder = tmp_path_factory.mktemp("site")
    return Adopted(adoption_of(write_video(folder / "site.avi")), folder)


def _model(work: Adopted, stage: nn.Module) -> BranchyModel:
    return BranchyModel([stage], [work.decoded_exit()], (1,), channels_last=False)


def test_the_whole_model_answers_every_frame(work: Adopted, tmp_path: Path) -> None:
    steps: list[int] = []
    answers = answers_of_whole(work, _model(work, RedBox()), advance=steps.append)
    truths = as_truth(answers, "detect")
    expected = [[*truth_at(number)[0][:4], 1.0, 1] for number in range(FRAMES)]
    assert truths == [[box] for box in expected]
    assert sum(steps) == FRAMES
    assert agreement(work, answers, truths) == 1.0
    other = [[[*box[:5], 0]] for box in expected]
    assert agreement(work, answers, other) == 0.0
    digest = write_truths(tmp_path / "truth.json", truths)
    assert len(digest) == 64
    assert msgspec.json.decode((tmp_path / "truth.json").read_bytes()) == truths


def test_values_that_are_not_finite_are_one_line(work: Adopted) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((1, 30), float("nan"))

    with pytest.raises(FailureError, match="not finite"):
        answers_of_whole(work, _model(work, Broken()), range(2))
