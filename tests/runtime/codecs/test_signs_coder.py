"""Exceptions come back exactly, in the number of bytes that information theory demands, and bad bytes end soon."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs.signs.coder import STEP_SURVIVAL, STEP_UNITS, Decoder, Encoder, cumulative
from runtime.codecs.signs.powers import MOST_BITS, TOTAL, UNIT, powers_of, survivals
from runtime.codecs.signs.tables import SIGNED_COST

COSTS = SIGNED_COST[:128]


def _case(seed: int, places: int, low: int = 0, high: int = 128) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Costs of random classes, and exceptions that occur as often as the costs say."""
    rng = np.random.default_rng(seed)
    costs = COSTS[rng.integers(low, high, places)]
    return costs, np.flatnonzero(rng.random(places) > np.exp2(-costs / UNIT))


def _encoded(*parts: tuple[NDArray[np.int32], NDArray[np.int64]]) -> bytes:
    coder = Encoder()
    for costs, exceptions in parts:
        coder.encode(cumulative(costs), exceptions)
    return coder.finish()


def _ideal_bits(costs: NDArray[np.int32], exceptions: NDArray[np.int64]) -> float:
    bits = costs / UNIT
    wrong = -np.log2(1 - np.exp2(-bits[exceptions]))
    return float(bits.sum() - bits[exceptions].sum() + wrong.sum())


def test_survival_is_the_power_of_two_to_nine_digits_and_never_grows() -> None:
    units = np.arange(0, MOST_BITS * UNIT, 7)
    assert np.allclose(survivals(units), TOTAL * np.exp2(-units / UNIT), rtol=2e-9, atol=2)
    every = survivals(np.arange(0, UNIT // 4))
    assert every[0] == TOTAL
    assert (np.diff(every) < 0).all()
    last = survivals(np.arange(MOST_BITS * UNIT - UNIT // 4, MOST_BITS * UNIT))
    assert (np.diff(last) <= 0).all()
    assert last[-1] > 0


def test_powers_are_correctly_rounded() -> None:
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    exact = [Decimal(2) ** (-Decimal(k) / 8) * (1 << 31) for k in range(100)]
    assert powers_of(3, 100, 31) == [int(value.to_integral_value()) for value in exact]


@given(seed=st.integers(0, 2**32), places=st.integers(0, 400), low=st.sampled_from([0, 40, 100]))
def test_exceptions_of_several_sequences_come_back(seed: int, places: int, low: int) -> None:
    parts = [_case(seed, places, low), _case(seed + 1, 57)]
    coder = Decoder(_encoded(*parts))
    for costs, exceptions in parts:
        assert coder.decode(cumulative(costs), places + 57) == exceptions.tolist()
    coder.finish()


@given(exceptions=st.sets(st.integers(0, 299)), cost=st.sampled_from([0, 30, 127]), zeros=st.integers(0, 50))
def test_any_exceptions_come_back_however_improbable(exceptions: set[int], cost: int, zeros: int) -> None:
    costs = np.full(300 + zeros, COSTS[cost])
    costs[300:] = 0  # places that cannot be exceptions
    places = np.array(sorted(exceptions), np.int64)
    coder = Decoder(_encoded((costs, places)))
    assert coder.decode(cumulative(costs), 300) == places.tolist()
    coder.finish()


@pytest.mark.parametrize(("low", "high"), [(0, 8), (0, 128), (60, 100), (100, 128)])
def test_the_length_is_the_information_and_less_than_two_bytes_more(low: int, high: int) -> None:
    for seed in range(5):
        costs, exceptions = _case(seed, 40_000, low, high)
        ideal_bytes = _ideal_bits(costs, exceptions) / 8
        # Where places cost nearly a bit each, many are on the limit of a full step, which takes 0.1 %.
        assert ideal_bytes - 1 <= len(_encoded((costs, exceptions))) <= 1.0015 * ideal_bytes + 2


def test_nothing_takes_no_bytes() -> None:
    nothing = np.zeros(0, np.int64)
    assert _encoded((np.zeros(100, np.int32), nothing)) == b""
    assert len(_encoded((COSTS[[127] * 40_000], nothing))) <= 1


@given(data=st.binary(max_size=200), seed=st.integers(0, 50), low=st.sampled_from([0, 80, 120]))
def test_hostile_bytes_are_refused_or_decoded_in_few_steps(data: bytes, seed: int, low: int) -> None:
    costs, _ = _case(seed, 20_000, low)
    coder = Decoder(data)
    try:
        found = coder.decode(cumulative(costs), 20_000)
        coder.finish()
    except RemoteProtocolError:
        return
    # An exception takes at least a bit, and at most 10 bytes beyond the payload are assumed to be zeros.
    assert len(found) <= 8 * (len(data) + 18)
    assert sorted(set(found)) == found


def test_all_zeros_are_not_read_as_endless_exceptions() -> None:
    with pytest.raises(RemoteProtocolError, match="end after 3 bytes"):
        Decoder(bytes(3)).decode(cumulative(np.full(40_000, COSTS[0])), 40_000)


def test_too_many_exceptions_and_further_bytes_are_refused() -> None:
    costs = np.full(2000, COSTS[0])
    data = _encoded((costs, np.arange(2000)))
    with pytest.raises(RemoteProtocolError, match="more than 100 exceptions"):
        Decoder(data).decode(cumulative(costs), 100)
    coder = Decoder(data + bytes(40))
    coder.decode(cumulative(costs), 2000)
    with pytest.raises(RemoteProtocolError, match="expected at most"):
        coder.finish()


def test_a_place_on_the_limit_of_a_full_step_comes_back() -> None:
    costs = np.full(100, COSTS[4])  # 0.7 bits; the limits are at 8, 16, ... bits
    for place in range(100):
        coder = Decoder(_encoded((costs, np.array([place])), (costs, np.array([99 - place]))))
        assert [coder.decode(cumulative(costs), 9) for _ in range(2)] == [[place], [99 - place]]
        coder.finish()


def test_parts_may_be_encoded_at_once_and_decoded_one_by_one() -> None:
    (first, there), (second, later) = _case(1, 300), _case(2, 500)
    coder = Decoder(_encoded((np.concatenate((first, second)), np.concatenate((there, later + 300)))))
    assert coder.decode(cumulative(first), 300) == there.tolist()
    assert coder.decode(cumulative(second), 500) == later.tolist()
    coder.finish()


def test_a_full_step_never_exceeds_the_table_of_powers() -> None:
    assert STEP_UNITS < MOST_BITS * UNIT
    assert survivals(np.array([STEP_UNITS]))[0] == STEP_SURVIVAL
    assert math.log2(TOTAL) > MOST_BITS
