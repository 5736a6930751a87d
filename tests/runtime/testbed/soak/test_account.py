"""The account of a soak finds what is missing, what is there twice, and what grows."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from runtime.testbed.soak.account import AFTER_S, SLACK_S, UNANSWERED_S, UNWRITTEN, Account, Frames
from runtime.testbed.soak.faults import FAULTS, plan
from runtime.testbed.soak.resources import Sample, leaks, sample, trends
from runtime.testbed.soak.rotated_log import RotatedLog
from runtime.testbed.soak.trend import LEAST_SAMPLES, trend

FPS = 10.0
START_S = 1.7e9
LOCAL, REMOTE = {"payload": "none"}, {"payload": "u8"}


def line(frame: int, status: str = "ok", decision: dict[str, str] | None = None, latency_ms: float = 20.0) -> bytes:
    captured_at = START_S + frame / FPS
    outcome = {"frame": frame, "status": status, "decision": decision or LOCAL, "latency_ms": latency_ms}
    return json.dumps(outcome | {"captured_at": captured_at}).encode()


class TestFrames:
    @pytest.fixture
    def account(self) -> Account:
        return Account(FPS)

    @pytest.fixture
    def frames(self) -> Frames:
        return Frames("device 1")

    def test_a_frame_that_is_missing_and_one_that_is_there_twice_count_against_their_fault(
        self, account: Account, frames: Frames
    ) -> None:
        cut = account.begin("cut", ["device 1"], START_S + 2.0)
        cut.end_s = START_S + 4.0
        for frame in range(100):
            if frame not in (30, 90):
                account.add(frames, line(frame))
        account.add(frames, line(25))
        account.close(frames, was_killed=False)
        assert (cut.without_outcome, cut.twice) == (1, 1)
        assert (account.quiet.without_outcome, account.quiet.twice) == (1, 0)
        during = round((cut.end_s + AFTER_S - cut.begin_s) * FPS)
        assert cut.frames == during - 1 + 1  # without frame 30, with frame 25 twice

    def test_a_killed_device_may_have_lost_its_newest_lines_only(self, account: Account, frames: Frames) -> None:
        last = 10 + UNWRITTEN
        for frame in {*range(last)} - {5, 20, 21}:
            account.add(frames, line(frame))
        account.add(frames, b'{"frame": 7')
        account.close(frames, was_killed=True)
        assert account.torn == 1
        assert account.quiet.without_outcome == 1

    def test_a_life_that_ends_in_silence_lacks_frames(self, account: Account, frames: Frames) -> None:
        """It wrote 5 s of frames, and nothing for 15 s more."""
        cut = account.begin("cut", ["device 1"], START_S + 10.0)
        cut.end_s = START_S + 11.0
        for frame in range(50):
            account.add(frames, line(frame))
        account.close(frames, was_killed=False, worked_s=20.0)
        during = round((1.0 + AFTER_S) * FPS)
        assert cut.without_outcome == during
        assert account.quiet.without_outcome == round((20.0 - SLACK_S) * FPS) - 50 - during

    def test_a_life_without_a_line_lacks_all_frames(self, account: Account, frames: Frames) -> None:
        account.close(frames, was_killed=False, worked_s=20.0)
        assert account.quiet.without_outcome == round((20.0 - SLACK_S) * FPS)

    def test_frames_up_to_the_end_are_enough_and_a_killed_device_may_lack_the_newest(self, account: Account) -> None:
        for was_killed, count in ((False, 200), (True, 200 - UNWRITTEN)):
            frames = Frames("device 1")
            for frame in range(count):
                account.add(frames, line(frame))
            account.close(frames, was_killed=was_killed, worked_s=20.0)
        assert account.quiet.without_outcome == 0

    def test_a_fault_of_another_device_is_not_counted(self, account: Account, frames: Frames) -> None:
        other = account.begin("cut", ["device 2"], START_S)
        account.add(frames, line(1))
        assert (other.frames, account.quiet.frames) == (0, 1)

    def test_it_is_quiet_before_the_first_fault_and_some_time_after_the_newest(self, account: Account) -> None:
        assert account.is_quiet(START_S)
        window = account.begin("cut", ["device 1"], START_S)
        assert not account.is_quiet(START_S + 60.0)
        window.end_s = START_S + 1.0
        assert not account.is_quiet(window.end_s)
        assert account.is_quiet(window.end_s + AFTER_S)

    def test_late_and_dropped_frames_are_not_in_time(self, account: Account, frames: Frames) -> None:
        for frame, status in enumerate(("ok", "late", "fallback", "dropped", "skipped")):
            account.add(frames, line(frame, status))
        assert (account.quiet.in_time, account.quiet.frames) == (3, 5)

    def test_the_mec_is_back_with_its_first_answer_after_the_end(self, account: Account, frames: Frames) -> None:
        window = account.begin("killed", ["device 1"], START_S)
        window.end_s = START_S + 1.0
        account.add(frames, line(5, decision=REMOTE))  # before the end
        account.add(frames, line(11))  # by the device alone
        account.add(frames, line(12, "late", REMOTE))
        account.add(frames, line(14, decision=REMOTE, latency_ms=50.0))
        account.add(frames, line(13, decision=REMOTE, latency_ms=70.0))
        assert window.back_s == {"device 1": pytest.approx(0.37, abs=1e-3)}


class TestUnanswered:
    """Frames of 100 s; the MEC of device 1 is cut off for 10 s after 20 s."""

    CUT_S, BACK_S, END_S = 20.0, 30.0, 100.0

    def account(self, answered_again_s: float, concerns: str = "device 1") -> Account:
        account = Account(FPS)
        window = account.begin("cut", [concerns], START_S + self.CUT_S)
        window.end_s = START_S + self.BACK_S
        frames = Frames("device 1")
        for frame in range(round(self.END_S * FPS)):
            is_remote = not self.CUT_S <= frame / FPS < answered_again_s
            account.add(frames, line(frame, decision=REMOTE if is_remote else LOCAL))
        return account

    def unanswered(self, account: Account) -> dict[str, float]:
        return account.unanswered(START_S, START_S + self.END_S)

    def test_a_link_that_never_comes_back_is_found(self) -> None:
        lost_s = self.END_S - self.BACK_S
        assert self.unanswered(self.account(np.inf)) == {"device 1": pytest.approx(lost_s, abs=0.2)}

    def test_the_time_of_a_fault_is_not_counted(self) -> None:
        back_in_time_s = self.BACK_S + UNANSWERED_S - 1.0
        assert self.unanswered(self.account(back_in_time_s)) == {}
        assert set(self.unanswered(self.account(back_in_time_s, concerns="device 2"))) == {"device 1", "device 2"}

    def test_a_controller_that_uses_no_mec_is_not_held_to_it(self) -> None:
        account, frames = Account(FPS), Frames("device 1")
        account.begin("cut", ["device 1"], START_S).end_s = START_S + 1.0
        for frame in range(1000):
            account.add(frames, line(frame))
        assert self.unanswered(account) == {}


class TestRotation:
    def test_a_moved_file_is_read_when_the_daemon_has_opened_a_new_one(self, tmp_path: Path) -> None:
        log, asked = RotatedLog(tmp_path / "log"), list[bool]()

        def rotate() -> list[bytes]:
            return list(log.rotate(lambda: asked.append(True)))

        log.path.write_bytes(b"1\n2\n")
        assert rotate() == []
        with (tmp_path / "log.1").open("ab") as old:
            old.write(b"3\n")  # written before the daemon has noticed
        assert rotate() == []  # asked again, because there is no new file yet
        log.path.write_bytes(b"4\n")
        assert rotate() == [b"1", b"2", b"3"]
        assert len(asked) == 3
        log.path.write_bytes(b"5\n")
        assert list(log.rest()) == [b"4", b"5"]
        assert list(log.rest()) == []
        assert log.rotations == 2


class TestTrend:
    def test_what_grows_is_found_and_what_only_varies_is_not(self) -> None:
        random = np.random.default_rng(0)
        times = np.arange(600.0)
        noise = random.normal(0.0, 0.5, 600)
        leak = trend(times, (200.0 + times / 60.0 + noise).tolist())  # 60 MB an hour
        flat = trend(times, (200.0 + noise).tolist())
        assert leak is not None
        assert flat is not None
        assert leak.low < 60.0 < leak.high
        assert leak.grows_beyond(4.0, 8.0)
        assert flat.low < 0.0 < flat.high

    def test_the_interval_holds_for_samples_that_depend_on_each_other(self) -> None:
        """Neighbours have a correlation of 0.8, and there is no trend."""
        random = np.random.default_rng(1)
        times, found = np.arange(300.0), 0
        for _ in range(400):
            value, values = 0.0, []
            for step in random.normal(0.0, 1.0, 300):
                value = 0.8 * value + step
                values.append(value)
            line = trend(times, values)
            assert line is not None
            found += not line.low <= 0.0 <= line.high
        assert found / 400 < 0.15

    def test_few_samples_say_nothing(self) -> None:
        assert trend(range(LEAST_SAMPLES - 1), [1.0] * (LEAST_SAMPLES - 1)) is None

    def test_a_leak_of_descriptors_is_named(self) -> None:
        samples = [Sample(float(at), 200.0, 10 + at // 20, 4) for at in range(400)]
        assert leaks(trends(samples)) == ["descriptors"]

    def test_a_process_is_sampled_until_it_has_ended(self) -> None:
        own = sample(os.getpid(), 1.0)
        assert own is not None
        assert own.memory_mb > 10.0
        assert own.descriptors > 3
        assert own.threads >= 1
        assert sample(2**22 + 1, 1.0) is None


def test_a_plan_depends_on_its_seed_alone_and_leaves_no_fault_out() -> None:
    steps = list(islice(plan(3), len(FAULTS)))
    assert steps == list(islice(plan(3), len(FAULTS)))
    assert steps != list(islice(plan(4), len(FAULTS)))
    assert {step.fault.name for step in steps} == {fault.name for fault in FAULTS}
    assert all(step.number in step.fault.numbers for step in steps)
