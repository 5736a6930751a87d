"""Decision spaces: fixed order, digest, pinning, and one line that tells what would have been legal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import UsageError
from controller.records import Decision
from controller.space import DecisionSpace


def space_of_two_models() -> DecisionSpace:
    """Two models with two exits, each with every cut, codec raw at 0 and u8 inside."""
    decisions, stages = [], []
    for model in ("big", "small"):
        for px in (14, 28):
            for exit_branch, depth in ((0, 1), (1, 3)):
                for cut in range(depth + 1):
                    payload = "none" if cut == depth else ("raw" if cut == 0 else "u8")
                    decisions.append(Decision(model, px, exit_branch, cut, payload))
                    stages.append(depth)
    return DecisionSpace(tuple(decisions), np.array(stages), np.arange(len(stages)))


SPACE = space_of_two_models()
DEFAULT = Decision("big", 28, 1, 0, "raw")


@given(st.integers(0, len(SPACE) - 1))
def test_index_inverts_the_table(row: int) -> None:
    assert SPACE.index(SPACE.decisions[row]) == row


@given(st.lists(st.integers(0, len(SPACE) - 1), min_size=1, unique=True))
def test_a_smaller_space_keeps_its_rows_in_the_given_order(rows: list[int]) -> None:
    smaller = SPACE.take(rows)
    assert smaller.decisions == tuple(SPACE.decisions[row] for row in rows)
    assert (smaller.digest == SPACE.digest) == (rows == list(range(len(SPACE))))


@given(st.integers(0, len(SPACE) - 1), st.sets(st.sampled_from(list(Decision.__slots__))))
def test_a_pinned_decision_has_every_field_that_was_named(row: int, names: set[str]) -> None:
    wanted = {name: getattr(SPACE.decisions[row], name) for name in names}
    pinned = SPACE.decisions[SPACE.pin(wanted, DEFAULT)]
    assert all(getattr(pinned, name) == value for name, value in wanted.items())


def test_pinning_nothing_gives_the_default() -> None:
    assert SPACE.decisions[SPACE.pin({}, DEFAULT)] == DEFAULT


def test_pinning_another_model_keeps_the_rest_of_the_default() -> None:
    assert SPACE.decisions[SPACE.pin({"model": "small"}, DEFAULT)] == Decision("small", 28, 1, 0, "raw")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"model": "huge"}, "expected model among ['big', 'small']"),
        ({"model": "big", "resolution_px": 20}, "expected resolution_px among [14, 28]"),
        ({"exit_branch": 0, "partition_point": 2}, "expected partition_point among [0, 1]"),
        ({"exits": 0}, "unknown decision field 'exits'"),
    ],
)
def test_an_illegal_pin_names_what_would_be_legal(wanted: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        SPACE.pin(wanted, DEFAULT)
    assert message in str(error.value)


def test_device_only_and_full_offload_do_not_overlap() -> None:
    assert not (SPACE.device_only & SPACE.full_offload).any()
    assert SPACE.device_only.sum() == SPACE.full_offload.sum() == 8


def test_an_empty_or_ambiguous_space_is_refused() -> None:
    with pytest.raises(UsageError, match="no decision"):
        DecisionSpace((), np.array([], int), np.array([], int))
    with pytest.raises(UsageError, match="twice"):
        DecisionSpace((DEFAULT, DEFAULT), np.array([3, 3]), np.array([0, 0]))
