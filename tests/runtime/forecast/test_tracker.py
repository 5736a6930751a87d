"""The tracker of boxes: it follows what moves steadily, tells objects apart, and shows nothing that was not seen."""

from __future__ import annotations

import numpy as np
import pytest

from controller.forecast import Shown
from runtime.forecast.tracker import BoxTracker
from runtime.forecast.tracks import MAX_GAP, Tracks
from runtime.workloads.base import forecaster_of
from runtime.workloads.boxes import count_matches
from runtime.workloads.registry import get_workload

PICTURE = (768, 576)
Box = list[float]


def walker(frame: int, at: tuple[float, float] = (100.0, 100.0), speed: tuple[float, float] = (6.0, -1.0)) -> Box:
    """A person of 30 x 80 pixels who moves steadily."""
    return [at[0] + frame * speed[0], at[1] + frame * speed[1], 30.0, 80.0, 0.9]


def added(tracker: BoxTracker, frame: int, *boxes: Box) -> Tracks:
    tracks = tracker.add(frame, list(boxes))
    assert tracks is not None
    return tracks


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_steady_motion_is_followed_after_a_few_answers(stride: int) -> None:
    tracker = BoxTracker(PICTURE)
    for frame in range(0, 6 * stride, stride):
        tracks = added(tracker, frame, walker(frame))
    for later in range(frame + 1, frame + MAX_GAP + 1):
        (box,), ids = tracks.at(later)
        assert ids == (1,)
        assert box == pytest.approx(walker(later), abs=6.0)  # pixels; standing still would be off by up to 60
    assert tracks.at(frame + 1).prediction[0] == pytest.approx(walker(frame + 1), abs=1.0)


@pytest.mark.parametrize("stride", [1, 3])
def test_the_speed_counts_in_heights_per_frame_once_an_object_was_seen_twice(stride: int) -> None:
    tracker, speed = BoxTracker(PICTURE), float(np.hypot(6, 1)) / 80
    assert added(tracker, 0, walker(0)).speed is None
    for frame in range(stride, 8 * stride, stride):
        tracks = added(tracker, frame, walker(frame))
    assert tracks.speed == pytest.approx(speed, rel=0.05)
    newcomer = walker(0, (500.0, 400.0))
    assert added(tracker, frame + stride, walker(frame + stride), newcomer).speed == pytest.approx(speed, rel=0.05)
    assert added(tracker, frame + 2 * stride).speed == 0.0


def test_what_stands_still_stays_where_it_is() -> None:
    tracker, rng = BoxTracker(PICTURE), np.random.default_rng(0)
    for frame in range(20):
        shaking = np.add(walker(0), [*rng.normal(0, 1, 2), 0, 0, 0]).tolist()
        tracks = added(tracker, frame, shaking)
    assert tracks.at(29).prediction[0] == pytest.approx(walker(0), abs=10.0)
    assert tracks.track_ids == (1,)


def test_two_people_who_cross_keep_their_numbers_though_one_is_hidden_meanwhile() -> None:
    tracker = BoxTracker(PICTURE)
    for frame in range(30):
        left = walker(frame, (100, 200), (6.0, 0.0))
        right = walker(frame, (280, 205), (-6.0, 0.0))  # they meet at frame 15
        boxes = [left] if 13 <= frame <= 17 else [right, left]
        tracks = added(tracker, frame, *boxes)
        if frame == 0:
            of_right, of_left = tracks.track_ids
    assert tracks.track_ids == (of_right, of_left)
    shown = dict(zip(tracks.at(30).track_ids, tracks.at(30).prediction, strict=True))
    assert shown[of_left][0] > shown[of_right][0]


def test_one_who_is_missed_for_a_moment_is_shown_on_but_not_for_ever() -> None:
    tracker, other = BoxTracker(PICTURE), walker(0, (500, 300), (0.0, 0.0))
    for frame in range(5):
        added(tracker, frame, walker(frame), other)
    shown = [len(added(tracker, frame, other).at(frame + 1).prediction) for frame in range(5, 25)]
    assert shown == [2] * (MAX_GAP - 1) + [1] * (21 - MAX_GAP)


def test_one_who_was_seen_once_is_not_shown_on() -> None:
    tracker, other = BoxTracker(PICTURE), walker(0, (500, 300), (0.0, 0.0))
    added(tracker, 0, walker(0), other)
    assert len(added(tracker, 1, other).at(2).prediction) == 1


def test_an_answer_without_boxes_says_that_nobody_is_there() -> None:
    tracker = BoxTracker(PICTURE)
    assert added(tracker, 0).at(1) == Shown([], ())
    for frame in range(1, 5):
        before = added(tracker, frame, walker(frame))
    assert added(tracker, 5).at(6) == Shown([], ())
    assert added(tracker, 6, walker(6)).track_ids == before.track_ids  # nevertheless it is the same person


def test_after_a_cut_between_two_scenes_nothing_of_the_first_is_left() -> None:
    tracker = BoxTracker(PICTURE)
    first = [walker(0, (100.0 * place, 50.0), (0.0, 0.0)) for place in range(6)]
    for frame in range(5):
        old = added(tracker, frame, *first).track_ids
    second = [walker(0, (100.0 * place + 50.0, 400.0), (0.0, 0.0)) for place in range(5)]
    tracks = added(tracker, 5, *second)
    assert tracks.at(6).prediction == [pytest.approx(box) for box in second]
    assert not set(old) & set(tracks.at(6).track_ids)


def test_one_who_leaves_the_picture_is_cut_off_at_its_edge_and_then_gone() -> None:
    tracker = BoxTracker(PICTURE)
    for frame in range(6):
        tracks = added(tracker, frame, walker(frame, (650.0, 300.0), (15.0, 0.0)), walker(0, speed=(0.0, 0.0)))
    lefts = [[x for x, *_ in tracks.at(later).prediction if x > 400] for later in range(6, 12)]
    assert [len(found) for found in lefts] == [1, 0, 0, 0, 0, 0]  # its middle passes the edge
    x, _, w, _, _ = next(box for box in tracks.at(6).prediction if box[0] > 400)
    assert x + w == pytest.approx(768.0)


def test_an_answer_that_comes_after_a_newer_one_changes_nothing() -> None:
    tracker = BoxTracker(PICTURE)
    for frame in range(0, 8, 2):
        before = added(tracker, frame, walker(frame))
    assert tracker.add(5, [walker(5, (300.0, 300.0))]) is None
    assert tracker.add(6, [walker(6)]) is None
    assert added(tracker, 8, walker(8)).track_ids == before.track_ids


def test_after_a_long_time_without_answers_everything_is_new() -> None:
    tracker = BoxTracker(PICTURE)
    for frame in range(5):
        added(tracker, frame, walker(0))
    assert added(tracker, 6 + MAX_GAP, walker(0)).track_ids == (2,)


def test_a_forecast_that_is_kept_stays_what_it_was_and_ends_where_boxes_stand_still() -> None:
    tracker = BoxTracker(PICTURE)
    for frame in range(5):
        kept = added(tracker, frame, walker(frame))
    before = kept.at(6)
    for frame in range(5, 20):
        added(tracker, frame, walker(frame, speed=(2.0, 3.0)))
    assert kept.at(6) == before
    assert kept.at(4 + MAX_GAP) == kept.at(500)


def test_a_crowd_of_200_is_followed() -> None:
    tracker, rng = BoxTracker((4000, 3000)), np.random.default_rng(1)
    speed = rng.normal(0, 3, (200, 2))
    starts = np.array([(200 + 180 * (i % 20), 200 + 260 * (i // 20)) for i in range(200)])
    for frame in range(8):
        boxes = [[*(start + frame * way), 30.0, 80.0, 0.5] for start, way in zip(starts, speed, strict=True)]
        tracks = added(tracker, frame, *boxes)
    assert tracks.track_ids == tuple(range(1, 201))
    assert len(tracks.at(9).prediction) == 200


def test_people_of_campus_are_where_the_forecast_says() -> None:
    """The labels of every fifth frame of the validation split stand for the answers."""
    work = get_workload("campus")
    truths = [work.labels[number] for number in range(424, 530)]  # type: ignore[attr-defined]
    tracker, still, moved = forecaster_of(work), [], []
    for frame in range(0, len(truths) - 4, 5):
        forecast = tracker.add(frame, truths[frame])
        assert forecast is not None
        still.append(count_matches(truths[frame], truths[frame + 4]).f1)
        moved.append(count_matches(forecast.at(frame + 4).prediction, truths[frame + 4]).f1)
    assert np.mean(moved) > 0.85 > 0.6 > np.mean(still)
