"""Weights of few bits and of pruned models: what is written comes back, and what is damaged is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from controller.errors import FailureError
from runtime.bundles.packed_weights import HEADER, PackedWeight, WeightHeader, pack, unpack
from runtime.bundles.weights import load_weights, save_weights
from runtime.models.few_bits import (
    BITS,
    keep_rounded,
    output_layers,
    round_in_training,
    rounded,
    rounded_layers,
    top_level,
)
from runtime.workloads.campus.models import build as build_detector
from runtime.workloads.garments.models import build


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (7, 13), (1, 1)])
def test_rounded_weights_are_packed_without_loss(bits: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(bits)
    weight = torch.randn(shape)
    few = rounded(weight, bits)
    assert len(few[0].unique()) <= 2 * top_level(bits) + 1
    torch.testing.assert_close(rounded(few, bits), few)
    tensors, header = pack({"w": few}, {"w": bits})
    assert tensors["w.codes"].numel() == -(-few.numel() * bits // 8)
    torch.testing.assert_close(unpack(tensors, header)["w"], few, rtol=1e-3, atol=0.0)  # the scale is float16
    assert (weight - few).abs().mean() <= (0.7 if bits == 1 else 1.0 / top_level(bits)) * weight.abs().amax()


def test_one_bit_keeps_the_mean_absolute_value_of_each_channel() -> None:
    weight = torch.tensor([[1.0, -3.0], [0.5, 0.5], [0.0, 0.0]])
    torch.testing.assert_close(rounded(weight, 1), torch.tensor([[2.0, -2.0], [0.5, 0.5], [0.0, 0.0]]))


def test_training_sees_rounded_weights_and_moves_the_exact_ones() -> None:
    model = round_in_training(build("mobilenet"), 1)
    sparing = [name for name, layer in build("mobilenet").named_modules() if getattr(layer, "groups", 1) > 1]
    layers = rounded_layers(build("mobilenet"), 1)
    assert not {"stages.0.0", *sparing, *output_layers(model)} & set(layers)
    assert {*sparing, *output_layers(model)} <= set(rounded_layers(build("mobilenet"), 4))
    layer: Any = model.get_submodule(next(iter(layers)))
    exact = layer.parametrizations.weight.original
    assert len(layer.weight[0].unique()) == 2
    model.whole(torch.randn(2, 1, 28, 28), 3).sum().backward()
    assert exact.grad is not None
    assert exact.grad.abs().sum() > 0
    assert len(keep_rounded(model).get_submodule(next(iter(layers))).weight[0].unique()) == 2  # type: ignore[union-attr, index, arg-type, call-overload]


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A file of a mobilenet with weights of 4 bits."""
    torch.manual_seed(0)
    model = build("mobilenet")
    path = tmp_path / "few.safetensors"
    save_weights(model, path, bits={f"{name}.weight": 4 for name in rounded_layers(model, 4)})
    return path


def rewrite(path: Path, header: WeightHeader | str | None = None, **changed: torch.Tensor | None) -> None:
    """Change tensors or the header of a file; None removes a tensor."""
    tensors = load_file(path) | {name: value for name, value in changed.items() if value is not None}
    for name in [name for name, value in changed.items() if value is None]:
        del tensors[name]
    text = header if isinstance(header, str) else msgspec.json.encode(header).decode()
    save_file(tensors, path, {HEADER: text})


def test_few_bits_come_back_as_float32_and_make_a_small_file(few: Path) -> None:
    plain = few.with_name("plain.safetensors")
    model = load_weights(few, build, "mobilenet")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    save_weights(model, plain)
    assert few.stat().st_size < 0.4 * plain.stat().st_size
    with pytest.raises(FailureError, match="does not hold the weights of a vgg"):
        load_weights(few, build, "vgg")


FIRST = "stages.0.0.weight"
ENTRY = PackedWeight(4, (16, 1, 3, 3))


@pytest.mark.parametrize(
    ("header", "changed", "reason"),
    [
        ("{", {}, "its header is not valid"),
        (WeightHeader(packed={FIRST: PackedWeight(3, (16, 1, 3, 3))}), {}, "3 bits per weight; expected one of"),
        (WeightHeader(packed={FIRST: PackedWeight(4, (16, 1, 3, 30))}), {}, "bytes of codes"),
        (WeightHeader(packed={FIRST: PackedWeight(4, (1 << 20, 1 << 20))}), {}, "weights of shape"),
        (WeightHeader(packed={FIRST: ENTRY}), {f"{FIRST}.codes": None}, "codes"),
        (WeightHeader(packed={FIRST: ENTRY}), {f"{FIRST}.scale": torch.full((16,), torch.nan)}, "not finite"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    few: Path, header: WeightHeader | str, changed: dict[str, torch.Tensor | None], reason: str
) -> None:
    rewrite(few, header, **changed)
    with pytest.raises(FailureError, match=f"does not hold the weights of a mobilenet: .*{reason}") as caught:
        load_weights(few, build, "mobilenet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("make", "family"), [(build, "resnet"), (build, "mobilenet"), (build_detector, "nano")])
def test_pruned_models_come_back_with_their_widths(make: Any, family: str, tmp_path: Path) -> None:
    pruning = pytest.importorskip("runtime.compression.pruning")
    if pruning.missing_pruning():
        pytest.skip(pruning.missing_pruning())
    torch.manual_seed(0)
    model = make(family)
    x = torch.randn(1, 1, 28, 28) if family != "nano" else torch.randn(1, 3, 96, 128)
    smaller = pruning.pruned(model, x, 0.5)
    assert 0.3 * pruning.macs_of(model, x) < pruning.macs_of(smaller, x) <= 0.5 * pruning.macs_of(model, x)
    path = tmp_path / "pruned.safetensors"
    save_weights(smaller, path, header=WeightHeader(pruned=True))
    loaded = load_weights(path, make, family).eval()
    smaller.eval()
    with torch.inference_mode():
        for cut in range(len(model.stages) + 1):
            whole = loaded.whole(x, len(model.exits) - 1)
            assert torch.equal(loaded.tail(loaded.head(x, cut), cut, len(model.exits) - 1), whole)
        torch.testing.assert_close(whole, smaller.whole(x, len(model.exits) - 1), rtol=0.05, atol=0.05)
    save_weights(smaller, path)  # without the header, other widths are a damaged file
    with pytest.raises(FailureError, match="size mismatch"):
        load_weights(path, make, family)
    kernel = smaller.stages[0][0] if family != "nano" else smaller.stages[0][0][0]
    kernel.weight = torch.nn.Parameter(kernel.weight[:, :, 1:])  # type: ignore[index]
    save_weights(smaller, path, header=WeightHeader(pruned=True))
    with pytest.raises(FailureError, match="has a kernel of"):
        load_weights(path, make, family)
