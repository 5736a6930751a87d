"""Campus detectors: their cuts, peaks, boxes, and a training on a synthetic camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from runtime.codecs.tensor import QuantisedTensor
from runtime.models.box_targets import TargetMaps, exit_loss
from runtime.models.detector_parts import PEAKS, Cut, Peaks, rounded_as
from runtime.models.detectors import SIZES
from runtime.models.folding import fold_for_inference
from runtime.models.training import TrainingConfig, train
from runtime.workloads.campus.augmentation import paste
from runtime.workloads.campus.boxes import best_threshold, hits, kept_candidates
from runtime.workloads.campus.models import WIDTHS_PX, build
from runtime.workloads.campus.task import CampusTask
from tests.support.walkers import Quiet, Walkers


@pytest.mark.parametrize("family", SIZES)
def test_a_cut_detector_answers_as_the_whole_one(family: str) -> None:
    torch.manual_seed(0)
    model = fold_for_inference(build(family))
    x = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        for exit_branch, after in enumerate(model.exit_after):
            whole = model.whole(x, exit_branch)
            assert whole.shape == (1, PEAKS, 5)
            for cut in range(after + 1):
                assert torch.equal(model.tail(model.head(x, cut), cut, exit_branch), whole)


def test_families_grow_in_parameters_and_keep_their_first_cut_small() -> None:
    models = [build(family) for family in ("nano", "small", "medium")]
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
    assert sizes == sorted(sizes)
    assert all(model.eval().head(torch.zeros(1, 3, 96, 128), 1).shape == (1, 8, 12, 16) for model in models)


def test_peaks_are_boxes_around_local_maxima_relative_to_the_threshold_of_the_width() -> None:
    peaks = Peaks(WIDTHS_PX).eval()
    peaks.threshold[WIDTHS_PX.index(256)] = 0.5
    cells = torch.full((1, 5, 48, 64), -8.0)
    cells[0, 0, 10, 20], cells[0, 0, 10, 21] = 2.0, 1.5  # the second is no peak beside the first
    cells[0, 1:, 10, 20] = torch.tensor([2.0, 4.0, 3.0, 5.0]).log()
    best, second = peaks(cells)[0, :2]
    expected = [(20.5 - 2) / 64, (10.5 - 4) / 48, (20.5 + 3) / 64, (10.5 + 5) / 48, 2.0 - 0.5]
    assert best.tolist() == pytest.approx(expected, rel=1e-5)
    assert second[4] < -7.0
    assert peaks.train()(cells) is cells


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_training_rounds_as_the_codec_does(bits: int) -> None:
    z = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1)).relu()
    codec = QuantisedTensor(bits)
    coded = codec.roundtrip(z.numpy())
    assert rounded_as(z, codec).numpy() == pytest.approx(coded, abs=2e-3)  # its scales are float16


def test_the_cut_changes_nothing_in_evaluation_and_lets_gradients_pass_in_training() -> None:
    torch.manual_seed(0)
    z = torch.rand(4, 2, 6, 8, requires_grad=True)
    cut = Cut(1.0, 0.1)
    assert cut.eval()(z) is z
    out = cut.train()(z)
    assert not torch.equal(out, z)
    out.sum().backward()
    assert z.grad is not None
    assert z.grad.mean() == pytest.approx(1.0, abs=0.05)  # the sparsity's pressure is small beside it


def test_a_worse_box_over_a_better_one_is_dropped_and_sides_are_in_pixels() -> None:
    candidates = np.array(
        [
            [0.10, 0.10, 0.20, 0.30, 1.0],
            [0.11, 0.10, 0.21, 0.30, 2.0],
            [0.50, 0.50, 0.60, 0.90, 0.5],
            [0.70, 0.10, 0.80, 0.30, -0.1],
        ]
    )
    kept = kept_candidates(candidates, 100, 200)
    assert kept[:, 4].tolist() == [2.0, 0.5]
    assert kept[0, :4] == pytest.approx([11, 20, 21, 60])


def test_each_person_is_found_once_and_the_threshold_maximises_f1() -> None:
    truth = np.array([[0.0, 0.0, 10.0, 20.0], [50.0, 0.0, 60.0, 20.0]])
    boxes = np.array([[1.0, 0.0, 10.0, 20.0], [0.0, 1.0, 10.0, 20.0], [50.0, 2.0, 60.0, 20.0], [80.0, 0.0, 90.0, 20.0]])
    found = hits(boxes, truth, 0.4)
    assert found.tolist() == [True, False, True, False]
    assert not hits(boxes, np.zeros((0, 4)), 0.4).any()
    threshold, f1 = best_threshold([np.array([3.0, 2.0, 1.0, 0.0])], [found], len(truth))
    assert threshold == pytest.approx(1.0)
    assert f1 == pytest.approx(0.8)


def test_the_loss_is_least_where_the_map_says_what_the_boxes_are() -> None:
    boxes = [np.array([[8.0, 8.0, 24.0, 56.0]], np.float32)]
    target = TargetMaps.of(boxes, 16, 24)
    right = torch.cat((torch.logit(target.heat.clamp(1e-4, 1 - 1e-4)), target.sides.log()), 1)
    wrong = torch.cat((right[:, :1].roll(4, 3), right[:, 1:] + 0.5), 1)
    assert target.heat.max() == 1.0
    assert sum(exit_loss(right, target)) < 0.5 * sum(exit_loss(wrong, target))
    assert exit_loss(right, target)[1] < 1e-3


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> CampusTask:
    import runtime.workloads.campus.task as module

    monkeypatch.setattr(module, "CROPS", {256: (128, 96, 6)})
    monkeypatch.setattr(module, "STEPS_PER_EPOCH", 50)
    return CampusTask(Walkers(), seed=0)  # type: ignore[arg-type]


def test_a_short_training_finds_people_and_stores_operating_thresholds(task: CampusTask) -> None:
    log = Quiet()
    config = TrainingConfig(epochs=2, polish_frac=0.0)
    model = train(lambda: build("nano"), task, config, log)
    assert log.scores["f1/256px/exit2"] > 0.8
    task.finish(model)
    thresholds = [module.threshold for module in model.modules() if isinstance(module, Peaks)]
    assert all(float(values[WIDTHS_PX.index(256)]) != 0.0 for values in thresholds)


def test_steps_repeat_for_the_same_epoch_and_boxes_lie_in_the_crop(task: CampusTask) -> None:
    first, again = next(iter(task.steps(3))), next(iter(task.steps(3)))
    assert torch.equal(first[0].inputs, again[0].inputs)
    boxes = np.concatenate(first[0].targets)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= (128, 96)).all()


def test_a_pasted_person_adds_one_box_unless_somebody_would_vanish(task: CampusTask) -> None:
    rng = np.random.default_rng(0)
    person = task.people[0]
    boxes: NDArray[Any] = np.zeros((0, 4), np.float32)
    counts: Sequence[int] = []
    frame = np.full((576, 768, 3), 150, np.uint8)
    for _ in range(60):
        boxes = paste(frame, boxes, person, rng)
        counts = [*counts, len(boxes)]
    assert counts[0] == 1
    assert 8 <= counts[-1] < 60
    assert (frame != 150).any()
