"""The compiled encoder of pixels computes what training learned, for pictures of any size and order of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime.models import pixel_passes
from runtime.models.pixel_encoder import CompiledPixelEncoder, PixelEncoder, _space, compiled_encoder

TOLERANCE = 1e-3  # of the largest value: only there rounding may change a sign


def encoder(between: int = 12, outputs: int = 8) -> PixelEncoder:
    """In evaluation mode; its norm is not the identity, as after training."""
    torch.manual_seed(outputs)
    made = PixelEncoder(between, outputs, 110.0, 60.0)
    norm = made[2]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_(0, 0.1)
    norm.running_var.uniform_(0.5, 1.5)
    return made.eval()


def pixels(batch: int, height: int, width: int) -> Tensor:
    """u8 (batch, 3, h, w) in channels-last order, as a workload makes them."""
    rng = np.random.default_rng(width)
    return torch.from_numpy(rng.integers(0, 256, (batch, height, width, 3), np.uint8)).permute(0, 3, 1, 2)


@torch.inference_mode()
def assert_same(made: PixelEncoder, given: Tensor) -> None:
    """Equal signs but for values next to 0."""
    values, found = made.values(given), made.folded()(given)
    assert found.shape == values.shape
    assert found.dtype == torch.float32
    assert set(found.unique().tolist()) <= {-1.0, 1.0}
    clear = values.abs() > TOLERANCE * values.abs().max()
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], made(given)[clear])


@pytest.mark.parametrize(
    ("height", "width"), [(96, 128), (36, 44), (8, 8), (4, 4), (12, 4), (4, 20), (38, 47), (192, 256), (144, 1000)]
)
def test_signs_are_those_of_the_trained_encoder(height: int, width: int) -> None:
    assert_same(encoder(), pixels(1, height, width))


@pytest.mark.parametrize("outputs", [1, 3, 4, 6, 24])
@pytest.mark.parametrize("between", [4, 16])
def test_any_number_of_outputs(between: int, outputs: int) -> None:
    assert_same(encoder(between, outputs), pixels(1, 28, 36))


def test_pictures_of_a_batch_do_not_disturb_each_other() -> None:
    made, given = encoder(), pixels(3, 36, 44)
    assert_same(made, given)
    folded = made.folded()
    with torch.inference_mode():
        together, one_by_one = folded(given), [folded(given[i : i + 1])[0] for i in range(3)]
    assert torch.equal(together, torch.stack(one_by_one))


def test_pictures_of_another_size_between_leave_nothing_behind() -> None:
    folded, given = encoder().folded(), pixels(1, 36, 44)
    with torch.inference_mode():
        before = folded(given)
        folded(pixels(1, 96, 128))
        folded(255 - given)
        assert torch.equal(folded(given), before)


def test_two_encoders_of_one_size_share_no_result() -> None:
    given = pixels(1, 36, 44)
    with torch.inference_mode():
        first = encoder().folded()(given)
        kept = first.clone()
        encoder(12, 8).folded()(255 - given)
    assert torch.equal(first, kept)


def test_pixels_may_lie_in_any_order_of_memory() -> None:
    given = pixels(2, 36, 44)
    wide = pixels(2, 72, 88)[:, :, ::2, ::2]
    frozen = np.ascontiguousarray(given.permute(0, 2, 3, 1).numpy()).tobytes()  # read-only
    read_only = np.frombuffer(frozen, np.uint8).reshape(2, 36, 44, 3)
    folded = encoder().folded()
    with torch.inference_mode():
        expected = folded(given)
        assert torch.equal(folded(given.contiguous()), expected)
        assert torch.equal(folded(wide), folded(wide.contiguous()))
    found = np.empty_like(expected.permute(0, 2, 3, 1).numpy())
    space = _space(folded._weights, 9, 11)
    for picture, signs in zip(read_only, found, strict=True):
        compiled_encoder()(folded._weights, space, picture.reshape(36, -1), signs)
    assert np.array_equal(found, expected.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(("height", "width", "outputs"), [(8, 12, 6), (20, 28, 3), (4, 4, 1)])
def test_the_compiled_encoder_does_what_its_source_does(height: int, width: int, outputs: int) -> None:
    folded, (picture,) = encoder(4, outputs).folded(), pixels(1, height, width).permute(0, 2, 3, 1).numpy()
    rows, columns = height // 4, width // 4
    runs: list[tuple[Any, Any]] = []
    for function in (pixel_passes.encode_pixels, compiled_encoder()):
        space = _space(folded._weights, rows, columns)
        signs = np.empty(((rows + 1) // 2, (columns + 1) // 2, outputs), np.float32)
        function(folded._weights, space, np.ascontiguousarray(picture).reshape(height, -1), signs)
        runs.append((space, signs))
    (plain, plain_signs), (quick, signs) = runs
    for one, other in zip(plain, quick, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(one).max())))
    inside = plain.outputs[:outputs].reshape(outputs, signs.shape[0], -1)[:, :, :-1].transpose(1, 2, 0)
    clear = np.abs(inside) > TOLERANCE * np.abs(inside).max()
    assert np.array_equal(plain_signs[clear], signs[clear])


def test_the_inference_copy_holds_no_parameters_that_could_be_trained() -> None:
    folded = encoder().folded()
    assert isinstance(folded, CompiledPixelEncoder)
    assert not list(folded.parameters())
    assert (folded.outputs, folded.weight_counts) == (8, (12 * 48, 8 * 12 * 9))
