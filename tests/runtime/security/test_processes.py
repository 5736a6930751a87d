"""Device and MEC as a user runs them: commands that make keys, one that serves, one that answers frames."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live import WORKLOAD, device, run_device_here
from support.waiting import wait_until

import mecpilot
from controller.errors import UsageError
from runtime.config.sections.security import SecuritySection
from runtime.device.device import Device
from runtime.mec.records import RequestRecord
from runtime.mec.server import MecServer
from runtime.security.keys import is_key
from runtime.security.resolve import is_loopback

OFFLOAD = {"partition_point": 0, "payload": "raw"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def keys(folder: Path, *words: str) -> int:
    return mecpilot.main(["keys", *words, "--dir", str(folder)])


class TestCommands:
    def test_from_new_keys_to_a_revoked_one(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert keys(folder, "new", "mec") == 0
        assert keys(folder, "new", "camera-1") == 0
        public = capsys.readouterr().out.split()
        assert len(public) == 2
        assert all(is_key(key) for key in public)
        assert stat.S_IMODE((folder / "camera-1.key").stat().st_mode) == 0o600
        assert keys(folder, "new", "mec") == 2
        assert keys(folder, "allow", "camera-1", public[1]) == 0
        assert keys(folder, "allow", "mec", str(folder / "mec.pub"), "--role", "operator") == 0
        capsys.readouterr()
        assert keys(folder, "show", "--json", "-") == 0
        shown: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert [key["key"] for key in shown["keys"]] == [public[1], public[0]]
        assert [(entry["name"], entry["roles"]) for entry in shown["admitted"]] == [
            ("camera-1", ["device"]),
            ("mec", ["operator"]),
        ]
        assert keys(folder, "show", "mec") == 0
        assert capsys.readouterr().out == f"{public[0]}\n"
        assert keys(folder, "show") == 0
        assert public[1] in capsys.readouterr().out
        assert keys(folder, "revoke", "camera-1") == 0
        assert keys(folder, "revoke", "camera-1") == 2

    def test_no_command_prints_a_secret(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        for words in (["new", "mec"], ["show"], ["show", "mec"], ["show", "--json", "-"], ["new", "mec"]):
            keys(folder, *words)
        secret = (folder / "mec.key").read_text().split()[1]
        assert secret not in "".join(capfd.readouterr())

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (["allow", "camera", "nothing"], "neither a public key"),
            (["allow", "../camera", "a" * 40], "name '../camera'"),
            (["allow", "camera", "a" * 40, "--role", "king"], "role 'king'"),
            (["revoke", "camera"], "there is no list"),
            (["show", "camera"], "there is no folder"),
        ],
    )
    def test_what_cannot_be_is_one_line(
        self, folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], why: str
    ) -> None:
        assert keys(folder, *words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line


class TestRule:
    """Off this machine keys are needed, unless somebody says that they are not."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST."])
    def test_this_machine(self, host: str) -> None:
        assert is_loopback(host)

    @pytest.mark.parametrize("host", ["0.0.0.0", "*", "10.0.0.5", "::", "128.0.0.1", "localhost.example", "eth0"])
    def test_any_other(self, host: str) -> None:
        assert not is_loopback(host)

    def test_a_mec_is_refused_in_one_line_that_says_how_to_make_keys(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert mecpilot.main(["mec", "--workload", WORKLOAD, "--bind", "tcp://0.0.0.0:*"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "mecpilot keys new" in line
        assert "mecpilot keys allow" in line
        assert "--plain" in line

    def test_a_device_is_refused_in_one_line_that_says_how_to_make_keys(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert mecpilot.main(["device", "--workload", WORKLOAD, "--mec", "tcp://10.0.0.5:5577"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "mecpilot keys new" in line
        assert "--mec-key" in line
        assert "--plain" in line

    def test_plain_is_warned_of_off_this_machine_only(self) -> None:
        for endpoint, warnings in (("tcp://10.0.0.5:5577", 1), ("tcp://127.0.0.1:5577", 0)):
            lines: list[str] = []
            Device(WORKLOAD, "greedy", endpoint, security=SecuritySection(plain=True), log=lines.append)
            assert len([line for line in lines if "WARNING" in line and "plain" in line]) == warnings
        lines = []
        MecServer(WORKLOAD, "tcp://0.0.0.0:*", security=SecuritySection(plain=True), log=lines.append).close()
        assert "WARNING" in lines[0]
        assert "is plain" in lines[0]

    @pytest.mark.parametrize(
        ("security", "why"),
        [
            (SecuritySection(key=Path("a.key")), "--key without --mec-key"),
            (SecuritySection(mec_key="a.pub"), "--mec-key without --key"),
            (SecuritySection(key=Path("a.key"), plain=True), "got --plain and --key"),
            (SecuritySection(key="nothing.key", mec_key="b" * 40), "nothing.key: No such file"),  # type: ignore[arg-type]
            (SecuritySection(key=3), "security: expected a path"),  # type: ignore[arg-type]
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, security: SecuritySection, why: str) -> None:
        with pytest.raises(UsageError, match=why):
            Device(WORKLOAD, "greedy", security=security)

    def test_a_list_without_a_key_is_refused(self) -> None:
        with pytest.raises(UsageError, match="--allow without --key"):
            MecServer(WORKLOAD, "tcp://127.0.0.1:*", security=SecuritySection(allow=Path("allowed.txt")))


class Requests:
    def __init__(self) -> None:
        self.devices: list[str] = []

    def add(self, record: RequestRecord) -> None:
        self.devices.append(record.device)

    def close(self) -> None: ...


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[MecServer, Requests]]:
    """A MEC with a key, and one device on its list."""
    for name in ("mec", "camera-1", "eve"):
        assert keys(folder, "new", name) == 0
    assert keys(folder, "allow", "camera-1", str(folder / "camera-1.pub")) == 0
    requests = Requests()
    security = SecuritySection(key=folder / "mec.key")
    with MecServer(WORKLOAD, "tcp://127.0.0.1:*", sinks=[requests], security=security).start() as server:
        yield server, requests


def options(folder: Path, name: str, **more: object) -> dict[str, object]:
    return {"key": folder / f"{name}.key", "mec_key": folder / "mec.pub", "decision": OFFLOAD, "fps": 20} | more


class TestService:
    def test_a_listed_device_is_served_by_the_name_of_its_key(
        self, served: tuple[MecServer, Requests], folder: Path, tmp_path: Path
    ) -> None:
        server, requests = served
        done = run_device_here(
            server.endpoint, tmp_path / "log", **options(folder, "camera-1", frames=20, deadline_ms=5000)
        )
        assert done.code == 0
        done.check_most("ok", 20)
        assert set(requests.devices) == {"camera-1"}

    @pytest.mark.parametrize(
        ("name", "more", "why"),
        [
            ("eve", {}, "does not know this device's key"),
            ("camera-1", {"mec_key": "eve.pub"}, "may not have the pinned key"),
        ],
    )
    def test_a_device_that_is_not_admitted_answers_alone_and_says_why(
        self,
        served: tuple[MecServer, Requests],
        folder: Path,
        tmp_path: Path,
        name: str,
        more: dict[str, str],
        why: str,
    ) -> None:
        server, requests = served
        given = options(folder, name, frames=60) | {key: folder / value for key, value in more.items()}
        done = run_device_here(server.endpoint, tmp_path / "log", **given, json="-")
        assert done.code == 0
        done.check_most("fallback", 60)
        assert why in json.loads(done.out)["link"]["trouble"]
        assert why in done.err
        assert not requests.devices

    def test_a_plain_device_answers_alone_and_says_why(
        self, served: tuple[MecServer, Requests], tmp_path: Path
    ) -> None:
        done = run_device_here(served[0].endpoint, tmp_path / "log", frames=60, fps=20, decision=OFFLOAD, json="-")
        assert done.code == 0
        assert "speaks encrypted, this device plain" in json.loads(done.out)["link"]["trouble"]

    @pytest.mark.slow
    @pytest.mark.realtime
    def test_a_revoked_device_answers_alone_from_then_on_and_loses_no_frame(
        self, served: tuple[MecServer, Requests], folder: Path, tmp_path: Path
    ) -> None:
        server, requests = served
        with device(server.endpoint, tmp_path / "log", **options(folder, "camera-1", frames=100000)) as running:
            running.wait_for_outcomes(1)
            running.wait_for_status("ok")
            assert keys(folder, "revoke", "camera-1") == 0
            running.wait_for_status("fallback", after=running.outcomes_so_far())
            wait_until(lambda: server.turned_away is not None and server.turned_away.handshakes > 0, "the refusal")
            asked = len(requests.devices)
            running.wait_for_outcomes(running.outcomes_so_far() + 20)
            assert len(requests.devices) == asked
            assert keys(folder, "allow", "camera-1", str(folder / "camera-1.pub")) == 0
            running.wait_for_status("ok", after=running.outcomes_so_far())
            done = running.stop()
        assert done.code == 0
        done.check_no_frame_lost()
