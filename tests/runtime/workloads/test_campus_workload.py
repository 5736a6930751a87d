"""The campus workload: its video is found and verified, its labels are consistent, its boxes are scored as stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from controller.errors import FailureError
from runtime.workloads import datasets as data
from runtime.workloads.boxes import Counts, count_matches, iou, iou_of_boxes, pooled
from runtime.workloads.campus.labels import LABELS_PATH
from runtime.workloads.campus.teacher import Heights, background, people_in, split
from runtime.workloads.campus.tracks import LONGEST_GAP, link
from runtime.workloads.campus.workload import FRAMES, HEIGHT_PX, SPLITS, WIDTH_PX, Campus
from runtime.workloads.datasets import VIDEO_NAME, VIDEO_SHA256, find_campus_video
from runtime.workloads.registry import WORKLOADS, get_workload


@pytest.fixture(scope="module")
def campus() -> Campus:
    return Campus()


def test_splits_are_consecutive_frames_and_cover_the_video(campus: Campus) -> None:
    parts = ("train", "validation", "test")
    numbers = [campus.source_index(i, split) for split in parts for i in range(campus.sample_count(split))]
    assert numbers == list(range(FRAMES)) == list(SPLITS["all"])
    assert campus.source_index(0) == 530
    assert campus.source_index(265) == 530  # the video starts over


@pytest.mark.timeout(200)
def test_frames_and_truth_belong_together_wherever_they_are_asked_for(campus: Campus) -> None:
    frame, truth = campus.sample(3, "validation")
    assert frame.shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, campus.video_frame(427))
    assert truth == campus.labels[427]
    assert campus.score(truth, truth) == 1.0


def test_shipped_labels_are_small_whole_boxes_inside_the_frame_and_of_this_video(campus: Campus) -> None:
    labels = campus.labels
    boxes = np.array([box for frame in labels for box in frame])
    assert len(labels) == FRAMES
    assert LABELS_PATH.stat().st_size < 300_000
    assert str(np.load(LABELS_PATH)["video_sha256"]) == VIDEO_SHA256
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, 0] + boxes[:, 2]).max() <= WIDTH_PX + 1
    assert (boxes[:, 1] + boxes[:, 3]).max() <= HEIGHT_PX + 1
    assert 5 < len(boxes) / FRAMES < 8


@pytest.mark.timeout(200)
def test_the_teacher_sees_in_single_frames_most_of_what_the_labels_say(campus: Campus) -> None:
    """Without the linking over time, on a background of fewer frames."""
    frames = campus.frames("validation")
    empty = background(frames)
    counts = []
    for row in range(0, len(frames), 21):
        found = [[x0, y0, x1 - x0, y1 - y0, 1.0] for x0, y0, x1, y1 in people_in(frames[row], empty, Heights())]
        counts.append(count_matches(found, campus.labels[424 + row]))
    assert pooled(counts).f1 > 0.85


def test_two_heads_apart_are_two_people_and_one_silhouette_stays_one() -> None:
    part = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    part[204:270, 100:124] = 1  # body
    part[194:204, 108:116] = 1  # head
    one = np.array([100.0, 194.0, 124.0, 270.0])
    assert [box.tolist() for box in split(one, part, Heights())] == [one.tolist()]
    part[208:274, 122:146] = 1
    part[198:208, 130:138] = 1
    group = list(split(np.array([100.0, 194.0, 146.0, 274.0]), part, Heights()))
    assert len(group) == 2
    wanted = [[100, 194, 24, 76, 1], [122, 198, 24, 76, 1]]
    assert count_matches([[a, b, c - a, d - b, 1] for a, b, c, d in group], wanted, 0.7).right == 2


def test_linking_fills_gaps_corrects_outliers_and_drops_flicker() -> None:
    walk = [np.array([[10.0 + 2 * i, 100, 40 + 2 * i, 190]]) for i in range(40)]
    nothing = np.zeros((0, 4))
    found = [nothing if 15 <= i < 15 + LONGEST_GAP - 8 else box for i, box in enumerate(walk)]
    found[5] = walk[5] + (0, 0, 0, 40)  # merged with somebody below
    found[8] = np.concatenate((walk[8], [[500.0, 100, 530, 190]]))  # seen once
    (track,) = link(found, lambda _: 90.0)
    assert track.frames == list(range(40))
    assert np.abs(np.array(track.boxes) - np.concatenate(walk)).max() < 3.0


def test_iou_and_counts_of_known_boxes() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[5.0, 0, 10, 10], [20, 20, 5, 5]])
    assert iou_of_boxes(a, b)[0] == pytest.approx([1 / 3, 0.0])
    corners = [np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1) for boxes in (a, b)]
    assert np.array_equal(iou(*corners), iou_of_boxes(a, b))
    assert count_matches([], []).f1 == 1.0
    assert count_matches([[0, 0, 10, 10, 1]], []) == Counts(0, 1, 0)
    assert count_matches([], [[0, 0, 10, 10, 1]]).f1 == 0.0


def test_a_person_is_found_once_and_order_does_not_matter() -> None:
    truth = [[0, 0, 10, 20, 1.0], [100, 0, 10, 20, 1.0]]
    boxes = [[1, 0, 10, 20, 0.9], [0, 1, 10, 20, 0.8], [100, 2, 10, 20, 0.7]]
    assert count_matches(boxes, truth) == Counts(2, 1, 0)
    assert count_matches(boxes[::-1], truth[::-1]) == Counts(2, 1, 0)
    assert pooled([Counts(1, 0, 1), Counts(2, 1, 0)]) == Counts(3, 1, 1)


def test_answers_are_boxes_in_the_original_frame_and_confidence_is_the_expected_f1(campus: Campus) -> None:
    outputs = np.full((2, 32, 5), -12.0, np.float32)
    outputs[..., :4] = (0.0, 0.0, 0.1, 0.1)
    outputs[0, 0] = (0.25, 0.5, 0.5, 0.75, 3.0)
    first, second = campus.answers(outputs, 256)
    assert first == [[192.0, 288.0, 192.0, 144.0, pytest.approx(0.9526, abs=1e-4)]]
    assert second == []
    confidence = campus.confidence(outputs, 1.0)
    assert confidence[0] == pytest.approx(2 * 0.9526 / 1.9526, abs=1e-3)
    assert confidence[1] > 0.99


@pytest.mark.parametrize("px", [768, 512, 384, 256])
def test_inputs_are_colour_planes_of_three_quarters_the_width(campus: Campus, px: int) -> None:
    frames = np.full((2, HEIGHT_PX, WIDTH_PX, 3), 128, np.uint8)
    frames[..., 2] = 192
    inputs = campus.to_input(np.stack([campus.resize(frame, px) for frame in frames]))
    assert inputs.shape == (2, 3, px * 3 // 4, px)
    assert inputs[0, :, 0, 0].tolist() == [0.0, 0.0, 1.0]
    assert inputs.dtype == torch.float32


def test_every_workload_states_its_stream_and_its_conditions() -> None:
    for name in WORKLOADS:
        workload = get_workload(name)
        assert workload.name == name
        assert workload.frame_strides[0] == 1
        low, high = workload.scenario_range().fps
        assert workload.fps == 0 or low == high == workload.fps


def test_when_no_way_to_the_video_works_one_line_names_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "VIDEO_DIR", tmp_path / "system")
    monkeypatch.setattr(data, "VIDEO_URL", (tmp_path / "upstream").as_uri() + "/")
    monkeypatch.setenv("MECPILOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / VIDEO_NAME).write_bytes(b"another video")
    with pytest.raises(FailureError) as caught:
        find_campus_video(tmp_path / "mine")
    message = str(caught.value)
    assert "\n" not in message
    positions = [message.index(way) for way in ("given directory", "system", "cache", "Debian package", "upstream")]
    assert positions == sorted(positions)
    assert "vtest.avi has sha256" in message
    assert "--data" in message


def test_the_video_is_kept_in_the_cache_once_fetched(
    campus: Campus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published = campus.video.parent
    monkeypatch.setattr(data, "VIDEO_DIR", tmp_path / "system")
    monkeypatch.setattr(data, "VIDEO_URL", published.as_uri() + "/")
    monkeypatch.setenv("MECPILOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_campus_video() == tmp_path / "cache" / "campus" / VIDEO_NAME
    monkeypatch.setattr(data, "VIDEO_URL", "file:///nowhere/")
    assert find_campus_video().is_file()
