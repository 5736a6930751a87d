"""A branchy model cut anywhere answers as the whole; folding changes nothing; the description is right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from controller.errors import FailureError
from runtime.bundles.bundle import open_bundle
from runtime.bundles.weights import load_weights, save_weights
from runtime.models.describe import describe_layers
from runtime.models.folding import fold_for_inference
from runtime.models.stages import BranchyModel
from runtime.models.training import Group, Scalars, TrainingConfig, rate_factor, train
from runtime.workloads.garments.models import FAMILIES, build

RESOLUTIONS_PX = (28, 20, 14)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _with_real_norms(family: str) -> BranchyModel:
    """A model whose norms are not the identity, as after training."""
    torch.manual_seed(0)
    model = build(family)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("px", RESOLUTIONS_PX)
@pytest.mark.parametrize("family", FAMILIES)
def test_tail_of_head_equals_whole_bit_for_bit_at_every_cut_and_exit(family: str, px: int) -> None:
    model = open_bundle("garments").model(family)
    x = torch.rand(3, 1, px, px, generator=torch.Generator().manual_seed(px))
    with torch.inference_mode():
        for exit_branch, after in enumerate(model.exit_after):
            expected = model.whole(x, exit_branch)
            for cut in range(after + 1):
                assert torch.equal(model.tail(model.head(x, cut), cut, exit_branch), expected)


@pytest.mark.parametrize("px", RESOLUTIONS_PX)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_tensor_that_crossed_as_plain_bytes_gives_the_same_answer(family: str, px: int) -> None:
    """The wire loses the memory layout, not the values."""
    model = open_bundle("garments").model(family)
    x = torch.rand(1, 1, px, px, generator=torch.Generator().manual_seed(px))
    last = len(model.exit_after) - 1
    with torch.inference_mode():
        expected = model.whole(x, last)
        for cut in range(1, len(model.stages) + 1):
            z = model.head(x, cut).numpy()[0]
            received = torch.from_numpy(np.frombuffer(z.tobytes(), np.float32).reshape(z.shape).copy())[None]
            assert torch.equal(model.tail(received, cut, last), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_exits_in_one_pass_equal_each_exit_alone(family: str) -> None:
    model = _with_real_norms(family)
    x = torch.rand(2, 1, 28, 28)
    with torch.inference_mode():
        for exit_branch, output in enumerate(model.all_exits(x)):
            assert torch.equal(output, model.whole(x, exit_branch))


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_removes_every_norm_and_keeps_the_answers(family: str) -> None:
    model = _with_real_norms(family)
    folded = fold_for_inference(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    x = torch.rand(2, 1, 28, 28)
    with torch.inference_mode():
        for before, after in zip(model.all_exits(x), folded.all_exits(x), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_description_has_the_shapes_of_a_real_pass(family: str) -> None:
    model = fold_for_inference(build(family))
    x = torch.rand(1, 1, 20, 20)
    layers = describe_layers(model, x)
    with torch.inference_mode():
        for cut, shape in enumerate(layers.stage_shapes, start=1):
            assert tuple(model.head(x, cut).shape[1:]) == shape
    assert len(layers.exits) == len(model.exit_after)
    assert all(stage for stage in layers.stages)


def test_macs_and_regressors_of_a_convolution_are_those_of_the_formula() -> None:
    stage = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
    exit_head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    model = BranchyModel([stage], [exit_head], (1,))
    layers = describe_layers(model, torch.zeros(1, 3, 16, 16))
    conv, relu = layers.stages[0]
    assert (conv.kind, conv.macs) == ("conv", 8 * 8 * 8 * 3 * 9)
    assert conv.regressors == (3 * 16 * 16, (3 / 2) ** 2 * 8)
    assert (relu.kind, relu.regressors) == ("relu", (8 * 8 * 8,))
    pool, fc = layers.exits[0]
    assert (pool.kind, pool.regressors) == ("pool", (8 * 8 * 8, 8))
    assert (fc.kind, fc.regressors, fc.macs) == ("fc", (8, 10), 80)


def test_costs_spread_by_more_than_an_order_of_magnitude() -> None:
    bundle = open_bundle("garments")

    def macs(name: str, exit_branch: int) -> int:
        info = bundle.info(name)
        after = info.exits[exit_branch].after
        return sum(stage.macs[28] for stage in info.stages[:after]) + info.exits[exit_branch].macs[28]

    assert macs("resnet", 3) > 20 * macs("mobilenet", 3)
    assert macs("mobilenet", 3) > 10 * macs("mobilenet", 0)


@pytest.mark.parametrize("exit_after", [(1, 1), (2, 1), (1,), (1, 3)])
def test_an_impossible_layout_is_refused(exit_after: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="increasing stage counts"):
        BranchyModel([nn.Identity(), nn.Identity()], [nn.Identity(), nn.Identity()], exit_after)


def test_weights_come_back_from_float16_and_another_family_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = _with_real_norms("mobilenet")
    path = tmp_path / "m.safetensors"
    save_weights(model, path)
    loaded = load_weights(path, build, "mobilenet").eval()
    x = torch.rand(2, 1, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.whole(x, 3), model.whole(x, 3), rtol=1e-2, atol=1e-2)
    with pytest.raises(FailureError, match="does not hold the weights of a vgg"):
        load_weights(path, build, "vgg")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FailureError, match="does not hold the weights"):
        load_weights(path, build, "mobilenet")


class _Brightness:
    """A task with a known optimum: is the image brighter than the middle? Linear in the input's mean."""

    steps_per_epoch = 30

    def steps(self, epoch: int) -> Iterator[list[Group]]:
        rng = torch.Generator().manual_seed(epoch)
        for _ in range(self.steps_per_epoch):
            yield [self._group(px, rng) for px in (8, 12)]

    @staticmethod
    def _group(px: int, rng: torch.Generator) -> Group:
        level = torch.rand(32, 1, 1, 1, generator=rng)
        images = level + 0.05 * torch.randn(32, 1, px, px, generator=rng)
        return Group(images, (level.flatten() > 0.5).long(), 0.5)

    def loss(self, outputs: list[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, Scalars]:
        losses = torch.stack([nn.functional.cross_entropy(output, targets) for output in outputs])
        return losses.sum(), {"loss": losses.sum().item()}

    def evaluate(self, model: BranchyModel) -> Scalars:
        group = self._group(12, torch.Generator().manual_seed(99))
        with torch.inference_mode():
            outputs = model.all_exits(group.inputs)
        return {
            f"accuracy/{i}": (output.argmax(1) == group.targets).float().mean().item()
            for i, output in enumerate(outputs)
        }

    def finish(self, model: BranchyModel) -> None:
        pass


def _tiny() -> BranchyModel:
    def stage(inputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def exit_head() -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    return BranchyModel([stage(1), stage(8)], [exit_head(), exit_head()], (1, 2))


class _Log:
    def __init__(self) -> None:
        self.epochs: list[Scalars] = []
        self.rates: list[float] = []

    def step(self, step: int, scalars: Scalars) -> None:
        self.rates.append(scalars["rate"])

    def epoch(self, epoch: int, scalars: Scalars) -> None:
        self.epochs.append(scalars)


def test_joint_training_learns_every_exit_and_the_same_seed_gives_the_same_weights() -> None:
    config = TrainingConfig(epochs=3, seed=5, polish_frac=1 / 3, peak_rate=2e-2, averaging_decay=0.9)
    log = _Log()
    first = train(_tiny, _Brightness(), config, log)
    assert all(score >= 0.9 for score in log.epochs[-1].values()), log.epochs
    second = train(_tiny, _Brightness(), config, _Log())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_rate_warms_up_to_one_and_ends_near_zero() -> None:
    factors = [rate_factor(step, 100, 0.1) for step in range(100)]
    assert max(factors) == pytest.approx(1.0)
    assert factors.index(max(factors)) in (9, 10)
    assert factors[-1] < 1e-3
