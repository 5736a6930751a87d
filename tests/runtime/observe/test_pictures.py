"""Pictures of runs: every frame with its answer, its decision and its latency; of every exit, side by side."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.live import run_device_here

import mecpilot
from controller.errors import FailureError
from controller.records import BreakdownMs, Decision, Outcome, Status
from runtime.observe.pictures import (
    CAPTION_HEIGHT_PX,
    PANEL_WIDTH_PX,
    STATUS_COLOURS,
    grid,
    panel,
    write_pictures,
)
from runtime.workloads.drawing import BOX, draw_boxes
from runtime.workloads.registry import get_workload
from runtime.workloads.types import Image

NOWHERE = "tcp://127.0.0.1:9"  # nobody listens there: the device answers alone
FRAME = np.full((30, 40, 3), 128, np.uint8)


def outcome(status: Status = Status.OK, latency_ms: float = 50.0, frame: int = 0, prediction: Any = 3) -> Outcome:
    decision = Decision("net", 28, 1, 2, "u8")
    terms = BreakdownMs()
    return Outcome(frame, frame + 7, status, latency_ms, 100.0, 500, 0.1, None, decision, terms, prediction, None, None)


def draw(image: Image, prediction: Any) -> Image:
    return image.copy()


def replay(indices: Sequence[int]) -> Iterator[Image]:
    return (np.full_like(FRAME, index) for index in indices)


def bar_px(picture: Image, status: Status) -> int:
    """How long the latency bar is."""
    row = picture[-CAPTION_HEIGHT_PX + 48].astype(int)
    return int((np.abs(row - STATUS_COLOURS[status]).sum(axis=1) == 0).sum())


def test_every_status_has_a_colour() -> None:
    assert {status.value for status in Status} <= set(STATUS_COLOURS)


@pytest.mark.parametrize("status", list(Status))
def test_a_panel_is_a_frame_over_its_caption(status: Status) -> None:
    picture = panel(FRAME, outcome(status), draw)
    assert picture.shape == (PANEL_WIDTH_PX * 3 // 4 + CAPTION_HEIGHT_PX, PANEL_WIDTH_PX, 3)
    assert (picture[: -CAPTION_HEIGHT_PX - 1] == 128).all()
    assert tuple(picture[-CAPTION_HEIGHT_PX + 1, 5]) == STATUS_COLOURS[status]


def test_the_bar_is_as_long_as_the_latency() -> None:
    half, full = (bar_px(panel(FRAME, outcome(latency_ms=ms), draw), Status.OK) for ms in (50.0, 100.0))
    assert full == pytest.approx(2 * half, abs=3)
    endless = panel(FRAME, outcome(Status.LATE, 9e9), draw)
    assert bar_px(endless, Status.LATE) < PANEL_WIDTH_PX
    unanswered = panel(FRAME, outcome(Status.DROPPED, prediction=None), draw)
    assert bar_px(unanswered, Status.DROPPED) == 0


def test_a_strip_shows_frames_from_all_over_the_run(tmp_path: Path) -> None:
    run = [outcome(frame=number) for number in range(100)]
    write_pictures(tmp_path / "s.png", run[::-1], replay, draw, 10)
    strip = cv2.imread(str(tmp_path / "s.png"))
    assert strip is not None
    height, width = strip.shape[0] // 2, strip.shape[1] // 3
    shown = [int(strip[r * height + height // 3, c * width + width // 2, 0]) for r in range(2) for c in range(3)]
    assert shown == sorted(shown)
    assert shown[0] < 20
    assert shown[-1] > 90


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_has_every_frame_in_order(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"v{suffix}"
    write_pictures(path, [outcome(frame=number) for number in (40, 0, 20, 60)], replay, draw, 10)
    capture = cv2.VideoCapture(str(path))
    means = []
    while (read := capture.read())[0]:
        means.append(float(read[1][100:200, 100:200].mean()))
    assert means == pytest.approx([7, 27, 47, 67], abs=5)
    assert capture.get(cv2.CAP_PROP_FPS) == 10


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("name", ["v.mp4", "v.avi", "s.png"])
def test_what_could_not_be_written_is_one_line_and_no_file(name: str, share: float, tmp_path: Path) -> None:
    path, noise = tmp_path / name, np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)

    def write() -> None:
        write_pictures(path, [outcome(frame=i) for i in range(20)], lambda _: (noise for _ in range(20)), draw, 10)

    write()
    whole = path.read_bytes()
    with (
        files_of_at_most(int(share * len(whole))),
        pytest.raises(FailureError, match=f"cannot write {path}: ") as raised,
    ):
        write()
    assert "\n" not in str(raised.value)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == whole  # the one from before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk_is_exit_code_1_and_no_file(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        video = tmp_path / "v.mp4"
        done = run_device_here(NOWHERE, Path(os.devnull), frames=8, fps=25, controller="device-only", video=video)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert done.code == 1
    assert f"cannot write {video}: " in done.err
    assert "Traceback" not in done.err


def test_without_a_frame_there_is_no_picture(tmp_path: Path) -> None:
    for name in ("s.png", "v.avi"):
        with pytest.raises(FailureError, match="no frame to draw"):
            write_pictures(tmp_path / name, [], replay, draw, 10)


def test_panels_stand_in_rows() -> None:
    assert grid([FRAME] * 5, 3).shape == (2 * 40 + 10, 3 * 50 + 10, 3)
    assert grid([FRAME] * 2, 3).shape == (40 + 10, 2 * 50 + 10, 3)


def test_boxes_stand_where_the_people_are() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    drawn = draw_boxes(frame, [[20.2, 30.0, 40.0, 50.0, 0.9], [-10.0, -10.0, 500.0, 20.0, 0.5]])
    assert not frame.any()
    assert tuple(drawn[30, 40]) == tuple(drawn[80, 40]) == tuple(drawn[50, 20]) == tuple(drawn[50, 60]) == BOX
    assert not drawn[40:70, 30:50].any()


def test_garments_are_drawn_with_the_name_of_the_class() -> None:
    work = get_workload("garments")
    image, truth = work.sample(0)
    alone, named, other = (work.draw(image, answer) for answer in (None, truth, (truth + 1) % 10))
    assert alone.shape == named.shape == (280, 280, 3)
    assert (alone[:240] == named[:240]).all()
    assert (alone != named).any()
    assert (named != other).any()


# The commands -----------------------------------------------------------------------------------------------


def test_a_device_leaves_a_video_of_its_run(tmp_path: Path) -> None:
    done = run_device_here(
        NOWHERE, tmp_path / "log", frames=8, fps=25, controller="device-only", video=tmp_path / "v.avi"
    )
    assert done.code == 0, done.err
    assert cv2.VideoCapture(str(tmp_path / "v.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 8


def test_every_exit_is_drawn_for_a_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "exits.png"
    assert (
        mecpilot.main(["models", "show", "garments", "--draw", "3", "--resolution-px", "20", "--out", str(path)]) == 0
    )
    assert capsys.readouterr().out.strip() == str(path)
    sheet = cv2.imread(str(path))
    assert sheet is not None
    assert sheet.shape[1] > 5 * 400


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["device", "--video", "v.gif"], "v.gif; expected a name that ends in one of: .mp4 .avi .png"),
        (["device", "--video", "nowhere/v.avi"], "expected a file in a folder that exists"),
        (["models", "show", "garments", "--draw", "10000"], "not in the test part; expected 0 to 9999"),
        (["models", "show", "garments", "--draw", "1", "--resolution-px", "3"], "expected one of: 28, 20, 14"),
        (["models", "show", "garments", "--draw", "1", "--out", "v.txt"], "expected a name that ends in .png"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_one_line_and_exit_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    assert expected in streams.err
