"""Footage is looked at before it is adopted."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from support.adopted import SHAPE, picture_at, write_video

from controller.errors import UsageError
from runtime.adoption.truth.footage import by_time_of, check_found, look_at

FRAMES = 60


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("footage") / "site.avi", FRAMES)


def test_frames_of_a_video_are_counted(video: Path) -> None:
    decoded: list[int] = []
    found = look_at(video, advance=decoded.append)
    assert (found.footage.frames, found.footage.fps, found.footage.step) == (FRAMES, 10.0, 1)
    assert found.frame_shape == SHAPE
    assert sum(decoded) == FRAMES
    assert found.name_of(7) == "7"
    assert found.footage.size_bytes == video.stat().st_size


def test_a_fast_video_is_thinned_out_and_a_long_one_cut(tmp_path: Path) -> None:
    found = look_at(write_video(tmp_path / "fast.avi", 121), fps=5.0)
    assert (found.footage.frames, found.footage.fps, found.footage.step) == (61, 5.0, 2)
    assert look_at(tmp_path / "fast.avi", most_frames=50).footage.frames == 50


def test_a_folder_of_pictures_has_no_times(tmp_path: Path) -> None:
    for number in range(FRAMES):
        cv2.imwrite(str(tmp_path / f"p{number}.png"), picture_at(number % 20))
    found = look_at(tmp_path)
    assert (found.footage.frames, found.footage.fps) == (FRAMES, 0.0)
    assert found.name_of(10) == "p10"
    assert look_at(tmp_path, fps=2.0).footage.fps == 2.0


def test_footage_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no such file"):
        look_at(tmp_path / "missing.mp4")
    with pytest.raises(UsageError, match="cannot be decoded"):
        look_at(tmp_path / "text.mp4")
    with pytest.raises(UsageError, match="holds no pictures"):
        look_at(tmp_path / "empty")
    with pytest.raises(UsageError, match="has 20 frames; expected 48 or more"):
        look_at(write_video(tmp_path / "short.avi", 20))


def test_splits_without_detections_are_refused() -> None:
    splits = by_time_of(60, "x")
    box = [0.0, 0.0, 4.0, 4.0, 1.0, 0]
    check_found([[box]] * 60, splits, "the model")
    with pytest.raises(UsageError, match="found nothing in 60 frames"):
        check_found([[]] * 60, splits, "the model")
    with pytest.raises(UsageError, match="found nothing in the test frames"):
        check_found([[box]] * 30 + [[box]] + [[]] * 29, splits, "the model")
