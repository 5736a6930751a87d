"""Makes small recordings and streams whose pictures encode their number as brightness."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from runtime.sources.footage_source import FootageSource
from runtime.sources.frames import FrameSource
from runtime.workloads.types import Image
from support.waiting import PATIENCE_S

SHAPE = (24, 32, 3)


def picture(number: int) -> Image:
    """A grey picture from which ``number_of`` reads the number, also after lossy coding."""
    return np.full(SHAPE, number * 10, np.uint8)


def number_of(image: Image) -> int:
    return round(float(image.mean()) / 10)


def write_video(path: Path, frames: int, codec: str = "MJPG", fps: float = 10) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, SHAPE[1::-1])
    for number in range(frames):
        writer.write(picture(number % 25))
    writer.release()
    return path


def write_folder(path: Path, frames: int) -> Path:
    path.mkdir()
    for number in range(frames):
        cv2.imwrite(str(path / f"{number:03}.png"), picture(number))
    return path


def captured(source: FootageSource, frames: int, fps: float, closed_loop: bool = False) -> Iterator[tuple[float, int]]:
    """Capture time and picture number of every frame, read as the device's loop does."""
    queue = FrameSource(frames, 1 / fps, source._first, source.count, 50, closed_loop, source.feed)
    queue.start(time.perf_counter())
    end_s = time.perf_counter() + PATIENCE_S
    while not queue.exhausted:
        now_s = time.perf_counter()
        assert now_s < end_s
        queue.offer(now_s)
        queue.offer_answered(now_s)
        while queue.waiting:
            frame = queue.waiting.popleft()
            yield frame.captured_s, number_of(source.picture(frame.source_index))
            source.release(frame.source_index)
        time.sleep(max(min(queue.next_capture_s - time.perf_counter(), 0.01), 0))


class StreamServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pictures: int, fps: float, stall: bool, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Stream)
        self.video = b""  # if not empty, this file is served instead of pictures
        self.pictures, self.interval_s, self.stall = pictures, 1 / fps, stall
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/stream.mjpg"


class Stream(BaseHTTPRequestHandler):
    """Serves motion JPEG at the server's rate, then stalls or ends."""

    server: StreamServer

    def do_GET(self) -> None:
        self.send_response(200)
        if self.server.video:
            self.send_header("Content-Length", str(len(self.server.video)))
            self.end_headers()
            self.wfile.write(self.server.video)
            return
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        try:
            for number in range(self.server.pictures):
                data = cv2.imencode(".jpg", picture(number % 25))[1].tobytes()
                self.wfile.write(b"--picture\r\nContent-Type: image/jpeg\r\n")
                self.wfile.write(f"Content-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n")
                if self.server.over.wait(self.server.interval_s):
                    return
            if self.server.stall:
                self.server.over.wait(PATIENCE_S)
        except OSError:
            pass  # the device disconnected

    def log_message(self, *_: object) -> None:
        """No log."""
