"""A camera or stream that drops, stalls or is not there yet: it is opened again, and frames go on."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.footage import SHAPE, StreamServer, captured, write_video
from support.live import ROOT
from support.waiting import PATIENCE_S, wait_until

from runtime.sources.footage_source import FootageSource, open_source


@contextmanager
def serving(port: int, pictures: int = 1000, stall: bool = False) -> Iterator[StreamServer]:
    """A camera at a port, 50 pictures per second."""
    server = StreamServer(pictures, 50, stall, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def url_of(port: int) -> str:
    return f"http://me:secret@127.0.0.1:{port}/stream.mjpg?token=secret"


class Run:
    """Frames of a source, taken in a thread until there are enough."""

    def __init__(self, port: int, frames: int, retry_s: float = 30.0, fps: float = 20.0) -> None:
        self.lines: list[str] = []
        self.source: FootageSource = open_source(url_of(port), SHAPE, retry_s=retry_s, log=self.lines.append)
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._take, args=(frames, fps))
        self._thread.start()

    def _take(self, frames: int, fps: float) -> None:
        self.times += (at_s for at_s, _ in captured(self.source, frames, fps))

    def wait_for_line(self, pattern: str) -> None:
        wait_until(lambda: any(re.search(pattern, line) for line in self.lines), f"a line {pattern!r}")

    def finish(self) -> None:
        self._thread.join(PATIENCE_S)
        self.source.close()
        assert not self._thread.is_alive()
        assert not any("secret" in line for line in [*self.lines, self.source.name, self.source.failure])


def test_a_stream_that_is_not_there_yet_is_waited_for(port: int) -> None:
    run = Run(port, 10)
    run.wait_for_line("cannot be opened; trying again for 30 s")
    with serving(port):
        run.finish()
    assert len(run.times) == 10
    assert run.source.failure == ""
    assert re.search(r"is available after \d+\.\d s", run.lines[1])
    assert run.source.notes()["losses"] == 0


def test_a_stream_that_ends_is_opened_again_and_frames_go_on(port: int) -> None:
    with serving(port, pictures=25):
        run = Run(port, 30)
        run.wait_for_line("gives no more pictures; trying again for 30 s")
    with serving(port):
        run.finish()
    assert len(run.times) == 30
    assert run.source.notes()["losses"] >= 1
    assert run.source.notes()["away_s"] > 0.1
    assert any(re.search(r"is back after \d+\.\d s", line) for line in run.lines)


def test_frames_that_were_never_captured_do_not_exist_and_the_clock_goes_on(port: int) -> None:
    with serving(port, pictures=25):
        run = Run(port, 20)
        run.wait_for_line("gives no more pictures")
    time.sleep(0.5)
    with serving(port):
        run.finish()
    steps = np.diff(run.times)
    assert steps.max() > 0.4  # the gap is a gap, not a burst of late frames
    assert steps.min() > 0.02  # nor do two frames stand for one moment
    assert np.median(steps) == pytest.approx(0.05, rel=0.5)


def test_a_stream_that_stays_away_is_given_up_in_one_line(port: int) -> None:
    run = Run(port, 10, retry_s=0.8)
    run.finish()
    assert run.times == []
    assert "cannot be opened; tried for 0.8 s (--source-retry or retry_s)" in run.source.failure
    assert len(run.lines) == 1


def test_a_stream_that_flaps_is_tried_more_and_more_seldom(port: int) -> None:
    with serving(port, pictures=5):
        run = Run(port, 10_000)
        time.sleep(3)
        losses = run.source.notes()["losses"]
        wait_until(lambda: run.source.notes()["losses"] >= 2, "the second loss")
        run.source._watch.stop()
        run.finish()
    assert losses <= 6


def test_a_recording_behind_a_url_is_not_played_again(port: int, tmp_path: Path) -> None:
    """Its end is no loss: it says how many pictures it has."""
    with serving(port) as server:
        server.video = write_video(tmp_path / "v.avi", 20).read_bytes()
        run = Run(port, 1000, fps=1000)
        run.finish()
    assert run.source.failure.endswith("gives no more pictures")
    assert run.lines == []


@pytest.mark.parametrize("retry", ["0", "inf"])
def test_a_camera_that_hangs_does_not_hold_up_sigterm(retry: str) -> None:
    """It accepts the connection and says nothing: the library waits, the process ends at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-m", "mecpilot", "device", "--mec", "tcp://127.0.0.1:9", "--controller"]
        command += ["device-only", "--source-retry", retry, "--source", url_of(server.getsockname()[1])]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            connection, _ = server.accept()  # the reading thread is in the library now
            with connection:
                time.sleep(0.5)
                asked_s = time.monotonic()
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=PATIENCE_S)
                assert time.monotonic() - asked_s < 20.0
        finally:
            process.kill()
            process.wait()
    assert process.returncode in (0, 128 + signal.SIGTERM)
    assert "Traceback" not in err
    assert "terminate" not in err
    assert "secret" not in err
