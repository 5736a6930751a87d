"""The outcome log: appended to, whole lines, one writer, and never a reason for a frame to wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.live import ROOT, WORKLOAD
from support.waiting import PATIENCE_S, wait_until

from controller.errors import FailureError, UsageError
from controller.records import BreakdownMs, Outcome, Status
from runtime.observe import record_log
from runtime.observe.line_sink import FileSink
from runtime.observe.record_log import OUTCOMES, RecordLog, line_of


def an_outcome(frame: int) -> Outcome:
    return Outcome(frame, frame, Status.OK, 1.0, 100.0, 784, 0.001, 1.0, None, BreakdownMs(), 3, 3, 1.0, 1.7e9 + frame)


def written(path: Path, frames: range, during: Callable[[int], None] = lambda _: None) -> RecordLog[Outcome]:
    """A log after these outcomes; ``during`` is called before each."""
    log = RecordLog(path, OUTCOMES, lambda _: None)
    for frame in frames:
        during(frame)
        log.add(an_outcome(frame))
    log.close()
    return log


def frames_in(path: Path) -> list[int]:
    return [json.loads(line)["frame"] for line in path.read_bytes().splitlines()]


def test_a_second_run_appends(tmp_path: Path) -> None:
    written(tmp_path / "log", range(3))
    written(tmp_path / "log", range(3, 5))
    assert frames_in(tmp_path / "log") == [0, 1, 2, 3, 4]


def test_the_end_waits_for_a_file_that_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine or disk takes longer than a reader would be waited for."""
    write = FileSink.write

    def late(sink: FileSink, lines: Sequence[bytes], wait_s: float) -> int:
        time.sleep(record_log.CLOSE_WAIT_S + 0.3)
        return write(sink, lines, wait_s)

    monkeypatch.setattr(FileSink, "write", late)
    assert written(tmp_path / "log", range(3)).lost == 0
    assert frames_in(tmp_path / "log") == [0, 1, 2]


def test_after_a_broken_line_a_new_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path, range(2))
    path.write_bytes(path.read_bytes()[:-7])
    written(path, range(2, 4))
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[2:] == [line_of(an_outcome(2), OUTCOMES), line_of(an_outcome(3), OUTCOMES)]
    assert len(lines) == 4


def test_a_log_that_is_truncated_goes_on_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = RecordLog(path, OUTCOMES, lambda _: None)
    log.add(an_outcome(0))
    wait_until(lambda: path.stat().st_size > 0)
    os.truncate(path, 0)  # logrotate's copytruncate
    log.add(an_outcome(1))
    log.close()
    assert path.read_bytes() == line_of(an_outcome(1), OUTCOMES)


def test_a_log_that_is_moved_away_is_reopened_on_request(tmp_path: Path) -> None:
    path, moved, said = tmp_path / "log", tmp_path / "log.1", list[str]()
    log = RecordLog(path, OUTCOMES, said.append)
    log.add(an_outcome(0))
    wait_until(lambda: path.stat().st_size > 0)
    path.rename(moved)
    log.reopen()
    wait_until(path.exists)
    log.add(an_outcome(1))
    log.reopen()  # the same file: nothing happens to it
    wait_until(lambda: len(said) == 2)
    log.add(an_outcome(2))
    log.close()
    assert (frames_in(moved), frames_in(path), log.lost) == ([0], [1, 2], 0)


def test_a_log_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = RecordLog(path, OUTCOMES, lambda _: None)
    log.add(an_outcome(0))
    wait_until(lambda: path.stat().st_size > 0)
    path.unlink()
    log.add(an_outcome(1))
    log.close()
    assert frames_in(path) == [1]


def test_a_second_process_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = RecordLog(path, OUTCOMES, lambda _: None)
    log.add(an_outcome(0))
    second = f"from runtime.observe.record_log import OUTCOMES, RecordLog; RecordLog({str(path)!r}, OUTCOMES, print)"
    done = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "is in use by another process" in done.stderr
    log.close()
    assert frames_in(path) == [0]
    written(path, range(1, 2))  # the lock is gone with its owner
    holder = RecordLog(path, OUTCOMES, lambda _: None)
    with pytest.raises(FailureError, match="in use"):
        RecordLog(path, OUTCOMES, lambda _: None)
    holder.close()


def test_a_fifo_without_a_reader_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, said = tmp_path / "fifo", list[str]()
    os.mkfifo(path)
    monkeypatch.setattr(record_log, "QUEUE_BYTES", 20 * len(line_of(an_outcome(10), OUTCOMES)))
    began_s = time.monotonic()
    log = RecordLog(path, OUTCOMES, said.append)
    for frame in range(100, 150):
        log.add(an_outcome(frame))
    log.close()
    assert time.monotonic() - began_s < 30
    assert log.lost == 50
    assert [line for line in said if "is too slow" in line] == [
        f"{path} is too slow: outcomes are lost, frames are not"
    ]


def test_a_reader_that_comes_late_and_reads_slowly_gets_every_line(tmp_path: Path) -> None:
    path, read = tmp_path / "fifo", bytearray()
    os.mkfifo(path)
    log = RecordLog(path, OUTCOMES, lambda _: None)
    for frame in range(1000):  # more than a pipe holds
        log.add(an_outcome(frame))

    def read_all() -> None:
        with path.open("rb", buffering=0) as stream:
            time.sleep(0.1)
            while piece := stream.read(5000):
                read.extend(piece)

    reader = threading.Thread(target=read_all)
    reader.start()
    wait_until(lambda: len(read) == sum(len(line_of(an_outcome(frame), OUTCOMES)) for frame in range(1000)))
    log.close()
    reader.join()
    assert (bytes(read), log.lost) == (b"".join(line_of(an_outcome(frame), OUTCOMES) for frame in range(1000)), 0)


def test_a_reader_that_goes_away_costs_no_whole_line_of_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    log = RecordLog(path, OUTCOMES, lambda _: None)
    for frame in range(3):
        log.add(an_outcome(frame))
        with path.open("rb", buffering=0) as stream:
            assert stream.read(4096) == line_of(an_outcome(frame), OUTCOMES)
    log.close()
    assert log.lost == 0


def test_a_full_disk_that_has_room_again_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, said, full = tmp_path / "log", list[str](), [True]
    write = os.write

    def write_half(descriptor: int, data: bytes) -> int:
        if full[0] and data.startswith(b"{"):
            return write(descriptor, data[: len(data) // 2])
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_half)
    log = RecordLog(path, OUTCOMES, said.append)
    log.add(an_outcome(0))
    wait_until(lambda: bool(said))
    assert path.read_bytes() == b""  # the half line was taken back
    full[0] = False
    log.add(an_outcome(1))
    wait_until(lambda: len(said) == 2)
    log.close()
    assert (frames_in(path), log.lost) == ([0, 1], 0)
    assert "No space left" in said[0]
    assert said[1] == f"writing to {path} again"


@pytest.mark.parametrize("name", ["", "nowhere/log", "a\0b"])
def test_what_cannot_be_a_log_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--outcomes"):
        RecordLog(tmp_path / name, OUTCOMES, lambda _: None)


# The command --------------------------------------------------------------------------------------------------

TO_STDOUT = [sys.executable, "-m", "mecpilot", "device", "--workload", WORKLOAD, "--mec", "tcp://127.0.0.1:9"]


def test_outcomes_on_standard_output_leave_the_summary_to_stderr() -> None:
    done = subprocess.run(
        [*TO_STDOUT, "--outcomes", "-", "--frames", "5", "--fps", "20"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(line)["frame"] for line in done.stdout.splitlines()) == list(range(5))
    assert "latency" in done.stderr


def test_a_device_ends_when_nobody_reads_its_outcomes_any_more() -> None:
    command = [*TO_STDOUT, "--outcomes", "-", "--frames", "1000000", "--fps", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["schema"] == OUTCOMES.schema
        process.stdout.close()
        assert process.wait(timeout=PATIENCE_S) == 1
        assert process.stderr is not None
        assert "it has no reader any more" in process.stderr.read()
