"""Twin and processes meet the same requests of other devices."""

from __future__ import annotations

from itertools import islice, takewhile

import numpy as np
import pytest

from controller.predict.arrivals import LEVELS, STREAM_UNITS, arrivals, arrivals_from, level_of, stream_start
from controller.scenario import Scenario
from envs.twin.conditions import conditions_of
from envs.twin.mec_queue import neighbour_queue, workload
from runtime.bundles.bundle import open_bundle
from runtime.profiling.profile import load_costs
from runtime.testbed.neighbours import Neighbours, neighbour_row


@pytest.mark.parametrize("load_frac", [0.1, 0.5, 0.9])
def test_a_load_is_the_share_of_time_that_its_arrivals_need(load_frac: float) -> None:
    assert (arrivals().needed_load < load_frac).mean() * len(arrivals().at) / STREAM_UNITS == pytest.approx(
        load_frac, abs=1e-3
    )


def test_the_stream_goes_on_after_its_end() -> None:
    start = STREAM_UNITS - 10.0
    first = np.array(list(islice(arrivals_from(start), len(arrivals().at) + 50)))
    assert (np.diff(first[:, 0]) >= 0).all()
    np.testing.assert_allclose(first[len(arrivals().at) :, 0] - first[:50, 0], STREAM_UNITS)


def test_seeds_begin_at_different_places() -> None:
    starts = stream_start(np.arange(100))
    assert len(set(starts.tolist())) == 100
    assert (starts >= 0).all()
    assert (starts < STREAM_UNITS).all()


def test_loads_are_placed_on_the_ladder() -> None:
    assert level_of(np.array([0.0, 0.304, 0.949, 2.0])).tolist() == [0, 30, 95, LEVELS - 1]


@pytest.mark.parametrize("load_frac", [0.2, 0.6, 0.95])
def test_the_twins_queue_is_that_of_the_requests_which_processes_send(load_frac: float) -> None:
    start, end = float(stream_start(np.array(3))), 3 * STREAM_UNITS + 100.0
    sent = [at for at, needed in takewhile(lambda a: a[0] < end, arrivals_from(start)) if needed < load_frac]
    at = np.random.default_rng(0).uniform(2 * STREAM_UNITS, end, 5_000)  # the idle beginning is long forgotten
    expected, free, served = np.zeros(len(at)), 0.0, iter([*sent, np.inf])
    coming = next(served)
    for place in np.argsort(at):
        while coming <= at[place]:
            free, coming = max(free, coming) + 1.0, next(served)
        expected[place] = max(free - at[place], 0.0)
    level = int(level_of(np.array(load_frac)))
    waits = [workload(*neighbour_queue(), level, units) for units in start + at]
    np.testing.assert_allclose(waits, expected, atol=1e-6)


def test_processes_count_time_in_the_twins_unit() -> None:
    """The request that they send takes about as long; in a minute even a thousandth would move it by 60 ms."""
    bundle = open_bundle("campus")
    costs, scenario = load_costs(bundle), Scenario(mec_slowdown=3.0, mec_load_frac=0.5)
    others = Neighbours("tcp://127.0.0.1:9", bundle, costs, scenario)
    others.close()
    assert others._service_s == conditions_of([scenario], costs.neighbour_mec_s)["neighbour_s"][0]
    assert costs.mec_s[neighbour_row(costs)] == pytest.approx(costs.neighbour_mec_s, rel=0.1)
