"""Log rotation while a real device runs: what is renamed loses nothing; what is copied and truncated, what was said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from support.live import device

NOBODY = "tcp://127.0.0.1:9"
ROTATIONS = 20
EVERY_S = 0.05


def frames_in(path: Path) -> list[int]:
    """The frames of a log, in its order; every line is whole."""
    return [json.loads(line)["frame"] for line in path.read_bytes().splitlines()]


@pytest.mark.slow
def test_a_log_that_is_renamed_twenty_times_a_second_loses_no_line(tmp_path: Path) -> None:
    log, moved = tmp_path / "log", list[Path]()
    with device(NOBODY, log, frames=100_000, fps=100, controller="device-only") as running:
        running.wait_for_outcomes(1)
        while len(moved) < ROTATIONS:
            if log.exists():  # the device has opened the file anew since the last time
                moved.append(log.rename(tmp_path / f"log.{len(moved)}"))
            running.process.send_signal(signal.SIGHUP)
            time.sleep(EVERY_S)
        done = running.stop()
    assert done.code == 0
    frames = [frame for path in (*moved, log) if path.exists() for frame in frames_in(path)]
    assert sorted(frames) == list(range(len(frames)))
    assert len(frames) > ROTATIONS


@pytest.mark.slow
def test_what_is_written_between_copying_and_truncating_is_lost_and_nothing_else(tmp_path: Path) -> None:
    log, copy = tmp_path / "log", tmp_path / "log.1"
    with device(NOBODY, log, frames=100_000, fps=50, controller="device-only") as running:
        running.wait_for_outcomes(10)
        shutil.copyfile(log, copy)
        running.wait_for_outcomes(len(copy.read_bytes().splitlines()) + 5)
        os.truncate(log, 0)
        running.wait_for_outcomes(5)
        done = running.stop()
    assert done.code == 0
    whole = copy.read_bytes()[: copy.read_bytes().rindex(b"\n") + 1]
    kept = [json.loads(line)["frame"] for line in whole.splitlines()] + frames_in(log)
    lost = sorted(set(range(max(kept) + 1)) - set(kept))
    assert len(set(kept)) == len(kept)
    assert len(lost) >= 5
    assert lost == list(range(lost[0], lost[-1] + 1))
