"""Cheaper relatives of a small foreign detector: trained in seconds, kept or left out by their figures."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support.foreign import SIZES, red_work, whole_of
from torch import Tensor, nn

from runtime.adoption.relatives import student
from runtime.adoption.relatives.bottlenecks import FeatureLesson, Halves, TailLesson, best_cut, relative_difference
from runtime.adoption.relatives.box_scores import operating_point
from runtime.adoption.relatives.features import collect
from runtime.adoption.relatives.fitting import Pace, fit
from runtime.adoption.relatives.heads import head_specs
from runtime.adoption.relatives.make import Code, Plan, Relatives, Target, _Making, make_relatives
from runtime.adoption.relatives.payloads import Payload, smallest
from runtime.adoption.relatives.teacher import Teacher
from runtime.adoption.truth.reference import answers_of_whole, as_truth
from runtime.models.folding import fold_for_inference
from runtime.models.training import Scalars
from runtime.workloads.adopted.families import BottleneckFamily, Family, StudentFamily, WholeFamily, build
from runtime.workloads.inputs import model_input

LEVELS = Code("levels", "levels", 4, (2, 4))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """The whole model, whose own answers are the truth."""
    folder = tmp_path_factory.mktemp("red")
    work = red_work(folder)
    whole = whole_of(work)
    work = red_work(folder, as_truth(answers_of_whole(work, whole), "text"))
    return Teacher(work, whole_of(work), 8)


@pytest.fixture(scope="module")
def relatives(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Relatives:
    plan = Plan(budget_s=60.0, steps=30, codes=(LEVELS,), student="nano", trunk=16)
    logs = tmp_path_factory.mktemp("logs")
    labels = set()
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(student, "CROPS", (2, 4))
    found = make_relatives(teacher.work, teacher.whole, plan, lambda label, done: labels.add(label), logs)
    monkeypatch.undo()
    assert {"exit heads", "levels", "student"} <= labels
    assert {path.name for path in logs.iterdir()} == {"exit-heads", "levels", "student"}
    return found


def test_what_is_known_of_the_whole_model(teacher: Teacher) -> None:
    assert teacher.answers is not None
    assert (teacher.answers.classes, teacher.answers.widths_px) == (1, tuple(SIZES))
    assert teacher.whole_scores[128] == 1.0  # the truth is its own answers
    assert teacher.macs_before[0] == 0.0
    assert teacher.macs_before[-1] == 1.0
    assert teacher.cut_shapes[teacher.stages][0].tensors == ((1, 96, 128),)
    box = teacher.boxes(5, 128, "train")[0]
    assert teacher.boxes(5, 96, "train")[0][:4] == pytest.approx(0.75 * box[:4])


def test_all_relatives_of_an_easy_model_reach_their_targets(relatives: Relatives) -> None:
    scores = {made.name: made.score for made in relatives.made}
    assert set(scores) == {"whole", "levels", "student"}, relatives.left
    assert scores["whole"] > 0.5
    assert scores["levels"] > 0.8
    assert scores["student"] > 0.5
    payloads = next(made.payloads for made in relatives.made if made.name == "levels")
    assert all("bytes" in payload.words for payload in payloads)


def test_each_family_builds_the_network_that_was_trained(relatives: Relatives, teacher: Teacher) -> None:
    for made in relatives.made:
        data = msgspec.json.encode(made.family)
        again = build(msgspec.json.decode(data, type=Family), teacher.work.decoded_exit)
        again.load_state_dict(made.model.state_dict())
        assert again.exit_after == made.model.exit_after


def test_the_inference_copy_of_a_relative_answers_alike(relatives: Relatives, teacher: Teacher) -> None:
    picture = teacher.picture(0, 128, "validation")[None]
    for made in relatives.made:
        folded = fold_for_inference(made.model)
        x = model_input(teacher.work, folded, picture)
        for found, expected in zip(folded.all_exits(x), made.model.all_exits(x), strict=True):
            likely = expected[0, :, 4] >= 0.5
            assert torch.allclose(found[0, likely], expected[0, likely], atol=0.05), made.name


def test_a_bottleneck_has_one_cut_and_sends_no_pictures(relatives: Relatives) -> None:
    made = next(made for made in relatives.made if isinstance(made.family, BottleneckFamily))
    assert made.decisions is not None
    assert made.decisions.image_codecs == ()
    assert set(made.decisions.tensor_codecs or ()) == {1}
    assert made.model.takes_pixels


def test_what_misses_its_target_is_left_out_with_its_figures(teacher: Teacher, tmp_path: Path) -> None:
    hard = Target(exit_frac=9.0, bottleneck_frac=9.0, student_frac=9.0)
    plan = Plan(budget_s=30.0, steps=2, codes=(LEVELS,), student="nano", trunk=8, target=hard)
    found = make_relatives(teacher.work, teacher.whole, plan, lambda label, done: None, tmp_path)
    assert found.made == []
    words = {left.name: left.words for left in found.left}
    assert "target 900%" in words["levels"]
    assert "bytes, agreement" in words["levels"]
    assert "whole model 1.000" in words["student"]


def test_a_head_is_kept_for_what_it_reaches_on_average(teacher: Teacher, tmp_path: Path) -> None:
    making = _Making(teacher.work, teacher.whole, Plan(steps=1), lambda label, done: None, tmp_path)
    making._found.whole = {128: 1.0, 96: 0.6}
    assert making._reached({128: 0.5, 96: 0.3}, 0.5)
    assert not making._reached({128: 0.1, 96: 0.5}, 0.5)
    making._found.whole = {128: 0.0, 96: 0.0}
    assert not making._reached({128: 0.0, 96: 0.0}, 0.5)


def test_equal_seeds_and_steps_give_equal_weights(teacher: Teacher) -> None:
    family = _family(teacher, "levels", 4, (2,))
    states = []
    for _ in range(2):
        lesson = _lesson(teacher, family)
        torch.manual_seed(0)
        halves, steps = fit(Halves(family), lesson, Pace(1.0, seed=3, steps=4))
        assert steps == 4
        states.append(halves.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_boxes_of_labels_end_at_the_edges_of_the_picture(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = [[-20.0, 10.0, 40.0, 30.0, 1.0], [-50.0, 10.0, 40.0, 30.0, 1.0]]
    monkeypatch.setattr(teacher, "truth", lambda index, split: beyond)
    assert teacher.boxes(0, 128, "train").tolist() == [[0.0, 10.0, 20.0, 40.0, 0.0]]


def test_signs_learn_from_pairs_of_frames(teacher: Teacher) -> None:
    family = _family(teacher, "signs", 8)
    lesson = _lesson(teacher, family)
    loss, scalars = lesson.loss(Halves(family).train(), lesson.batch(np.random.default_rng(0)))
    assert loss.requires_grad
    assert scalars["loss/change"] > 0.0


def test_the_stages_behind_the_cut_teach_encoder_and_decoder(teacher: Teacher) -> None:
    lesson = _lesson(teacher, _family(teacher, "levels", 4, (2,)))
    tail, halves = TailLesson(lesson), Halves(lesson.family).train()
    loss, _ = tail.loss(halves, tail.batch(np.random.default_rng(0)))
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [part.grad for part in halves.encoder.parameters()]
    assert all(gradient is not None and float(gradient.abs().sum()) > 0.0 for gradient in gradients[:1])


def test_heads_are_tried_before_most_of_the_work(teacher: Teacher) -> None:
    specs = head_specs(teacher)
    assert specs
    assert all(teacher.macs_before[spec.after] < 0.9 for spec in specs)
    assert best_cut(teacher) in range(1, teacher.stages)


def test_a_training_keeps_its_best_weights_and_ends_in_time() -> None:
    class Worsening:
        """Each validation is worse than the one before."""

        scores = iter([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])

        def batch(self, rng: np.random.Generator) -> Tensor:
            return torch.ones(1, 1)

        def loss(self, module: nn.Module, batch: Tensor) -> tuple[Tensor, Scalars]:
            return module(batch).sum(), {}

        def validate(self, module: nn.Module) -> float:
            return next(self.scores)

    done: list[float] = []
    pace = Pace(1.0, steps=10, report=lambda share, _: done.append(share))
    start = nn.Linear(1, 1)
    best, steps = fit(start, Worsening(), pace)
    assert steps == 10
    assert done[-1] == 1.0
    assert best.weight.item() > start.weight.item()  # of the first of five validations


def test_boxes_of_each_class_match_within_their_class() -> None:
    candidates = np.array([[0.1, 0.1, 0.3, 0.3, 2.0, 0], [0.5, 0.5, 0.9, 0.9, 1.0, 1]], np.float32)
    truth = np.array([[10, 10, 30, 30, 0], [50, 50, 90, 90, 0]], np.float32)
    threshold, f1 = operating_point([candidates], [truth], (100, 100))
    assert f1 == pytest.approx(2 / 3)
    assert threshold == pytest.approx(2.0)


def test_each_channel_of_an_output_counts_by_its_own_scale() -> None:
    wanted = torch.stack((torch.arange(20.0) * 100, torch.arange(20.0) % 2), 0)[None]  # (1, channels, boxes)
    wrong_class = wanted.clone()
    wrong_class[0, 1] = 1 - wrong_class[0, 1]
    wrong_place = wanted + torch.tensor([1.0, 0.0])[:, None]
    assert relative_difference(wrong_class, wanted) > 100 * relative_difference(wrong_place, wanted)
    assert relative_difference(wrong_class.mT, wanted.mT) == pytest.approx(relative_difference(wrong_class, wanted))


def test_the_smallest_jpeg_that_agrees_as_well() -> None:
    jpegs = [Payload("jpeg10", 96, 500.0, 0.6), Payload("jpeg30", 96, 900.0, 0.9), Payload("jpeg60", 96, 1500.0, 0.9)]
    assert smallest(jpegs, 0.9) == jpegs[1]
    assert smallest(jpegs, 0.95) is None


def test_families_that_do_not_fit_themselves_are_refused(teacher: Teacher) -> None:
    with pytest.raises(ValueError, match="reads < joins"):
        _family(teacher, "levels", 4, (2,), joins=9)
    with pytest.raises(ValueError, match="answers of the exit heads"):
        WholeFamily(4, tuple(head_specs(teacher)))
    assert teacher.answers is not None
    with pytest.raises(ValueError, match="nano, small, medium"):
        StudentFamily("tiny", teacher.answers)


def _family(teacher: Teacher, code: str, channels: int, bits: tuple[int, ...] = (), joins: int = 0) -> BottleneckFamily:
    cut = best_cut(teacher)
    assert cut is not None
    return BottleneckFamily(teacher.stages, joins or cut, teacher.cut_shapes[cut], code, channels, bits, 8)  # type: ignore[arg-type]


def _lesson(teacher: Teacher, family: BottleneckFamily) -> FeatureLesson:
    cuts = {family.joins, teacher.stages}
    train = collect(teacher, cuts, "train", 8, lambda done: None)
    return FeatureLesson(teacher, family, train, collect(teacher, cuts, "validation", 8, lambda done: None))
