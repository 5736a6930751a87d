"""A soak with real processes: a short one is survived, and what must not happen is noticed."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live import WORKLOAD
from support.waiting import wait_until

import mecpilot
from controller.errors import FailureError
from runtime.testbed.soak import daemon as daemons
from runtime.testbed.soak.daemon import Daemon
from runtime.testbed.soak.disk import LimitedDisk, TmpfsDisk, disk_for_logs


@pytest.mark.slow
def test_fifteen_seconds_are_survived(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    code = mecpilot.main(["soak", "--minutes", "0.25", "--seed", "5", "--json", str(out)])
    found = json.loads(out.read_text())
    assert (code, found["broken"]) == (0, [])
    assert {one["fault"] for one in found["faults"]} > {"none"}
    assert sum(one["frames"] for one in found["faults"]) > 300
    assert all(one["without_outcome"] == one["twice"] == 0 for one in found["faults"])
    assert found["rotations"] > 3
    assert found["requests"] > 0


class TestDaemon:
    @pytest.fixture
    def broken(self) -> list[str]:
        return []

    @pytest.fixture
    def mec(self, tmp_path: Path, broken: list[str]) -> Iterator[Daemon]:
        command = ["mec", "--bind", "tcp://127.0.0.1:*", "--workload", WORKLOAD, "--end-with-stdin"]
        mec = Daemon("MEC 1", tmp_path, lambda: command, broken)
        mec.start()
        wait_until(lambda: mec.tick(time.monotonic()) and mec.is_ready, "the start")
        yield mec
        mec.close()

    def test_one_that_hangs_or_ends_by_itself_is_noticed(self, mec: Daemon, broken: list[str]) -> None:
        now_s, long_s = time.monotonic(), 2 * daemons.WATCHDOG_S
        mec.hold()
        mec.tick(now_s + long_s)
        assert broken == []  # it was stopped on purpose
        mec.go_on()

        mec.life.process.send_signal(signal.SIGSTOP)  # as if it hung
        wait_until(lambda: ") T " in Path(f"/proc/{mec.life.process.pid}/stat").read_text(), "the stop")
        mec.tick(now_s + long_s)
        mec.tick(now_s + 2 * long_s)
        mec.life.process.send_signal(signal.SIGCONT)
        assert [line for line in broken if "no ping" in line] == broken != []

        mec.stop()
        mec.check_messages()
        assert len(broken) == 1  # an orderly end is not reported
        mec.start()
        wait_until(lambda: mec.tick(time.monotonic()) and mec.is_ready, "the second start")
        mec.life.process.send_signal(signal.SIGKILL)
        wait_until(lambda: not mec.tick(time.monotonic()), "the end")
        assert "ended by itself, with exit code -9" in broken[-1]

    def test_its_work_is_timed_from_ready_to_its_end_without_the_time_in_which_it_was_stopped(
        self, mec: Daemon
    ) -> None:
        assert mec.life.ready_s is not None
        mec.hold()
        held_from_s = time.monotonic()
        time.sleep(0.5)
        held_s = time.monotonic() - held_from_s
        mec.go_on()
        mec.kill()
        assert mec.worked_s <= time.monotonic() - mec.life.ready_s - held_s
        at_the_end_s = mec.worked_s
        time.sleep(0.01)
        assert mec.worked_s == at_the_end_s > 0.0

    def test_one_that_ends_before_it_is_ready_is_not_started_again(self, tmp_path: Path, broken: list[str]) -> None:
        (tmp_path / "MEC-1.err").write_text("the last line of an earlier life\n")
        mec = Daemon("MEC 1", tmp_path, lambda: ["mec", "--workload", "nonsense"], broken)
        mec.start()
        try:
            with pytest.raises(FailureError, match=r"MEC 1 ended before it was ready, with exit code 2: .*nonsense"):
                wait_until(lambda: not mec.tick(time.monotonic()), "the end")
        finally:
            mec.close()

    def test_one_that_ends_again_and_again_is_given_up(
        self, mec: Daemon, broken: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(daemons, "MOST_ENDS", 1)
        mec.life.process.send_signal(signal.SIGKILL)
        with pytest.raises(FailureError, match="MEC 1 ended by itself 1 times, now with exit code -9: "):
            wait_until(lambda: not mec.tick(time.monotonic()), "the end")


class TestDisk:
    def test_a_full_disk_takes_nothing_until_it_is_freed(self, tmp_path: Path) -> None:
        with disk_for_logs(tmp_path, lambda: []) as disk:
            if not isinstance(disk, TmpfsDisk):
                pytest.skip("a tmpfs cannot be mounted here")
            disk.fill()
            with pytest.raises(OSError, match="No space left"):
                (tmp_path / "log").write_bytes(b"line\n")
            disk.free()
            (tmp_path / "log").write_bytes(b"line\n")
        assert not list(tmp_path.iterdir())

    def test_without_a_mount_the_files_of_processes_are_limited(self, tmp_path: Path) -> None:
        script = (
            "import sys\nfor line in sys.stdin: open(line.strip(), 'ab', 0).write(b'line'); print('ok', flush=True)\n"
        )
        writer = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        disk = LimitedDisk(lambda: [writer.pid])
        with writer:
            assert writer.stdin is not None
            assert writer.stdout is not None

            def wrote() -> bool:
                print(tmp_path / "log", file=writer.stdin, flush=True)
                return writer.stdout.readline() == "ok\n"

            assert wrote()
            disk.fill()
            disk.free()
            assert wrote()
            disk.fill()
            assert not wrote()  # it ends with an error: File too large
            assert (tmp_path / "log").read_bytes() == b"lineline"

    def test_a_process_has_its_own_limits_again(self) -> None:
        """Finite ones, as services and containers may have."""
        limits = 1 << 20, 1 << 30
        with subprocess.Popen(["sleep", "60"]) as sleeper:
            resource.prlimit(sleeper.pid, resource.RLIMIT_FSIZE, limits)
            disk = LimitedDisk(lambda: [sleeper.pid])
            for _ in range(2):
                disk.fill()
                assert resource.prlimit(sleeper.pid, resource.RLIMIT_FSIZE) == (0, limits[1])
            disk.free()
            assert resource.prlimit(sleeper.pid, resource.RLIMIT_FSIZE) == limits
            disk.fill()
            sleeper.kill()
            sleeper.wait()
            disk.free()  # a process that is gone is left alone
