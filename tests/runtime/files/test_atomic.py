"""Files are written whole or not at all, and what cannot be written is refused before a run begins."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from controller.errors import FailureError, UsageError
from runtime.files import atomic
from runtime.files.atomic import check_apart, check_writable, write_whole
from runtime.files.reading import read_bounded


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for content in (b"old", b"new"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["report.json"]


def test_the_old_file_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"old")

    def full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "_write_all", full)
    with pytest.raises(FailureError, match=r"cannot write .*report.json: No space left on device; choose another file"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert (real.read_bytes(), stat.S_IMODE(real.stat().st_mode)) == (b"new", 0o640)


def test_a_fifo_is_written_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_whole(path, b"x" * 100_000)
    reader.join()
    assert read == [b"x" * 100_000]
    assert path.is_fifo()


def test_dev_full_is_one_line() -> None:
    with pytest.raises(FailureError, match="No space left"):
        write_whole(Path("/dev/full"), b"x")


@pytest.mark.parametrize(
    ("name", "why"),
    [("folder", "Is a directory"), ("nowhere/x", "No such file"), ("file/x", "Not a directory"), ("a\0b", "null byte")],
)
def test_what_cannot_be_written_is_refused_untouched(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UsageError, match=f"--json .*{why}"):
        check_writable(tmp_path / name, "--json")
    assert sorted(os.listdir(tmp_path)) == before


def test_what_can_be_written_passes_untouched(tmp_path: Path) -> None:
    check_writable(None, "--json")
    check_writable("-", "--json")
    check_writable(tmp_path / "new", "--json")
    check_writable(tmp_path / "made" / "for" / "it", "--out", make_folder=True)
    assert os.listdir(tmp_path) == []


def test_two_options_that_name_one_file_are_refused(tmp_path: Path) -> None:
    video = tmp_path / "in.mp4"
    video.touch()
    (tmp_path / "link").symlink_to(video)
    with pytest.raises(UsageError, match="--outcomes and --json both name"):
        check_apart({"--outcomes": tmp_path / "x", "--json": f"{tmp_path}/./x"}, {})
    with pytest.raises(UsageError, match="--source and --video both name"):
        check_apart({"--video": tmp_path / "link"}, {"--source": str(video)})
    with pytest.raises(UsageError, match="both name -"):
        check_apart({"--outcomes": "-", "--json": "-"}, {})
    check_apart({"--outcomes": "/dev/null", "--json": "/dev/null", "--video": None}, {"--policy": None})


def test_reading_is_bounded() -> None:
    with pytest.raises(OSError, match="too large"):
        read_bounded(Path("/dev/zero"), 1000)
