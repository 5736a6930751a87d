"""Adopted classifiers, and tasks whose decoder and scorer the user wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from support.adopted import adoption_of, picture_at, write_video

from controller.errors import FailureError, UsageError
from runtime.decoders.given import give
from runtime.workloads.adopted.description import Adoption, Decoding, UserCode
from runtime.workloads.adopted.geometry import Geometry
from runtime.workloads.adopted.workload import Adopted

SOURCE = """
def decode(outputs, size):
    return [outputs[0].sum(), size[0]]

def score(answer, truth):
    return 1.0 - abs(answer[0] - truth[0]) / 10.0
"""


@pytest.fixture(scope="module")
def adoption(tmp_path_factory: pytest.TempPathFactory) -> Adoption:
    return adoption_of(write_video(tmp_path_factory.mktemp("footage") / "site.avi"))


def _work(adoption: Adoption, **changes: Any) -> Adopted:
    square = Geometry({8: (8, 8)})
    return Adopted(msgspec.structs.replace(adoption, geometry=square, **changes), Path("nowhere"))


def test_a_classifier_answers_with_a_class(adoption: Adoption) -> None:
    work = _work(adoption, task="classify", decoding=Decoding("classify", {8: ((3,),)}), classes=("a", "b", "c"))
    logits = work.decoded_exit()(torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]])).numpy()
    assert work.answers(logits, 8) == [1, 0]
    assert (work.score(1, 1), work.score(1, 0)) == (1.0, 0.0)
    assert work.confidence(logits, 1.0) == pytest.approx(np.exp([3.0, 2.0]) / [np.exp([0, 3, 1]).sum(), np.exp(2) + 2])
    assert work.forecaster() is None
    assert work.nothing() is None
    assert work.draw(picture_at(0), 2).ndim == 3


def test_a_custom_task_is_decoded_and_scored_by_the_user(adoption: Adoption, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    decoding = Decoding("decode", {8: ((2, 2),)}, code=UserCode(*give(f"{file}:decode")))
    work = _work(adoption, task="custom", decoding=decoding, scorer=UserCode(*give(f"{file}:score")))
    (answer,) = work.answers(work.decoded_exit()(torch.tensor([[1.0, 2.0, 3.0, 1.5]])).numpy(), 8)
    assert answer == [7.5, 8.0]
    assert work.score(answer, [5.0]) == 0.75
    with pytest.raises(FailureError, match=r"mine\.py:score gave -1\.25; expected a number from 0 to 1"):
        work.score([30.0], [7.5])
    with pytest.raises(FailureError, match=r"mine\.py:score fails: IndexError"):
        work.score([], [7.5])
    assert work.confidence(np.zeros((2, 2)), 1.0).tolist() == [1.0, 1.0]


def test_values_are_answers_too_and_a_scorer_must_be_given(adoption: Adoption) -> None:
    scorer = UserCode("other.py", "score", "2" * 64)
    work = _work(adoption, task="custom", decoding=Decoding("values", {8: ((2,), (3,))}), scorer=scorer)
    assert work.decoded_exit()(torch.arange(5.0)[None]).tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0]]
    with pytest.raises(UsageError, match=r"--scorer other\.py:score"):
        work.score([1.0], [1.0])
