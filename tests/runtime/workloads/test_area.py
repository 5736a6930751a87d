"""Resizing gives what OpenCV gives, to the last bit, and leaves to OpenCV what it does not do itself."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from runtime.workloads import area, area_passes
from runtime.workloads.area import resize

#: Of a side before and after.
RATIOS = [(3, 1), (3, 2), (5, 1), (5, 2), (5, 3), (5, 4), (7, 4), (9, 2), (11, 10), (13, 6), (15, 2), (15, 4), (15, 14)]


def picture(height: int, width: int, colours: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    shape = (height, width) if colours == 1 else (height, width, colours)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def by_opencv(image: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def assert_same(image: NDArray[Any], width: int, height: int) -> None:
    small = resize(image, width, height)
    assert small.dtype == np.uint8
    assert np.array_equal(small, by_opencv(image, width, height))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenCV."""

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("OpenCV was called")

    monkeypatch.setattr(cv2, "resize", refused)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("step_in", "step_out"), RATIOS)
def test_every_pixel_is_opencvs(step_in: int, step_out: int, colours: int) -> None:
    for rows, columns in ((1, 1), (1, 7), (3, 2), (8, 11)):
        image = picture(rows * step_in, columns * step_in, colours, seed=rows)
        assert_same(image, columns * step_out, rows * step_out)


@given(ratio=st.sampled_from(RATIOS), rows=st.integers(1, 9), columns=st.integers(1, 40), seed=st.integers(0, 999))
def test_pictures_of_few_levels_too(ratio: tuple[int, int], rows: int, columns: int, seed: int) -> None:
    """Means of these lie next to the middle between two levels."""
    image = picture(rows * ratio[0], columns * ratio[0], seed=seed) % 2 * np.uint8(255 if seed % 2 else 1)
    assert_same(image, columns * ratio[1], rows * ratio[1])


@pytest.mark.parametrize("size", [(512, 384), (256, 192), (384, 288)])
def test_the_sizes_of_the_campus_camera(size: tuple[int, int]) -> None:
    assert_same(picture(576, 768), *size)


@pytest.mark.parametrize("level", [0, 1, 254, 255])
@pytest.mark.parametrize("step_in", [3, 15])
def test_a_picture_of_one_level_stays_as_it_is(step_in: int, level: int) -> None:
    image = np.full((2 * step_in, 2 * step_in, 3), level, np.uint8)
    assert (resize(image, 2, 2) == level).all()


def test_pixels_may_lie_in_any_order_of_memory_and_stay_as_they_are() -> None:
    image = picture(30, 45)
    image.flags.writeable = False
    assert_same(image, 30, 20)
    wide = picture(60, 90)[::2, ::2]
    assert np.array_equal(resize(wide, 30, 20), by_opencv(np.ascontiguousarray(wide), 30, 20))
    turned = np.asfortranarray(image)
    assert np.array_equal(resize(turned, 30, 20), by_opencv(image, 30, 20))


@pytest.mark.usefixtures("alone")
def test_ratios_with_an_odd_step_need_no_opencv() -> None:
    for step_in, step_out in RATIOS:
        assert resize(picture(2 * step_in, step_in), step_out, 2 * step_out).shape == (2 * step_out, step_out, 3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((30, 40), (15, 20)),  # halves, for which OpenCV has vector instructions
        ((32, 40), (24, 30)),  # 4:3
        ((30, 45), (21, 30)),  # another ratio down than across
        ((31, 45), (20, 30)),  # no whole number of steps
        ((34, 51), (2, 3)),  # 17:1
        ((20, 30), (30, 45)),  # larger
        ((30, 45), (45, 30)),  # narrower and taller
        ((30, 45), (30, 45)),
    ],
)
def test_opencv_does_the_rest(before: tuple[int, int], after: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area, "_average", lambda: pytest.fail("the compiled loops were called"))
    assert_same(picture(*before), after[1], after[0])
    assert_same(picture(*before, 1), after[1], after[0])


@pytest.mark.parametrize("step_in", range(3, 16, 2))
def test_the_product_that_divides_is_exact_for_every_sum(step_in: int) -> None:
    count = step_in * step_in
    sums = np.arange(255 * count + 1, dtype=np.uint16) + np.uint16(count // 2)
    assert sums.max() == 255 * count + count // 2  # within 16 bits
    means = np.empty(len(sums), np.uint8)
    area_passes._divide(means, sums, np.uint32(-(-(1 << 24) // count)))
    assert np.array_equal(means, sums // count)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("step_in", "step_out"), [(3, 2), (5, 3), (15, 4)])
def test_the_compiled_loops_do_what_their_source_does(step_in: int, step_out: int, colours: int) -> None:
    image = picture(step_in, 2 * step_in, colours)
    ratio, lines = area._ratio(2 * step_in, 2 * step_out), image.reshape(step_in, -1)
    assert ratio is not None
    small = np.empty((step_out, 2 * step_out * colours), np.uint8)
    area_passes.average(ratio, area._space(lines.shape[1]), lines, colours, small)
    assert np.array_equal(
        small.reshape(step_out, 2 * step_out, *image.shape[2:]), resize(image, 2 * step_out, step_out)
    )
