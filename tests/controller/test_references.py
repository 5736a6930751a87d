"""Bytes by the age of the reference: which column holds an age, and what is left of a table when rows are taken."""

from __future__ import annotations

import dataclasses

import numpy as np
from support.synthetic import make_costs

from controller.references import NO_STREAM, ReferenceCosts

AGES = np.array([1, 2, 3, 5, 8])


def _references(stream: list[int]) -> ReferenceCosts:
    count = len(stream)
    by_age = np.arange(6 * count, dtype=float).reshape(count, 6)
    return ReferenceCosts(AGES, by_age, np.array(stream), np.array([number == 1 for number in stream]))


def test_an_age_that_was_not_recorded_counts_as_the_next_older_one() -> None:
    ages = np.array([[0, 1, 2, 3], [4, 5, 7, 100]])
    assert _references([0]).column(ages).tolist() == [[0, 1, 2, 3], [4, 4, 5, 5]]


def test_rows_that_are_taken_keep_their_bytes_and_number_their_streams_anew() -> None:
    taken = _references([0, NO_STREAM, 1, 2, 2]).take(np.array([4, 1, 2]))
    assert taken.stream.tolist() == [1, NO_STREAM, 0]
    assert taken.chained.tolist() == [False, False, True]
    assert taken.payload_bytes[:, 0].tolist() == [24.0, 6.0, 12.0]
    assert taken.streams == 2
    assert _references([NO_STREAM]).streams == 0


def test_other_devices_send_payloads_that_stand_alone() -> None:
    costs = make_costs()
    offloads = np.flatnonzero(costs.space.full_offload)
    stream = np.full(len(costs), NO_STREAM)
    stream[offloads[0]] = 0
    references = ReferenceCosts(AGES, np.zeros((len(costs), 6)), stream, np.zeros(len(costs), np.bool_))
    with_stream = dataclasses.replace(costs, references=references)
    assert np.flatnonzero(with_stream.neighbour_rows).tolist() == offloads[1:].tolist()


def test_without_references_every_payload_stands_alone() -> None:
    costs = make_costs()
    assert costs.references is None
    assert len(costs.ages) == 0
    assert set(costs.stream.tolist()) == {NO_STREAM}
    assert not costs.chained.any()
    np.testing.assert_array_equal(costs.payload_bytes_by_age[:, 0], costs.payload_bytes)
    assert costs.take(np.array([0])).references is None
