"""Exit heads, encoders and decoders for the features of a foreign model, and small students."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime.models.bottleneck import Decoder
from runtime.models.box_targets import TargetMaps, exit_loss
from runtime.models.detector_parts import NO_PEAK, Peaks
from runtime.models.exit_head import PartOf, stride_of
from runtime.models.folding import fold_for_inference
from runtime.models.packing import Shapes, unpack
from runtime.workloads.adopted.families import (
    Answers,
    BottleneckFamily,
    CutShapes,
    ExitSpec,
    StudentFamily,
    WholeFamily,
    build,
)

ONE = CutShapes((96, 128), ((16, 24, 32),))
TWO = CutShapes((96, 128), ((16, 12, 16), (8, 6, 8)))


def test_a_head_reads_one_of_several_packed_tensors() -> None:
    arrays = [np.random.default_rng(0).random((2, *shape)).astype(np.float32) for shape in TWO.tensors]
    packed = torch.from_numpy(np.concatenate([array.reshape(2, -1) for array in arrays], 1))
    read = PartOf({TWO.picture: TWO.tensors}, 1)(packed)
    assert np.array_equal(read.numpy(), arrays[1])


def test_rows_of_values_are_a_map_of_one_column() -> None:
    shapes: Shapes = ((5, 8), (3, 2, 2))
    packed = torch.arange(52.0)[None]
    read = PartOf({(32, 32): shapes}, 0)(packed)
    assert read.shape == (1, 8, 5, 1)
    assert torch.equal(read[0, :, 2, 0], torch.arange(16.0, 24.0))


@pytest.mark.parametrize(("shape", "stride"), [((1, 96, 128), 1), ((8, 24, 32), 4), ((8, 12, 16), 8), ((8, 3, 4), 32)])
def test_strides_are_powers_of_two(shape: tuple[int, ...], stride: int) -> None:
    assert stride_of((96, 128), shape) == stride


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
def test_a_head_gives_a_map_at_a_quarter_of_the_picture_whatever_it_reads(stride: int) -> None:
    cut = CutShapes((96, 128), ((8, 96 // stride, 128 // stride),))
    model = build(WholeFamily(2, (ExitSpec(1, (cut,)),), Answers(3, (128,))), nn.Identity)
    x = torch.randn(2, *cut.tensors[0])
    assert model.train().exits[0](x).shape == (2, 3 + 4, 24, 32)
    assert model.eval().exits[0](x).shape == (2, 100, 6)


def test_peaks_name_the_class_of_each_candidate() -> None:
    cells = torch.full((1, 2 + 4, 6, 8), NO_PEAK)
    cells[0, 2:] = 0.0  # every side one cell away
    cells[0, 1, 2, 3], cells[0, 0, 4, 6] = 3.0, 1.0
    found = Peaks((32,), classes=2, peaks=5).eval()(cells)[0]
    assert found[:2, 4:].tolist() == [[3.0, 1.0], [1.0, 0.0]]
    assert found[0, :4].tolist() == pytest.approx([2.5 / 8, 1.5 / 6, 4.5 / 8, 3.5 / 6])


def test_each_class_has_a_map_of_its_own() -> None:
    boxes = [np.array([[8, 8, 24, 24, 0], [40, 8, 56, 24, 1]], np.float32)]
    target = TargetMaps.of(boxes, 16, 8, classes=2)
    assert [tuple(heat.shape) for heat in target.heat[0]] == [(8, 16)] * 2
    assert [int(heat.argmax()) % 16 for heat in target.heat[0]] == [4, 12]
    right = torch.cat((torch.logit(target.heat.clamp(1e-4, 1 - 1e-4)), target.sides.log()), 1)
    swapped = torch.cat((right[:, [1, 0]], right[:, 2:]), 1)
    assert sum(exit_loss(right, target)) < 0.5 * sum(exit_loss(swapped, target))


@pytest.mark.parametrize(
    "family",
    [
        BottleneckFamily(4, 2, (TWO,), "signs", 24, trunk=8),
        BottleneckFamily(4, 2, (TWO,), "levels", 8, (2, 4), trunk=8),
        BottleneckFamily(4, 2, (TWO,), "levels", 8, (4,), trunk=8, reads=1, source=(ONE,)),
    ],
)
def test_a_bottleneck_gives_what_is_at_the_cut(family: BottleneckFamily) -> None:
    model = fold_for_inference(build(family, nn.Identity))
    picture = torch.randint(0, 256, (1, 96, 128, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    code = model.stages[family.reads](torch.randn(1, *ONE.tensors[0]) if family.reads else picture)
    assert code.shape == (1, family.channels, 12, 16)
    joined = model.stages[family.reads + 1](code)
    assert [part.shape[1:] for part in unpack(joined.numpy(), TWO.tensors)] == list(TWO.tensors)
    assert model.parts_at(family.cut + 1, tuple(joined.shape[1:])) == TWO.tensors
    assert (
        family.codecs
        == {"signs": ("signs",), "levels": tuple(f"u{bit}" for bit in sorted(family.bits)[::-1])}[family.code]
    )


def test_the_outputs_of_a_decoder_get_the_scale_of_the_features() -> None:
    torch.manual_seed(0)
    decoder = Decoder(4, 8, {(12, 16): ((3, 12, 16),)}).eval()
    code = torch.randn(1, 4, 12, 16)
    before = decoder(code)
    mean, deviation = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 2.0, 10.0])
    decoder.scale_outputs([mean], [deviation])
    expected = before * deviation[:, None, None] + mean[:, None, None]
    assert torch.allclose(decoder(code), expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (100, 132), (75, 300)])
def test_students_take_pixels_of_any_size(height: int, width: int) -> None:
    picture: Tensor = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    detector = build(StudentFamily("nano", Answers(3, (128,))), nn.Identity).eval()
    assert {tuple(output.shape) for output in detector.all_exits(picture)} == {(1, 100, 6)}
    classifier = build(StudentFamily("tiny", Answers(10)), nn.Identity).eval()
    assert {tuple(output.shape) for output in classifier.all_exits(picture)} == {(1, 10)}
