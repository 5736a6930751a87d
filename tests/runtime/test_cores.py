"""The number of cores is what the machine really gives the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.errors import UsageError
from runtime.cores import thread_count, usable_cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "100000 100000", "system.slice/mec.service/cpu.max": "max 100000"}, 1),
        ({"system.slice/mec.service/cpu.max": "100000 100000"}, 1),
        ({"system.slice/cpu.max": "100000 100000"}, 1),
        ({"cpu/pod/cpu.cfs_quota_us": "100000", "cpu/pod/cpu.cfs_period_us": "100000"}, 1),
        ({"system.slice/other.service/cpu.max": "100000 100000"}, None),
        ({}, None),
    ],
)
def test_cores_are_those_of_affinity_and_control_group(
    files: dict[str, str], cores: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    own = tmp_path / "own"
    own.write_text("4:cpu,cpuacct:/pod\n1:name=systemd:/\n0::/system.slice/mec.service\n")
    assert usable_cores(tmp_path, own) == (cores or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("wanted", "count"), [(1, 1), ("2", 2), (4, 4), ("auto", 4)])
def test_a_number_of_threads_or_as_many_as_there_are_cores(wanted: int | str, count: int) -> None:
    assert thread_count(wanted, pytest.fail, cores=4) == count


def test_more_threads_than_cores_are_said_and_not_used() -> None:
    lines: list[str] = []
    assert thread_count(16, lines.append, cores=4) == 4
    assert lines == ["--threads 16: this process may use 4 cores (affinity and control group); it uses 4"]


@pytest.mark.parametrize("wanted", [0, -1, "many", ""])
def test_other_numbers_of_threads_are_refused(wanted: int | str) -> None:
    with pytest.raises(UsageError, match="expected a number from 1 on, or auto"):
        thread_count(wanted, print)
