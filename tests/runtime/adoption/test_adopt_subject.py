"""Model and footage together, before any long work."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from support.bright_bars import bright_bars_model, bright_bars_video

from runtime.adoption.describing import first_description
from runtime.adoption.request import Request
from runtime.adoption.subject import open_subject


@pytest.mark.parametrize(("fps", "strides"), [(None, (1,)), (5.0, (1, 2, 3, 5))])
def test_pictures_of_a_folder_are_a_stream_only_if_the_user_says_so(
    tmp_path: Path, fps: float | None, strides: tuple[int, ...]
) -> None:
    (tmp_path / "bars.onnx").write_bytes(bright_bars_model().SerializeToString())
    bright_bars_video(tmp_path / "bars.avi", 50)
    video, folder = cv2.VideoCapture(str(tmp_path / "bars.avi")), tmp_path / "pictures"
    folder.mkdir()
    for number in range(50):
        cv2.imwrite(str(folder / f"{number:03d}.png"), video.read()[1])
    video.release()
    request = Request(
        str(tmp_path / "bars.onnx"), tmp_path / "out", "bars", folder, "text", resolutions_px=(128,), fps=fps
    )
    subject = open_subject(request, lambda done, total: None)
    assert subject.footage.fps == (fps or 0.0)
    assert first_description(request, subject).frame_strides == strides
