"""Places come back exactly, in the number of bytes that information theory demands, whatever the bytes are."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from runtime.codecs.signs.coder import (
    START_RANGE,
    WINDOW_BYTES,
    decoded_place,
    encoded_place,
    finished,
    first_window,
)
from runtime.codecs.signs.powers import TOTAL, UNIT, chance, powers_of
from runtime.codecs.signs.tables import CHANCE, CLASSES

CHANCES = CHANCE.tolist()
MOST_BYTES = 3  # that one place may take


def _case(seed: int, places: int, low: int = 0, high: int = CLASSES) -> tuple[list[int], list[bool]]:
    """Chances of random classes, and whether each prediction is wrong, as often as they say."""
    rng = np.random.default_rng(seed)
    chances = CHANCE[rng.integers(low, high, places)]
    return chances.tolist(), (rng.random(places) >= chances / TOTAL).tolist()


def _encoded(chances: list[int], wrong: list[bool]) -> bytes:
    out = np.zeros(MOST_BYTES * len(chances) + WINDOW_BYTES, np.uint8)
    low, size, length = 0, START_RANGE, 0
    for one, is_wrong in zip(chances, wrong, strict=True):
        low, size, length = encoded_place(low, size, length, out, one, is_wrong)
    return out[: finished(low, size, length, out)].tobytes()


def _decoded(data: bytes, chances: list[int]) -> tuple[list[bool], int]:
    """Which predictions are wrong, and the bytes read after the first window."""
    given = np.frombuffer(data, np.uint8)
    code, size, read = first_window(given), START_RANGE, 0
    found = []
    for one in chances:
        code, size, read, wrong = decoded_place(code, size, read, given, one)
        assert 0 <= code < size <= START_RANGE
        found.append(bool(wrong))
    return found, read


def _ideal_bytes(chances: list[int], wrong: list[bool]) -> float:
    right: NDArray[np.float64] = np.array(chances) / TOTAL
    return float(-np.log2(np.where(wrong, 1 - right, right)).sum() / 8)


class TestChances:
    def test_a_chance_is_the_power_of_two_correctly_rounded(self) -> None:
        getcontext().prec = 60
        for units in (0, 1, 2, 3, 77, 4096, 30_000, UNIT - 1, UNIT):
            exact = Decimal(2) ** (-Decimal(units) / UNIT) * TOTAL
            assert chance(units) == int(exact.to_integral_value())
        assert (chance(0), chance(UNIT)) == (TOTAL, TOTAL // 2)

    def test_powers_are_correctly_rounded(self) -> None:
        getcontext().prec = 60
        exact = [Decimal(2) ** (-Decimal(k) / 8) * (1 << 31) for k in range(100)]
        assert powers_of(3, 100, 31) == [int(value.to_integral_value()) for value in exact]

    def test_every_class_leaves_room_for_both_answers_and_more_is_never_less_probable(self) -> None:
        assert CHANCE[0] == TOTAL // 2
        assert (np.diff(CHANCE) >= 0).all()
        assert CHANCE[-1] < TOTAL
        bits = -np.log2(CHANCE[:60] / TOTAL)
        np.testing.assert_allclose(bits, 2.0 ** (-np.arange(60) / 8), rtol=2e-3)


@given(seed=st.integers(0, 2**32), places=st.integers(0, 400), low=st.sampled_from([0, 40, 100]))
def test_what_happens_as_often_as_predicted_comes_back(seed: int, places: int, low: int) -> None:
    chances, wrong = _case(seed, places, low)
    data = _encoded(chances, wrong)
    found, read = _decoded(data, chances)
    assert found == wrong
    assert read <= len(data) <= read + WINDOW_BYTES


@given(wrong=st.lists(st.booleans(), max_size=300), cost=st.sampled_from([0, 30, CLASSES - 1]))
def test_anything_comes_back_however_improbable(wrong: list[bool], cost: int) -> None:
    chances = CHANCES[cost : cost + 1] * len(wrong)
    assert _decoded(_encoded(chances, wrong), chances)[0] == wrong


@pytest.mark.parametrize(("low", "high"), [(0, 8), (0, CLASSES), (60, 100), (100, CLASSES)])
def test_the_length_is_the_information_and_less_than_two_bytes_more(low: int, high: int) -> None:
    for seed in range(3):
        chances, wrong = _case(seed, 20_000, low, high)
        ideal = _ideal_bytes(chances, wrong)
        assert ideal - 1 <= len(_encoded(chances, wrong)) <= 1.00002 * ideal + 2


def test_nothing_takes_no_bytes_and_much_that_is_certain_takes_few() -> None:
    assert _encoded([], []) == b""
    assert _encoded(CHANCES[-1:] * 40_000, [False] * 40_000) == b""


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("cost", [0, 4, 9, 40])
def test_a_carry_reaches_bytes_that_were_written_long_before(cost: int, upper: bool) -> None:
    """An interval that keeps the number 1/2 inside begins with 127, 255, 255, ... until it is known to be above it."""
    out = np.zeros(200, np.uint8)
    low, size, length = 0, START_RANGE, 0
    wrong: list[bool] = []
    one = CHANCES[cost]
    while length < 8:
        middle = (1 << (8 * (length + WINDOW_BYTES) - 1)) - (int.from_bytes(out[:length].tobytes()) << 56) - low
        wrong.append((size >> 32) * one <= middle if len(wrong) else False)
        low, size, length = encoded_place(low, size, length, out, one, wrong[-1])
    assert out[:8].tolist() in ([127, *[255] * 7], [128, *[0] * 7])
    wrong += [upper] * 20
    for is_wrong in wrong[-20:]:
        low, size, length = encoded_place(low, size, length, out, one, is_wrong)
    chances = [one] * len(wrong)
    data = _encoded(chances, wrong)
    assert _decoded(data, chances)[0] == wrong


def test_a_carry_runs_through_full_bytes() -> None:
    out = np.array([18, 255, 255, 0, 0], np.uint8)
    low, size, length = encoded_place(START_RANGE - 10, 1 << 50, 3, out, TOTAL // 2, True)
    assert (out[:3].tolist(), length) == ([19, 0, 0], 3)
    assert (low, size) == ((1 << 49) - 10, 1 << 49)
    out = np.array([18, 255, 255, *[0] * 7], np.uint8)
    assert finished(START_RANGE - 10, 1 << 50, 3, out) == 3  # the number is rounded up to the next multiple
    assert out[:3].tolist() == [19, 0, 0]


@given(data=st.binary(max_size=200), seed=st.integers(0, 50), low=st.sampled_from([0, 80, 120]))
def test_hostile_bytes_are_decoded_in_bounds(data: bytes, seed: int, low: int) -> None:
    chances, _ = _case(seed, 500, low)
    found, read = _decoded(data, chances)
    assert len(found) == 500
    assert read <= MOST_BYTES * 500


def test_no_place_takes_more_bytes_than_there_is_room_for() -> None:
    out = np.zeros(MOST_BYTES + WINDOW_BYTES, np.uint8)
    for one in CHANCES:
        for wrong in (False, True):
            _, size, length = encoded_place(0, 1 << 48, 0, out, one, wrong)
            assert length <= MOST_BYTES
            assert 1 << 48 <= size <= START_RANGE
