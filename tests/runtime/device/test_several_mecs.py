"""A device process with two MEC processes: one is killed and comes back, both are killed, one lies."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.live import WORKLOAD, device, run_device_here

import mecpilot
from benchmarks.support.relay import Relay
from controller.errors import UsageError
from runtime.config.load import config_of
from runtime.config.sections.security import SecuritySection
from runtime.config.show import as_toml
from runtime.device.device import Device
from runtime.link.mecs.address import addresses_of
from runtime.testbed.processes import RunningMec, running_mec

FOREVER = 1_000_000
LIVE = {"decision": {}, "fps": 20, "deadline_ms": 1000}
ONE, OTHER = "tcp://127.0.0.1:9", "tcp://127.0.0.1:11"


@pytest.fixture(scope="module")
def second() -> Iterator[RunningMec]:
    with running_mec(WORKLOAD) as running:
        yield running


@pytest.mark.slow
def test_the_second_answers_when_the_first_is_killed_and_the_first_when_it_is_back(
    second: RunningMec, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running_mec(WORKLOAD))
        mecs = [first.endpoint, second.endpoint]
        running = stack.enter_context(device(mecs, tmp_path / "log", frames=FOREVER, json="-", **LIVE))
        running.wait_for_mec(first.endpoint)
        first.process.kill()
        first.process.wait()
        running.wait_for_mec(second.endpoint)
        with running_mec(WORKLOAD, bind=first.endpoint):
            running.wait_for_mec(first.endpoint, after=running.outcomes_so_far())
            done = running.stop()
    assert done.code == 0
    done.check_no_frame_lost()
    link = json.loads(done.out)["link"]
    assert link["switches"] >= 2
    assert [mec["mec"] for mec in link["mecs"]] == mecs
    assert all(mec["answered"] > 0 for mec in link["mecs"])
    assert f"the MEC at {second.endpoint} is asked from now on, not the one at {first.endpoint}" in done.err
    assert f"{first.endpoint}: the link is down" in done.err


def test_with_one_absent_and_one_killed_every_frame_is_answered_here(tmp_path: Path) -> None:
    with (
        running_mec(WORKLOAD) as last,
        device([ONE, last.endpoint], tmp_path / "log", frames=FOREVER, **LIVE) as running,
    ):
        running.wait_for_mec(last.endpoint)
        last.process.kill()
        running.wait_for_status("fallback", after=running.outcomes_so_far())
        running.wait_for_outcomes(running.outcomes_so_far() + 20)
        done = running.stop()
    assert done.code == 0
    done.check_no_frame_lost()
    assert "no MEC can be asked; answering locally" in done.err


def test_the_breaker_of_one_that_lies_opens(second: RunningMec, tmp_path: Path) -> None:
    nan = np.array([np.nan], np.float32)
    with Relay(second.endpoint, 1.0, lambda outputs, _: (np.repeat(nan, len(outputs) // 4).tobytes(), 0.0)) as liar:
        mecs = [liar.endpoint, second.endpoint]
        done = run_device_here(mecs, tmp_path / "log", frames=60, json="-", **LIVE)
    done.check_most("ok", 60)
    first, last = json.loads(done.out)["link"]["mecs"]
    assert first["answered"] == 0
    assert first["breaker_openings"] >= 1
    assert last["answered"] >= 30
    assert f"the breaker of the MEC at {liar.endpoint} is open for 0.5 s: it failed 3 times in a row" in done.err


class TestNaming:
    def test_a_file_takes_one_or_a_list_and_flags_replace_it(self, tmp_path: Path) -> None:
        listed = config_of({"device": {"mec": [ONE, OTHER]}})
        assert listed.device.mec == (ONE, OTHER)
        assert config_of({"device": {"mec": ONE}}).device.mec == ONE
        assert f'mec = ["{ONE}", "{OTHER}"]' in as_toml(listed)
        (tmp_path / "file.toml").write_text(as_toml(listed))
        done = run_device_here(OTHER, tmp_path / "log", config=tmp_path / "file.toml", frames=2, fps=50, json="-")
        assert done.code == 0
        assert "mecs" not in json.loads(done.out)["link"]

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ([], "got no MEC"),
            ([ONE, "tcp://127.0.0.1:09"], "MEC tcp://127.0.0.1:09 is given twice"),
            ([ONE, "nowhere"], "does not start with tcp://"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, given: list[str], expected: str) -> None:
        with pytest.raises(UsageError, match=expected):
            addresses_of(given)

    def test_a_python_program_gives_a_list(self) -> None:
        with Device(WORKLOAD, mec=[ONE, OTHER]) as one:
            assert one.mec == f"{ONE}, {OTHER}"

    @pytest.mark.parametrize("options", [["--mec", ONE, "--mec", ONE], ["--mec", ONE, "--mec", ""]])
    def test_so_are_flags(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert mecpilot.main(["device", "--workload", WORKLOAD, *options]) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_the_number_of_public_keys_must_fit(self) -> None:
        three = SecuritySection(key=Path("own.key"), mec_key=("a" * 40,) * 3)
        with pytest.raises(UsageError, match="got 3 times --mec-key for 2 MECs"):
            Device(WORKLOAD, mec=[ONE, OTHER], security=three)
