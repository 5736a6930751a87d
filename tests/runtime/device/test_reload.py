"""Policies are exchanged while a device serves: no frame is lost, and a file that cannot be used changes nothing."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live import WORKLOAD, device
from support.waiting import wait_until

from controller.controllers.base import Controller
from controller.errors import UsageError
from runtime.device.device import Device
from runtime.device.named import Named
from runtime.device.reloading import Reloading
from runtime.files.policy_file import load_policy, save_policy, shipped_policy
from runtime.files.provenance import Provenance
from runtime.mec.server import MecServer

ANY_PORT, NOBODY = "tcp://127.0.0.1:*", "tcp://127.0.0.1:9"
RELOADS = 20
#: Every fourth file is damaged, and one after it belongs to another workload.
DAMAGED, FOREIGN = 1, 3


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    shipped = shipped_policy(WORKLOAD)
    assert shipped is not None
    return Path(shutil.copy(shipped, tmp_path / "policy.safetensors"))


@pytest.fixture(scope="module")
def mec() -> Iterator[MecServer]:
    with MecServer(WORKLOAD, bind=ANY_PORT) as server:
        yield server.start()


def put(policy: Path, number: int) -> bool:
    """Put the next file in the place of the policy; whether it can be used."""
    sound, other = shipped_policy(WORKLOAD), shipped_policy("campus")
    assert sound is not None
    assert other is not None
    data = (other if number % 4 == FOREIGN else sound).read_bytes()
    new = policy.with_suffix(".new")
    if number % 4 == DAMAGED:
        new.write_bytes(data[:-20] + bytes(20))
    elif number % 4 == FOREIGN:
        new.write_bytes(data)
    else:
        save_policy(new, load_policy(sound)[0], WORKLOAD, {"number": number}, {})
    new.replace(policy)
    return number % 4 not in (DAMAGED, FOREIGN)


def test_twenty_reloads_cost_no_frame(mec: MecServer, policy: Path) -> None:
    said: list[str] = []
    wrong: list[int] = []  # reloads that did not end as they should
    refused = 0
    made = Device(WORKLOAD, mec=mec.endpoint, policy=policy, fps=40, deadline_s=1.0, log=said.append)

    def reload_often() -> None:
        nonlocal refused
        for number in range(RELOADS):
            sound = put(policy, number)
            try:
                made.reload()
                wrong.extend([] if sound else [number])
            except UsageError:
                wrong.extend([number] if sound else [])
                refused += 1

    with made:
        run = made.prepare(frames=120)
        run.warm_up()
        thread = threading.Thread(target=reload_often)
        outcomes = []
        for outcome in run:
            outcomes.append(outcome)
            if len(outcomes) == 10:
                thread.start()
        thread.join()
        run.close()
    assert sorted(outcome.frame for outcome in outcomes) == list(range(120))
    assert (refused, wrong) == (RELOADS // 2, [])
    assert run.seat.changes >= 1
    assert len([line for line in said if line.startswith("reloaded ppo: policy ")]) == run.seat.changes


def test_a_reload_before_a_run_holds_for_it(policy: Path) -> None:
    with Device(WORKLOAD, mec=NOBODY, fps=0, deadline_s=5.0) as made:
        assert made.reloaded is None
        made.reload(policy=policy)
        assert made.reloaded is not None
        assert made.reloaded.policies[0].path == str(policy)
        assert len(list(made.run(frames=3))) == 3


def test_files_that_have_not_changed_change_nothing(policy: Path) -> None:
    with Device(WORKLOAD, mec=NOBODY, policy=policy) as made:
        before = made._setup
        made.reload()
        assert (made._setup, made.reloaded) == (before, None)
        put(policy, 0)
        made.reload()
        assert made.reloaded is not None
        assert made._setup.chosen.controller is not before.chosen.controller


def test_a_reload_that_fails_at_its_last_step_changes_nothing(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> Provenance:
        raise OSError("input/output error")

    with Device(WORKLOAD, mec=NOBODY) as made:
        before = made._setup
        with monkeypatch.context() as patched:
            patched.setattr("runtime.device.device.provenance_of", unreadable)
            with pytest.raises(OSError, match="input/output"):
                made.reload(policy=policy)
        assert (made._setup, made._choice.policy, made.reloaded) == (before, None, None)
        made.reload(policy=policy)
        assert made.reloaded is not None


def test_a_file_that_changes_while_it_is_read_is_refused(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Device(WORKLOAD, mec=NOBODY, policy=policy) as made:
        put(policy, 0)
        before, make = made._setup, Named.make

        def slowly(self: Named, *arguments: Any) -> Controller:
            controller = make(self, *arguments)
            put(policy, 2)
            return controller

        with monkeypatch.context() as patched:
            patched.setattr(Named, "make", slowly)
            with pytest.raises(UsageError, match="changed while they were read"):
                made.reload()
        assert (made._setup, made.reloaded) == (before, None)


def test_what_is_asked_for_meanwhile_is_one_reload() -> None:
    began, go, reloads = threading.Event(), threading.Event(), []

    def reload() -> None:
        reloads.append(1)
        began.set()
        go.wait()

    reloading = Reloading(reload, lambda _: None)
    reloading.ask()
    assert began.wait(30.0)
    for _ in range(5):
        reloading.ask()
    go.set()
    reloading.close()
    assert len(reloads) == 2


def test_a_pinned_decision_comes_from_no_file() -> None:
    made = Device(WORKLOAD, mec=NOBODY, decision={"payload": "none"})
    with made, pytest.raises(UsageError, match="pinned comes from no file"):
        made.reload()


def test_a_policy_for_another_controller_is_refused(policy: Path) -> None:
    made = Device(WORKLOAD, mec=NOBODY, controller="greedy")
    with made, pytest.raises(UsageError, match="expected --controller ppo"):
        made.reload(policy=policy)


@pytest.mark.slow
def test_sighup_reloads_the_policy_of_a_running_device(mec: MecServer, policy: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    options = {"policy": policy, "json": summary, "frames": 100_000, "fps": 50, "shadow": "device-only"}
    with device(mec.endpoint, tmp_path / "log", **options) as running:
        running.wait_for_outcomes(10)
        for number in range(RELOADS):
            put(policy, number)
            seen = running.outcomes_so_far()
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda seen=seen: running.outcomes_so_far() >= seen + 5, "more outcomes")  # type: ignore[misc]
        done = running.stop()
    assert done.code == 0
    done.check_no_frame_lost()
    assert "reloaded ppo: policy" in done.err
    assert "not reloaded, the controller stays as it is: policy file" in done.err
    figures = json.loads(summary.read_text())
    assert figures["guard"]["decisions"] >= 100
    assert figures["shadow"]["controller"] == "device-only"
    assert figures["shadow"]["decisions"] + figures["shadow"]["left_out"] >= 1  # of the last controller
