"""Asymmetric detectors: levels of one bit, pixels as input, a loss over pairs of frames, and a short training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from runtime.bundles.weights import load_for_inference, save_weights
from runtime.models.describe import describe_layers
from runtime.models.detector_parts import PEAKS, Peaks
from runtime.models.folding import fold_for_inference
from runtime.models.pixel_encoder import PatchConv, PixelEncoder
from runtime.models.signs import Sign, change_and_density
from runtime.models.stages import BranchyModel
from runtime.models.training import TrainingConfig, train
from runtime.workloads.campus.models import WIDTHS_PX, build
from runtime.workloads.campus.split_models import SPLIT_SIZES, build_split, values_before_signs
from runtime.workloads.campus.split_task import SplitTask, loss_over_time
from runtime.workloads.campus.workload import PIXEL_MEAN, PIXEL_STD, Campus
from runtime.workloads.inputs import model_input, pixels
from tests.support.walkers import Quiet, Walkers


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(count: int, height: int = 96, width: int = 128) -> torch.Tensor:
    """Random pictures as a model takes them."""
    rng = np.random.default_rng(count)
    return pixels(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def with_real_norms(family: str) -> BranchyModel:
    """A model in evaluation mode whose norms are not the identity, as after training."""
    torch.manual_seed(0)
    model = build_split(family)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("px", [512, 384, 256])
@pytest.mark.parametrize("family", SPLIT_SIZES)
def test_levels_are_exactly_one_bit_and_the_tail_answers_from_them_as_the_whole_model(family: str, px: int) -> None:
    model = fold_for_inference(with_real_norms(family))
    x = images(1, px * 3 // 4, px)
    with torch.inference_mode():
        levels = model.head(x, 1)
        assert levels.shape == (1, SPLIT_SIZES[family].channels, px * 3 // 32, px // 8)
        assert levels.dtype == torch.float32
        assert set(levels.unique().tolist()) == {-1.0, 1.0}
        whole = model.whole(x, 0)
        assert whole.shape == (1, PEAKS, 5)
        assert torch.equal(model.tail(levels, 1, 0), whole)
        crossed = torch.from_numpy((levels.numpy()[0] > 0).astype(np.float32) * 2 - 1)[None]
        assert torch.equal(model.tail(crossed, 1, 0), whole)


def test_the_inference_copy_gives_what_was_trained_on_normalised_pixels() -> None:
    model = with_real_norms("split24")
    encoder = model.stages[0]
    assert isinstance(encoder, PixelEncoder)
    patch, conv, norm, _ = encoder
    assert isinstance(patch, PatchConv)
    x = images(2)
    with torch.inference_mode():
        normalised = (x.float() - PIXEL_MEAN) / PIXEL_STD
        values = norm(conv(torch.relu(patch.conv(normalised))))
        torch.testing.assert_close(values_before_signs(model, x), values)
        assert torch.equal(model.head(x, 1), torch.where(values > 0, 1.0, -1.0))
        after = fold_for_inference(model).head(x, 1)
    clear = values.abs() > 1e-3 * values.abs().max()  # only values next to 0 may change sign
    assert torch.equal(after[clear], model.head(x, 1)[clear])
    assert clear.float().mean() > 0.99


def test_only_models_that_take_pixels_get_them() -> None:
    workload = Campus()
    frames = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)
    assert torch.equal(model_input(workload, build("nano"), frames), workload.to_input(frames))
    given = model_input(workload, workload.build("split8"), frames)
    assert given.dtype == torch.uint8
    assert given.shape == (1, 3, 96, 128)


def test_the_encoder_is_tiny_and_the_tail_does_the_work() -> None:
    layers = describe_layers(fold_for_inference(build_split("split24")), images(1, 288, 384))
    encoder, tail = (sum(layer.macs for layer in stage) for stage in layers.stages)
    assert encoder < 10e6
    assert tail > 30 * encoder
    assert [layer.kind for layer in layers.stages[0]] == ["encoder"]


def test_training_sees_the_gradient_of_a_sign_only_near_zero_and_gets_one_bit_too() -> None:
    torch.manual_seed(0)
    z = torch.tensor([-9.0, -0.5, 0.5, 9.0], requires_grad=True)
    out = Sign().train()(z)
    assert set(out.tolist()) <= {-1.0, 1.0}
    out.sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert Sign().eval()(torch.tensor([-2.0, 3.0])).tolist() == [-1.0, 1.0]


def test_the_gradient_of_the_answer_reaches_the_first_convolution() -> None:
    model = build_split("split8").train()
    model.all_exits(images(2))[0].square().mean().backward()
    patch = model.stages[0][0]  # type: ignore[index]
    assert patch.conv.weight.grad.abs().sum() > 0


def test_equal_frames_cost_nothing_over_time_but_their_density() -> None:
    z = torch.randn(2, 8, 4, 6)
    change, density = change_and_density(z, z)
    assert change == 0.0
    assert 0.0 < density < 8.0
    assert change_and_density(z, -z)[0] > 1.0
    model = build_split("split8").eval()
    same, other = images(2), images(3)[:2]
    _, scalars = loss_over_time(model, frames=same, following=same, tempo=1.0)
    assert scalars["loss/change"] == 0.0
    _, scalars = loss_over_time(model, frames=same, following=other, tempo=1.0)
    assert scalars["loss/change"] > 0.0
    assert loss_over_time(model, frames=same, following=other, tempo=0.0)[0] == 0.0


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> SplitTask:
    import runtime.workloads.campus.task as module

    monkeypatch.setattr(module, "STEPS_PER_EPOCH", 50)
    task = SplitTask(Walkers(), seed=0, tempo=1.0)  # type: ignore[arg-type]
    task.crops = {256: (128, 96, 6)}
    return task


def test_a_neighbour_has_the_same_view_and_colours(task: SplitTask) -> None:
    task.frames[:] = [task.frames[0]] * len(task.frames)  # a scene that stands still
    (group,) = next(iter(task.steps(0)))
    model = build_split("split8").eval()
    assert group.own_loss is not None
    _, scalars = group.own_loss(model)
    assert scalars["loss/change"] == 0.0
    assert group.inputs.dtype == torch.uint8


def test_a_short_training_finds_people_and_its_weights_can_be_stored(
    task: SplitTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.workloads.campus.split_models.TRUNK", 32)  # a light tail, to save time
    monkeypatch.setattr("runtime.workloads.campus.split_models.HOURGLASSES", ((48, 64),) * 2)
    log = Quiet()
    model = train(lambda: build_split("split8"), task, TrainingConfig(epochs=2, polish_frac=0.0), log)
    assert log.scores["f1/256px/exit0"] > 0.6
    task.finish(model)
    path = tmp_path / "split8.safetensors"
    save_weights(model, path)
    loaded = load_for_inference(path, build_split, "split8", (2,))
    peaks = next(module for module in loaded.modules() if isinstance(module, Peaks))
    assert float(peaks.threshold[WIDTHS_PX.index(256)]) != 0.0
    values = values_before_signs(model, pixels(np.stack(task.frames[:2])))
    assert values.std() > 0.0
