"""The trace bank: a transfer ends where the integral of the bandwidth has grown by its bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import UsageError
from controller.predict.uplink import FLOOR_BPS, Trace, TraceBank


def make_trace(steps_s: list[float], uplink_bps: list[float], name: str = "t") -> Trace:
    t_s = np.append(0.0, np.cumsum(steps_s)[:-1])
    return Trace(name, t_s, np.array(uplink_bps, dtype=float), steps_s[-1])


def brute_force_finish_s(trace: Trace, start_s: float, bits: float) -> float:
    """Walk over the steps of the repeated trace, subtracting what each lets through."""
    steps = np.append(np.diff(trace.t_s), trace.last_step_s)
    lap, index = divmod(start_s, trace.duration_s)
    now_in_lap, step = index, int(np.searchsorted(trace.t_s, index, side="right") - 1)
    while True:
        rate = max(trace.uplink_bps[step], FLOOR_BPS)
        step_end = trace.t_s[step] + steps[step]
        room = rate * (step_end - now_in_lap)
        if bits <= room:
            return lap * trace.duration_s + now_in_lap + bits / rate
        bits, now_in_lap, step = bits - room, step_end, step + 1
        if step == len(steps):
            lap, now_in_lap, step = lap + 1, 0.0, 0


TRACES = [
    make_trace([1, 1, 1], [1e6, 2e6, 3e6], "ramp"),
    make_trace([0.5, 3, 0.25, 2], [8e6, 0, 1e5, 4e7], "stall"),
    make_trace([2], [5e5], "constant"),
    make_trace([1, 4], [0, 0], "dead"),
]
BANK = TraceBank(TRACES)

step_lists = st.lists(
    st.tuples(st.floats(0.01, 10), st.one_of(st.just(0.0), st.floats(0, 1e8))), min_size=1, max_size=8
)


@pytest.mark.parametrize("index", range(len(TRACES)))
@pytest.mark.parametrize("start_s", [0.0, 0.4, 1.0, 2.999, 7.3, 1000.1])
@pytest.mark.parametrize("bits", [0.0, 1.0, 6272.0, 1e6, 5e6])
def test_finish_equals_brute_force_integration(index: int, start_s: float, bits: float) -> None:
    got = BANK.finish_s(np.array([index]), np.array([start_s]), np.array([bits]))[0]
    assert got == pytest.approx(brute_force_finish_s(TRACES[index], start_s, bits), rel=1e-9, abs=1e-6)


@settings(deadline=None, max_examples=200)
@given(first=step_lists, second=step_lists, start_frac=st.floats(0, 20), laps=st.floats(0, 5))
def test_any_trace_in_any_place_of_the_bank_agrees_with_brute_force(
    first: list[tuple[float, float]],
    second: list[tuple[float, float]],
    start_frac: float,
    laps: float,
) -> None:
    traces = [make_trace(*map(list, zip(*steps, strict=True))) for steps in (first, second)]
    bank = TraceBank(traces)
    for index, trace in enumerate(traces):
        start_s, bits = start_frac * trace.duration_s, laps * float(bank.total_bits[index])
        got = float(bank.finish_s(np.array(index), np.array(start_s), np.array(bits)))
        # Compared in bits: over a dead stretch the smallest rounding of bits is a long time.
        sent = bits_between(trace, start_s, got)
        assert sent == pytest.approx(bits, rel=1e-6, abs=1e-6 * float(bank.total_bits.sum()) + 1)


def bits_between(trace: Trace, start_s: float, end_s: float) -> float:
    def bits_until(time_s: float) -> float:
        steps = np.append(np.diff(trace.t_s), trace.last_step_s)
        rates = np.maximum(trace.uplink_bps, FLOOR_BPS)
        lap, within = divmod(time_s, trace.duration_s)
        covered = np.clip(within - trace.t_s, 0, steps)
        return float(lap * (rates * steps).sum() + (rates * covered).sum())

    return bits_until(end_s) - bits_until(start_s)


def test_a_trace_repeats_from_its_beginning() -> None:
    bits = np.array([1.5e6])
    first, later = (BANK.finish_s(np.array([0]), np.array([t]), bits)[0] - t for t in (0.25, 300.25))
    assert first == pytest.approx(later)


def test_a_payload_larger_than_the_whole_trace_takes_several_laps() -> None:
    end = BANK.finish_s(np.array([0]), np.array([0.0]), np.array([10 * 6e6 + 5e5]))[0]
    assert end == pytest.approx(10 * 3 + 0.5)


def test_a_stretch_without_bandwidth_is_waited_out() -> None:
    end = BANK.finish_s(np.array([1]), np.array([0.5]), np.array([10e3]))[0]
    assert 3.5 < end < 3.6


def test_a_dead_trace_still_ends_every_transfer_at_the_floor() -> None:
    end = BANK.finish_s(np.array([3]), np.array([2.0]), np.array([8 * FLOOR_BPS]))[0]
    assert end == pytest.approx(10.0)


def test_a_transfer_of_no_bits_ends_when_it_starts() -> None:
    starts = np.array([0.0, 0.7, 12.3, 99.0])
    np.testing.assert_allclose(BANK.finish_s(np.arange(4), starts, np.zeros(4)), starts, atol=1e-6)


def test_two_transfers_in_a_row_end_like_one_of_both() -> None:
    trace, start = np.arange(4), np.full(4, 0.3)
    middle = BANK.finish_s(trace, start, np.full(4, 4e5))
    np.testing.assert_allclose(
        BANK.finish_s(trace, middle, np.full(4, 3e5)),
        BANK.finish_s(trace, start, np.full(4, 7e5)),
        atol=1e-6,
    )


def test_shapes_broadcast() -> None:
    trace, start, bits = np.arange(3)[:, None], np.array([[0.1], [0.2], [0.3]]), np.array([1e4, 1e5, 1e6, 1e7])
    ends = BANK.finish_s(trace, start, bits)
    assert ends.shape == (3, 4)
    assert ends[1, 2] == BANK.finish_s(np.array([1]), np.array([0.2]), np.array([1e6]))[0]
    assert (np.diff(ends, axis=1) > 0).all()


def test_rate_is_the_value_that_holds_at_a_time_and_repeats() -> None:
    times = np.array([0.0, 0.999, 1.0, 2.5, 3.0, 31.5])
    rates = BANK.rate_bps(np.zeros(6, dtype=int), times)
    np.testing.assert_allclose(rates, [1e6, 1e6, 2e6, 3e6, 1e6, 2e6])
    assert BANK.rate_bps(np.array([1]), np.array([1.0]))[0] == pytest.approx(FLOOR_BPS)


def test_multi_hour_traces_keep_microseconds() -> None:
    long = make_trace([1.0] * 15_000, [1e7] * 15_000)
    bank = TraceBank([long, *TRACES, long])
    end = bank.finish_s(np.array([5]), np.array([14_999.5]), np.array([6272.0]))[0]
    assert end - 14_999.5 == pytest.approx(6.272e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("t_s", "bps", "last_s"),
    [
        ([0, 1], [1.0], 1),
        ([1, 2], [1.0, 1.0], 1),
        ([0, 0], [1.0, 1.0], 1),
        ([0, 1], [1.0, -1.0], 1),
        ([0, 1], [1.0, np.nan], 1),
        ([0, 1], [1.0, 1.0], 0),
        ([], [], 1),
    ],
)
def test_a_trace_that_cannot_be_is_refused(t_s: list[float], bps: list[float], last_s: float) -> None:
    with pytest.raises(UsageError):
        Trace("bad", np.array(t_s, dtype=float), np.array(bps), last_s)


def test_an_empty_bank_is_refused() -> None:
    with pytest.raises(UsageError):
        TraceBank([])
