"""What a folder, a video file and a pipe give: everything that can be read, and a word about everything else."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.footage import number_of, picture, write_folder, write_video
from support.rights import somebody_else
from support.waiting import PATIENCE_S

from controller.errors import FailureError, UsageError
from runtime.files.masking import shown
from runtime.sources.footage import open_footage
from runtime.sources.footage_source import open_source
from runtime.sources.picture_file import MAX_PIXELS, Unreadable, decode, picture_size
from runtime.sources.pipe_stream import cut_jpegs
from runtime.sources.shots import Footage, Watch

SHAPE = (24, 32, 3)
PNG_HEADER = b"\x89PNG\r\n\x1a\n"


def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", picture(number))[1].tobytes()


def huge_png() -> bytes:
    """40,000 x 40,000 pixels, as far as its header knows."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return PNG_HEADER + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + bytes(64)


class Said:
    """A watch, and the lines that were said to it."""

    def __init__(self, retry_s: float = 0.0) -> None:
        self.lines: list[str] = []
        self.watch = Watch(retry_s, self.lines.append)

    def read(self, footage: Footage, first: int = 0) -> list[tuple[int, int]]:
        """Place and number of every picture."""
        return [(shot.index, number_of(shot.image)) for shot in footage.shots(first, self.watch)]


# Folders ----------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (1, 2, 3, 10, 11, 12):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    assert Said().read(open_footage(str(tmp_path))) == list(enumerate((1, 2, 3, 10, 11, 12)))


def test_hidden_files_and_what_is_no_file_are_passed_over_in_silence(tmp_path: Path) -> None:
    folder, said = write_folder(tmp_path / "v", 3), Said()
    (folder / "._000.png").write_bytes(b"left by another system")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "001x.jpg").mkdir()
    os.mkfifo(folder / "000x.jpg")
    (folder / "broken.png").symlink_to("nowhere.png")
    assert said.read(open_footage(str(folder))) == [(0, 0), (1, 1), (2, 2)]
    assert said.lines == []


def _vanish(path: Path) -> None:
    path.unlink()


def _shut(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)  # root may read everything but this


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_bytes(b"no image"), "is not an image; expected PNG"),
        (lambda path: path.write_bytes(b""), "is not an image"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "is damaged or cut off"),
        (lambda path: path.write_bytes(jpeg(1)[:-200]), "is damaged or cut off"),
        (lambda path: path.write_bytes(huge_png()), "has 40000 x 40000 pixels; expected at most"),
        (_vanish, "cannot be read: No such file"),
        (_shut, "cannot be read: Too many levels of symbolic links"),
    ],
    ids=["text", "empty", "cut off", "cut off JPEG", "huge", "vanished", "unreadable"],
)
def test_a_picture_that_cannot_be_read_is_one_line_and_the_rest_is_seen(
    spoil: Callable[[Path], object], why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, said = write_folder(tmp_path / "v", 4), Said()
    footage = open_footage(str(folder))
    spoil(folder / "001.png")
    assert said.read(footage) == [(0, 0), (2, 2), (3, 3)]
    assert len(said.lines) == 1
    assert f"001.png {why}" in said.lines[0]
    assert said.watch.notes()["unreadable"] == 1
    assert capfd.readouterr().err == ""


def test_many_unreadable_pictures_do_not_fill_the_log(tmp_path: Path) -> None:
    folder, said = write_folder(tmp_path / "v", 1), Said()
    for number in range(300):
        (folder / f"x{number}.png").write_bytes(b"no image")
    said.read(open_footage(str(folder)))
    said.watch.sum_up("v")
    assert len(said.lines) == 7
    assert "300 pictures could not be read" in said.lines[-1]


def test_a_folder_without_a_readable_picture_is_one_line(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"x{number}.png").write_bytes(b"no image")
    lines: list[str] = []
    with pytest.raises(FailureError, match=r"none of its 30 pictures can be read; .*x0\.png is not an image"):
        open_source(str(tmp_path), SHAPE, log=lines.append)
    assert lines == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".gif"])
def test_the_size_of_a_picture_is_known_before_it_is_decoded(suffix: str) -> None:
    image = np.zeros((37, 53, 3), np.uint8)
    data = cv2.imencode(suffix, image if suffix != ".pgm" else image[..., 0])[1].tobytes()
    assert picture_size(data) == (53, 37)
    assert decode(data).shape == (37, 53, 3)


def test_a_photo_is_turned_as_its_exif_says() -> None:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: a quarter turn
    exif = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    assert decode(jpeg(5)[:2] + exif + jpeg(5)[2:]).shape == (32, 24, 3)


def test_deep_and_transparent_pictures_become_plain_ones() -> None:
    for image in (np.full((4, 4, 3), 60_000, np.uint16), np.full((4, 4, 4), 200, np.uint8)):
        decoded = decode(cv2.imencode(".png", image)[1].tobytes())
        assert (decoded.shape, decoded.dtype) == ((4, 4, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm"])
def test_no_bytes_of_a_picture_file_raise_anything_else(suffix: str) -> None:
    rng = np.random.default_rng(0)
    whole = cv2.imencode(suffix, rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))[1].tobytes()
    for length in range(0, min(len(whole), 120)):
        with pytest.raises(Unreadable):
            decode(whole[:length])
    for _ in range(100):
        spoilt = bytearray(whole)
        spoilt[rng.integers(0, min(len(spoilt), 200))] ^= 1 << rng.integers(0, 8)
        try:
            height, width, _ = decode(bytes(spoilt)).shape
        except Unreadable:
            continue
        assert height * width <= MAX_PIXELS


# Video files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cam1:yard.avi", "2024-01-01T10:00:00.avi", "http:x.avi", "-x.avi", "a%03d.avi"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_video_may_be_called_anything(
    name: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.avi", 3).rename(tmp_path / name)
    assert Said().read(open_footage(prefix + name)) == [(0, 0), (1, 1), (2, 2)]


def test_a_video_may_have_a_name_that_is_no_text_or_is_a_file_url(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "my video.avi", 2)
    odd = tmp_path / os.fsdecode(b"\xff.avi")
    odd.hardlink_to(plain)
    assert len(Said().read(open_footage(str(odd)))) == 2
    assert "\\xff" not in shown(odd)
    assert shown(odd).isprintable()
    assert len(Said().read(open_footage(f"file://{str(plain).replace(' ', '%20')}"))) == 2


def _damage(path: Path) -> None:
    """No bytes for a fifth of the file."""
    data = bytearray(path.read_bytes())
    start, length = len(data) * 4 // 10 // 188 * 188, len(data) // 5 // 188 * 188
    data[start : start + length] = bytes(length)
    path.write_bytes(data)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


@pytest.mark.parametrize("spoil", [_damage, _cut_off])
@pytest.mark.parametrize(("suffix", "codec"), [(".ts", "MPG2"), (".avi", "MJPG"), (".mkv", "MJPG")])
def test_a_damaged_video_says_how_many_frames_are_missing(
    suffix: str, codec: str, spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    path, said = write_video(tmp_path / f"v{suffix}", 60, codec), Said()
    assert len(said.read(open_footage(str(path)))) == 60
    assert (said.lines, said.watch.missing) == ([], 0)
    spoil(path)
    seen = len(said.read(open_footage(str(path))))
    assert 5 < seen < 60
    # What was cut off a transport stream is not known to have been there.
    assert said.watch.missing == 60 - seen or (spoil is _cut_off and suffix == ".ts")
    if said.watch.missing:
        assert f"{said.watch.missing} of {seen + said.watch.missing} frames are missing" in said.lines[0]


def test_a_video_can_be_read_from_a_later_picture_on(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 12)
    assert Said().read(open_footage(str(path)), first=9) == [(9, 9), (10, 10), (11, 11)]


def test_a_video_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    loop = tmp_path / "v.mp4"
    loop.symlink_to(loop)
    with pytest.raises(FailureError, match=r"v\.mp4 cannot be read: Too many levels"):
        open_footage(str(loop))
    with pytest.raises(FailureError, match="cannot be read: File name too long"):
        open_footage("x" * 5000)
    for text in ("", " "):
        with pytest.raises(UsageError, match=r"got --source ' ?'; expected a video file"):
            open_footage(text)
    with pytest.raises(FailureError, match="no such file or folder"):
        open_footage("a\0b")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_what_may_not_be_read_is_one_line() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder, said = write_folder(Path(place) / "v", 3), Said()
        (folder / "001.png").chmod(0)
        video = write_video(Path(place) / "v.avi", 3)
        with somebody_else():
            assert said.read(open_footage(str(folder))) == [(0, 0), (2, 2)]
        folder.chmod(0)
        video.chmod(0)
        with somebody_else():
            for path in (folder, video, folder / "000.png"):
                with pytest.raises(FailureError, match=f"source {path} cannot be read: Permission denied"):
                    open_footage(str(path))
    assert said.lines == [f"picture skipped: {folder}/001.png cannot be read: Permission denied"]


# Pipes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def write_slowly(path: Path, data: bytes, pieces: int = 7) -> threading.Thread:
    """Somebody who opens the pipe and sends data in pieces."""

    def write() -> None:
        with path.open("wb", 0) as pipe:
            size = len(data) // pieces + 1
            for start in range(0, len(data), size):
                pipe.write(data[start : start + size])

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def multipart(pictures: list[bytes]) -> bytes:
    return b"".join(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n" for data in pictures)


@pytest.mark.parametrize("kind", ["JPEGs", "multipart", "transport stream", "matroska"])
def test_a_pipe_gives_every_picture_that_is_written_into_it(kind: str, fifo: Path, tmp_path: Path) -> None:
    pictures = [jpeg(number) for number in range(12)]
    data = {
        "JPEGs": lambda: b"".join(pictures),
        "multipart": lambda: multipart(pictures),
        "transport stream": lambda: write_video(tmp_path / "v.ts", 12, "MPG2").read_bytes(),
        "matroska": lambda: write_video(tmp_path / "v.mkv", 12, "MJPG").read_bytes(),
    }[kind]()
    said, writer = Said(), write_slowly(fifo, data)
    assert said.read(open_footage(str(fifo))) == [(number, number) for number in range(12)]
    writer.join()
    assert said.lines == []


def test_pictures_may_change_their_size_in_mid_stream(fifo: Path) -> None:
    large = cv2.imencode(".jpg", np.full((90, 60, 3), 70, np.uint8))[1].tobytes()
    said, writer = Said(), write_slowly(fifo, jpeg(0) + large + jpeg(2))
    sizes = [shot.image.shape[:2] for shot in open_footage(str(fifo)).shots(0, said.watch)]
    writer.join()
    assert sizes == [(24, 32), (90, 60), (24, 32)]


def test_a_damaged_picture_in_a_pipe_is_skipped(fifo: Path) -> None:
    said, writer = Said(), write_slowly(fifo, jpeg(0) + jpeg(1)[:-50] + jpeg(2))
    assert [number for _, number in said.read(open_footage(str(fifo)))] == [0, 2]
    writer.join()
    assert said.lines == [f"picture skipped: number 1 of {fifo} is damaged or cut off"]


def test_a_thumbnail_inside_a_picture_does_not_end_it() -> None:
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg(1))) + jpeg(1)
    whole = jpeg(0)[:2] + thumbnail + jpeg(0)[2:]
    stream = whole + b"between" + jpeg(2)
    for size in (1, 3, 100, 10_000):
        chunks = (stream[start : start + size] for start in range(0, len(stream), size))
        assert list(cut_jpegs(chunks)) == [whole, jpeg(2)]


@pytest.mark.parametrize("data", [b"no stream at all" * 9, b"\xff\xd8", b""], ids=["garbage", "two bytes", "nothing"])
def test_what_is_no_stream_is_one_line(data: bytes, fifo: Path) -> None:
    writer = write_slowly(fifo, data, 1)
    with pytest.raises(FailureError, match="gave no picture; expected MPEG-TS"):
        Said().read(open_footage(str(fifo)))
    writer.join()


def test_a_pipe_that_nobody_writes_into_is_given_up(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.sources.pipe_stream.CAMERA_WAIT_S", 0.2)
    with pytest.raises(FailureError, match=r"pipe sent nothing for 0\.2 s"):
        Said().read(open_footage(str(fifo)))


@pytest.mark.parametrize("sent", [b"", jpeg(0), b"G" + bytes(187)], ids=["nothing", "JPEG", "transport stream"])
def test_a_silent_pipe_holds_up_no_end(sent: bytes, fifo: Path) -> None:
    """Neither the one that is polled nor the one that the library reads."""
    source = open_source(str(fifo), SHAPE, retry_s=1000)
    with fifo.open("wb", 0) as writer:
        writer.write(sent)
        source._thread.join(0.3)
        assert source._thread.is_alive()
        source.close()
        source._thread.join(PATIENCE_S)
        assert not source._thread.is_alive()


# Names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("rtsp://admin:pw@cam/1", "rtsp://***@cam/1"),
        ("rtsp://admin:p@ss/w?rd@cam:554/1", "rtsp://***@cam:554/1"),
        ("http://cam/v.mjpg?user=me&password=pw&size=2", "http://cam/v.mjpg?user=***&password=***&size=2"),
        ("http://cam/v?loginpas=pw;access_token=t", "http://cam/v?loginpas=***;access_token=***"),
        ("admin:pw@cam/1", "***@cam/1"),
        ("rtsp:/admin:pw@cam/1", "rtsp:/***@cam/1"),
        ("cannot open 'rtsp://admin:pw@cam/1'", "cannot open 'rtsp://***@cam/1'"),
        ("cam1:yard.mp4", "cam1:yard.mp4"),
        ("rtsp://cam:554/live", "rtsp://cam:554/live"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("x" * 1000, "x" * 297 + "..."),
    ],
)
def test_no_password_and_no_second_line_is_printed(text: str, printed: str) -> None:
    assert shown(text) == printed
