"""Generated uplinks: close to the statistics they were fitted to, reproducible, new in test."""

from __future__ import annotations

import numpy as np
import pytest

from controller.errors import UsageError
from runtime.testbed.markov_traces import (
    FAMILIES,
    NARROW,
    OUTAGE_MBPS,
    SHIFTED,
    TARGETS,
    TEST_ONLY,
    builtin_traces,
    generate,
    statistics,
)

#: Families of one or two short recordings: their statistics are those of the recordings, not of the links.
FEW = {"mahimahi_up", "mahimahi_up_100ms", "orange4g_up", "orange4g_up_100ms", "vz_mmwave_up_100ms"}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_generated_statistics_meet_the_table(name: str) -> None:
    family, target = FAMILIES[name], TARGETS[name]
    got = statistics(list(generate(family, 60, 600 * family.step_s, np.random.default_rng(5))))
    slack = 2.0 if name in FEW else 1.0
    assert got.mean_mbps == pytest.approx(target.mean_mbps, rel=0.2 * slack)
    assert got.std_mbps == pytest.approx(target.std_mbps, rel=0.25 * slack)
    assert got.variation == pytest.approx(target.variation, rel=0.3 * slack)
    assert got.below_half_frac == pytest.approx(target.below_half_frac, abs=0.05 * slack)
    off = np.abs(np.array(got.correlation) - np.array(target.correlation))
    assert off.mean() < 0.2 * slack


def test_statistics_of_a_series_with_known_ones() -> None:
    alternating = np.tile([1.0, 3.0], 500)
    got = statistics([alternating, alternating])
    assert got.mean_mbps == 2.0
    assert got.std_mbps == 1.0
    assert got.variation == 0.5
    assert got.below_half_frac == 0.0
    assert got.correlation[:2] == pytest.approx((-1.0, 1.0), abs=0.01)


def test_outages_have_the_share_and_the_length_of_the_family() -> None:
    family = FAMILIES["norway3g"]
    dead = generate(family, 200, 2000, np.random.default_rng(1)) < OUTAGE_MBPS
    begins = (dead[:, 1:] & ~dead[:, :-1]).sum()
    assert dead.mean() == pytest.approx(family.outage_frac, abs=0.03)
    assert dead.sum() / begins == pytest.approx(family.outage_s, rel=0.15)


def test_no_value_exceeds_what_was_measured() -> None:
    for family in FAMILIES.values():
        assert generate(family, 20, 200 * family.step_s, np.random.default_rng(2)).max() <= family.cap_mbps


def test_equal_seeds_give_equal_traces_and_others_do_not() -> None:
    first, again, other = builtin_traces("train", 3), builtin_traces("train", 3), builtin_traces("train", 4)
    for a, b, c in zip(first.traces, again.traces, other.traces, strict=True):
        np.testing.assert_array_equal(a.uplink_bps, b.uplink_bps)
        assert a.name == b.name
        assert (a.uplink_bps != c.uplink_bps).any()


def test_the_test_split_shares_no_trace_and_has_links_that_training_never_saw() -> None:
    train, test = builtin_traces("train"), builtin_traces("test")
    families_of = [{trace.name.split("/")[0] for trace in bank.traces} for bank in (train, test)]
    assert families_of[1] - families_of[0] == {*TEST_ONLY, *(f"{name}_shifted" for name in SHIFTED)}
    seen = {trace.uplink_bps.tobytes() for trace in train.traces}
    assert not seen & {trace.uplink_bps.tobytes() for trace in test.traces}


def test_a_shifted_family_differs_from_its_origin_in_the_way_it_says() -> None:
    bank = builtin_traces("test")
    medians = {
        name: np.median([np.median(t.uplink_bps) for t in bank.traces if t.name.startswith(f"{name}/")])
        for name in ("us5g_iperf_up", "us5g_iperf_up_shifted")
    }
    ratio = medians["us5g_iperf_up_shifted"] / medians["us5g_iperf_up"]
    assert ratio == pytest.approx(SHIFTED["us5g_iperf_up"]["level_mbps"], rel=0.3)


def test_narrow_links_belong_to_one_device_and_have_their_own_round_trips() -> None:
    for split in ("train", "test"):
        narrow = [trace for trace in builtin_traces(split).traces if trace.name.split("/")[0] in NARROW]
        assert narrow
        assert not any(trace.is_shared for trace in narrow)
        for trace in narrow:
            family = NARROW[trace.name.split("/")[0]]
            assert family.rtt_s is not None
            assert family.rtt_s[0] <= trace.rtt_s <= family.rtt_s[1]
            assert np.median(trace.uplink_bps) <= 300e3
    assert {"certus_up", "3g_cell_of_50_up"} <= set(NARROW) & set(TEST_ONLY)


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(UsageError, match="'validation'"):
        builtin_traces("validation")  # type: ignore[arg-type]
