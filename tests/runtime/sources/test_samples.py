"""Frames from elsewhere: files, folders and streams, read by a thread that never holds up the device."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.footage import SHAPE, StreamServer, captured, number_of, write_folder, write_video
from support.live import run_device_here
from support.waiting import PATIENCE_S, wait_until

import mecpilot
from controller.errors import FailureError, UsageError
from runtime.sources.footage import letterbox
from runtime.sources.footage_source import FootageSource, open_source
from runtime.sources.frames import FrameSource
from runtime.testbed.processes import RunningMec, running_mec

NOWHERE = "tcp://127.0.0.1:9"  # nobody listens there: the device answers alone


@pytest.fixture(params=["video", "folder"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Twelve pictures."""
    return write_video(tmp_path / "v.avi", 12) if request.param == "video" else write_folder(tmp_path / "v", 12)


def wait_until_ready(source: FootageSource, count: int) -> None:
    """Until the thread has read so many pictures that nobody took."""
    wait_until(lambda: len(source._ready) >= count, f"the reading of {count} pictures")


def test_a_recording_gives_its_pictures_in_order_on_the_clock_of_the_frames(recording: Path) -> None:
    source = open_source(str(recording), SHAPE)
    wait_until_ready(source, 8)
    times, numbers = zip(*captured(source, 100, fps=200), strict=True)
    assert numbers == tuple(range(12))
    assert np.median(np.diff(times)) == pytest.approx(1 / 200, rel=0.5)
    assert (source.ended, source.failure, len(source._held)) == (True, "", 0)


def test_a_recording_can_begin_later_and_be_asked_for_fewer_frames(recording: Path) -> None:
    source = open_source(str(recording), SHAPE, first=5)
    assert [number for _, number in captured(source, 4, fps=500)] == [5, 6, 7, 8]
    source.close()


def test_a_closed_loop_takes_one_picture_at_a_time(recording: Path) -> None:
    source = open_source(str(recording), SHAPE)
    assert [number for _, number in captured(source, 100, fps=10, closed_loop=True)] == list(range(12))


def test_a_video_can_be_played_by_its_own_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", 30, fps=20)
    source = open_source(str(path), SHAPE, own_times=True)
    assert source.fps == 20
    wait_until_ready(source, 8)
    times, numbers = zip(*captured(source, 100, fps=1), strict=True)
    assert numbers == tuple(range(25)) + tuple(range(5))
    assert np.median(np.diff(times)) == pytest.approx(1 / 20, rel=0.5)


@pytest.mark.parametrize(
    "options", [["--fps", "0"], ["--source-retry", "nan"], ["--source-fps", "25"], ["--source", ""]]
)
def test_options_of_a_source_that_contradict_each_other_are_refused(
    options: list[str], recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main(["device", "--source", str(recording), "--source-fps", "file", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_has_no_times_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which has no times of its own; expected a video"):
        open_source(str(write_folder(tmp_path / "v", 2)), SHAPE, own_times=True)


def test_places_in_a_folder_stay_true_when_a_picture_is_skipped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "v", 6)
    (folder / "002.png").write_bytes(b"no image")
    source = open_source(str(folder), SHAPE, first=1)
    queue = FrameSource(10, 0.001, 1, source.count, 50, False, source.feed)
    queue.start(time.perf_counter())
    end_s = time.perf_counter() + PATIENCE_S
    while not queue.exhausted and time.perf_counter() < end_s:
        queue.offer(time.perf_counter())
        if source.ended:
            break
    frames = list(queue.waiting)
    places = [source.source_index(frame.source_index) for frame in frames]
    assert places == [1, 3, 4, 5]
    assert [number_of(source.picture(frame.source_index)) for frame in frames] == places
    (folder / "004.png").unlink()
    assert [number_of(image) for image in source.replay(places)] == [1, 3, 0, 5]
    for place in places:
        source.release(place)
    assert (source._held, source._number_of) == ({}, {})


def test_pictures_of_a_pipe_can_be_seen_again_when_they_were_kept(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    data = write_video(tmp_path / "v.mkv", 12).read_bytes()
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
    writer.start()
    source = open_source(str(tmp_path / "pipe"), SHAPE, keep=True)
    list(captured(source, 100, fps=500))
    assert [number_of(image) for image in source.replay([2, 5, 7])] == [2, 5, 7]
    source.close()
    writer.join()


def test_a_recording_is_read_only_a_few_pictures_ahead(recording: Path) -> None:
    source = open_source(str(recording), SHAPE)
    wait_until_ready(source, 8)
    assert len(source._ready) == 8
    source.close()
    assert not source._thread.is_alive()


def test_pictures_of_a_recording_can_be_seen_again(recording: Path) -> None:
    source = open_source(str(recording), SHAPE, first=2)
    list(captured(source, 6, fps=500))
    assert [number_of(image) for image in source.replay([3, 5, 5, 7])] == [3, 5, 5, 7]


@pytest.mark.parametrize(
    ("size", "shape", "bars"),
    [
        ((30, 40, 3), (24, 32, 3), None),
        ((48, 32, 3), (24, 32, 3), np.s_[:, :8]),
        ((10, 40, 3), (28, 28), np.s_[:10]),
        ((5, 5, 3), (28, 28), None),
    ],
)
def test_letterboxing_keeps_the_shape_of_things(
    size: tuple[int, ...], shape: tuple[int, ...], bars: tuple[slice, ...] | None
) -> None:
    framed = letterbox(np.full(size, 200, np.uint8), shape)
    assert framed.shape == shape
    if bars is None:
        assert (framed == 200).all()
    else:
        assert (framed[bars] == 0).all()
        assert (framed == 200).any()


# A camera is a stream over a real socket --------------------------------------------------------------------


@pytest.fixture
def camera(request: pytest.FixtureRequest) -> Iterator[StreamServer]:
    server = StreamServer(**request.param)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("camera", [{"pictures": 1000, "fps": 100, "stall": False}], indirect=True)
def test_of_a_faster_camera_only_the_frames_that_are_due_are_taken(camera: StreamServer) -> None:
    source = open_source(camera.url, SHAPE)
    times = [at_s for at_s, _ in captured(source, 12, fps=20)]
    source.close()
    assert np.median(np.diff(times)) == pytest.approx(0.05, rel=0.5)
    assert np.diff(times).min() > 0.02


@pytest.mark.parametrize("camera", [{"pictures": 30, "fps": 50, "stall": False}], indirect=True)
def test_a_camera_that_ends_says_so(camera: StreamServer) -> None:
    source = open_source(camera.url, SHAPE)
    frames = list(captured(source, 1000, fps=1000))
    assert 0 < len(frames) <= 30  # a machine that is held up misses some
    assert "gives no more pictures" in source.failure


@pytest.mark.parametrize("camera", [{"pictures": 1000, "fps": 100, "stall": False}], indirect=True)
def test_pictures_of_a_camera_can_be_seen_again_when_they_were_kept(camera: StreamServer) -> None:
    source = open_source(camera.url, SHAPE, keep=True)
    seen = [number for _, number in captured(source, 8, fps=50)]
    assert [number_of(image) for image in source.replay(list(range(8)))] == seen
    source.close()


@pytest.mark.parametrize("camera", [{"pictures": 20, "fps": 100, "stall": True}], indirect=True)
def test_a_stalled_camera_never_blocks_and_is_given_up(camera: StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.sources.footage_source.STALL_S", 0.3)
    source = open_source(camera.url, SHAPE)
    began_s = time.perf_counter()
    list(captured(source, 1000, fps=100))
    assert time.perf_counter() - began_s < 30
    assert "gave no picture for 0.3 s" in source.failure


# The command ------------------------------------------------------------------------------------------------


def test_nothing_is_assumed_about_frames_without_a_truth(tmp_path: Path) -> None:
    """No MEC either: every frame of the video is answered alone."""
    video = write_video(tmp_path / "v.avi", 12)
    done = run_device_here(NOWHERE, tmp_path / "log", source=video, fps=25, controller="device-only", json="-")
    done.check_no_frame_lost(12)
    assert done.code == 0, done.err
    assert {o["score"] for o in done.outcomes} == {o["utility"] for o in done.outcomes} == {None}
    assert {o["truth"] for o in done.outcomes} == {None}
    assert all(isinstance(o["prediction"], int) for o in done.outcomes if o["status"] != "dropped")
    assert [o["source_index"] for o in sorted(done.outcomes, key=lambda o: o["frame"])] == list(range(12))
    summary = json.loads(done.out)
    assert summary["accuracy"] is None
    assert summary["source"] == {"unreadable": 0, "missing": 0, "losses": 0, "away_s": 0.0}


def test_a_source_that_ends_early_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "v", 5)
    done = run_device_here(NOWHERE, tmp_path / "log", source=folder, fps=50, frames=9, controller="device-only")
    done.check_no_frame_lost(5)
    assert done.code == 1
    assert f"source {folder} ended after 5 frames; 9 were asked for" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("camera", [{"pictures": 1000, "fps": 30, "stall": False}], indirect=True)
def test_a_stream_is_served_over_the_mec(camera: StreamServer, tmp_path: Path) -> None:
    with running_mec("garments") as mec:
        served = _served(mec, camera, tmp_path)
    assert served >= 5


def _served(mec: RunningMec, camera: StreamServer, tmp_path: Path) -> int:
    done = run_device_here(
        mec.endpoint, tmp_path / "log", source=camera.url, frames=20, fps=15, decision={}, deadline_ms=5000
    )
    done.check_no_frame_lost(20)
    assert done.code == 0, done.err
    return done.statuses["ok"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nowhere.mp4", "no such file or folder; expected a video file"),
        ("text.txt", "cannot be opened; expected a video file"),
        ("empty", "holds no images; expected a folder"),
        ("77", "camera 77 cannot be opened"),
        ("rtsp://127.0.0.1:9/stream", "rtsp://127.0.0.1:9/stream cannot be opened"),
        ("rtps://127.0.0.1:9/stream", "cannot read streams of rtps"),
        ("rtsp://me:secret@127.0.0.1:9/stream", "rtsp://***@127.0.0.1:9/stream cannot be opened"),
        ("/dev/video77", "/dev/video77 cannot be opened"),
        ("/dev/null", "a device that is not a camera; expected a video file"),
        ("-", "nothing is piped into standard input"),
    ],
)
def test_a_source_that_cannot_be_opened_is_one_line_and_exit_code_1(
    source: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no video")
    (tmp_path / "empty").mkdir()
    assert mecpilot.main(["device", "--source", source, "--source-retry", "0"]) == 1
    streams = capfd.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    assert expected in streams.err


def test_a_live_source_has_no_later_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    class _Live:
        name, live = "camera 0", True

    monkeypatch.setattr("runtime.sources.footage_source.open_footage", lambda _: _Live())
    with pytest.raises(FailureError, match="got --start 3 with camera 0"):
        open_source("0", SHAPE, first=3)
