"""Regions of interest: a window lies where something moves, and its answer leaves the rest of an earlier one alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import UsageError
from controller.forecast import Shown
from controller.records import Decision
from controller.regions import Aim, Window, changed_blocks, check_crop, joined, placed, window_of
from controller.reuse import PastAnswer
from controller.space import DecisionSpace

PICTURE = (768, 576)
QUIET = np.full((72, 96), 90, np.uint8)


def with_people(*places: tuple[int, int]) -> np.ndarray:
    """A small copy with a bright block of 6 x 3 at each (line, column)."""
    small = QUIET.copy()
    for line, column in places:
        small[line : line + 6, column : column + 3] = 200
    return small


def box(x: float, y: float, score: float = 0.9) -> list[float]:
    return [x, y, 30.0, 80.0, score]


@pytest.mark.parametrize("crop", [0.25, 0.5, 0.625, 0.75, 0.9])
def test_the_window_holds_what_moved(crop: float) -> None:
    window = window_of(with_people((20, 70)), with_people((21, 72)), crop, PICTURE)
    assert window is not None
    assert (window.width, window.height) == (round(768 * crop), round(576 * crop))
    assert window.x <= 70 * 8
    assert window.x + window.width >= 75 * 8
    assert window.y <= 20 * 8
    assert window.y + window.height >= 27 * 8


@given(
    st.lists(st.tuples(st.integers(0, 66), st.integers(0, 93)), min_size=1, max_size=6),
    st.sampled_from([0.25, 0.3, 0.625, 0.75, 0.9]),
)
def test_no_window_of_its_size_holds_more_change(places: list[tuple[int, int]], crop: float) -> None:
    earlier, now = QUIET, with_people(*places)
    window, changed = window_of(earlier, now, crop, PICTURE), changed_blocks(earlier, now)
    assert window is not None
    assert changed is not None
    assert 0 <= window.x <= 768 - window.width
    assert 0 <= window.y <= 576 - window.height
    high, wide = round(72 * crop), round(96 * crop)
    counts = np.lib.stride_tricks.sliding_window_view(changed, (high, wide)).sum(axis=(2, 3))
    assert counts[round(window.y / 8), round(window.x / 8)] == counts.max()


def test_among_equal_windows_the_middle_one_is_taken() -> None:
    window = window_of(QUIET, with_people((33, 46)), 0.5, PICTURE)
    assert window is not None
    assert abs(window.x + window.width / 2 - 47.5 * 8) <= 8
    assert abs(window.y + window.height / 2 - 36 * 8) <= 8


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        (QUIET, QUIET),  # nothing moves
        (QUIET, QUIET + 40),  # the light was switched on
        (
            np.tile(np.arange(96, dtype=np.uint8) * 2, (72, 1)),
            np.tile(np.arange(96, dtype=np.uint8)[::-1] * 2, (72, 1)),
        ),
        (QUIET, QUIET[:60]),  # another size
        (QUIET, np.full(QUIET.shape, np.nan)),
        (np.full(QUIET.shape, np.inf), QUIET),
    ],
    ids=["still", "light", "camera moved", "size", "nan", "inf"],
)
def test_the_whole_picture_is_run_where_a_window_would_say_nothing(earlier: np.ndarray, now: np.ndarray) -> None:
    assert window_of(earlier, now, 0.75, PICTURE) is None


def test_noise_of_a_camera_is_no_motion() -> None:
    rng = np.random.default_rng(0)
    one, other = (np.clip(QUIET + rng.normal(0, 6, QUIET.shape), 0, 255).astype(np.uint8) for _ in range(2))
    assert window_of(one, other, 0.5, PICTURE) is None


def test_boxes_of_a_window_are_moved_into_the_picture() -> None:
    window = Window(96, 72, 576, 432)
    found = placed([[0.0, 0.0, 768.0, 576.0, 0.9], [100.0, 200.0, 40.0, 80.0, 0.5]], window, PICTURE)
    assert found.tolist() == [[96.0, 72.0, 576.0, 432.0, 0.9], [171.0, 222.0, 30.0, 60.0, 0.5]]
    assert placed([], window, PICTURE).shape == (0, 5)


WINDOW = Window(200, 100, 384, 288)  # inside the picture on all sides


@pytest.mark.parametrize(
    ("seen", "earlier", "used", "stays"),
    [
        ([box(300, 200)], [box(290, 200), box(20, 20)], [0], [1]),  # replaced inside, kept outside
        ([], [box(300, 200), box(20, 20)], [], [1]),  # gone
        ([box(205, 200), box(200, 200)], [], [0], []),  # the second is cut off by the window's left edge
        ([box(200, 200)], [box(204, 202)], [], [0]),  # cut off now: the earlier one stays
        ([box(206, 200)], [box(196, 200)], [0], []),  # walked into the window: found whole, so not kept twice
        ([], [box(190, 200)], [], [0]),  # across the edge: not the window's to say
        ([], [], [], []),
    ],
)
def test_a_window_answers_for_what_lies_in_it_entirely(
    seen: list[list[float]], earlier: list[list[float]], used: list[int], stays: list[int]
) -> None:
    shapes = (np.array(boxes).reshape(-1, 5) for boxes in (seen, earlier))
    got_used, got_stays = joined(*shapes, WINDOW, PICTURE)
    assert (got_used.tolist(), got_stays.tolist()) == (used, stays)


def test_the_edge_of_the_picture_cuts_nothing_off() -> None:
    corner = Window(0, 0, 384, 288)
    used, stays = joined(np.array([box(0, 0)]), np.array([box(0, 2)]), corner, PICTURE)
    assert (used.tolist(), stays.tolist()) == ([0], [])


class _Moved:
    track_ids = (7, 8)

    def at(self, frame: int) -> Shown:
        return Shown([box(300, 200 + frame), box(20, 20 + frame)], (7, 8))


def test_an_answer_is_completed_with_earlier_boxes_as_they_are_expected_now() -> None:
    aim = Aim(WINDOW, PastAnswer(3, 0.0, [], _Moved()), PICTURE)
    whole = aim.completed([], frame=5)
    assert whole == ([box(20, 25)], 0, (8,))
    still = Aim(WINDOW, PastAnswer(3, 0.0, [box(20, 20)]), PICTURE).completed([[300.0, 200.0, 40.0, 80.0, 0.8]], 5)
    assert still.prediction == [[350.0, 200.0, 20.0, 40.0, 0.8], box(20, 20)]
    assert (still.seen, still.kept) == (1, ())


@pytest.mark.parametrize("crop", [0.0, 1.0, 0.1, -0.5, float("nan"), "half", True, None])
def test_what_is_no_crop_is_refused(crop: object) -> None:
    with pytest.raises(UsageError, match=r"^crop .*expected a share of the picture's width from 0\.25 to 0\.9"):
        check_crop(crop)


def test_a_crop_shows_in_the_digest_only_where_there_is_one() -> None:
    plain = Decision("nano", 256, 2, 0, "jpeg30")
    one = DecisionSpace((plain,), np.array([4]), np.array([0]))
    cropped = DecisionSpace((replace(plain, crop=0.75),), np.array([4]), np.array([0]))
    assert one.digest != cropped.digest
    assert replace(plain, crop=0.75).whole is not plain
    assert replace(plain, crop=0.75).whole == plain
    assert plain.whole is plain
    assert replace(plain, crop=0.75).label.endswith("crop 0.75")
    assert (cropped.cropped.tolist(), cropped.plain.tolist()) == ([True], [False])
