"""What a MEC's log says of operators, and what those hear who are none or whom no MEC answers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.live import WORKLOAD

import mecpilot
from runtime.config.sections.security import SecuritySection
from runtime.mec.server import MecServer
from runtime.security.key_files import write_pair

ANY_PORT = "tcp://127.0.0.1:*"


def test_who_tries_to_deploy_is_in_the_log_of_the_mec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys"
    for name in ("mec", "door", "boss"):
        write_pair(keys, name)
    for name, role in (("door", "device"), ("boss", "operator")):
        assert (
            mecpilot.main(["keys", "allow", name, str(keys / f"{name}.pub"), "--role", role, "--dir", str(keys)]) == 0
        )
    lines: list[str] = []
    security = SecuritySection(key=keys / "mec.key")
    with MecServer(WORKLOAD, bind=ANY_PORT, security=security, log=lines.append).start() as server:
        options = ["--mec", server.endpoint, "--mec-key", str(keys / "mec.pub"), "--key"]
        assert mecpilot.main(["status", *options, str(keys / "door.key")]) == 1
        assert "give an operator's --key" in capsys.readouterr().err
        assert mecpilot.main(["rollback", WORKLOAD, *options, str(keys / "boss.key")]) == 1
    assert any(line.startswith("refused a status by door (fingerprint ") for line in lines), lines
    assert any(line.startswith("refused a rollback by boss (fingerprint ") for line in lines), lines


def test_an_operator_hears_soon_why_no_mec_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert mecpilot.main(["status", "--mec", f"tcp://127.0.0.1:{port}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"no answer from tcp://127.0.0.1:{port}: connection refused")


def test_an_operator_with_an_unlisted_key_hears_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys"
    write_pair(keys, "mec")
    write_pair(keys, "eve")
    (keys / "allowed.txt").write_text("")
    security = SecuritySection(key=keys / "mec.key")
    with MecServer(WORKLOAD, bind=ANY_PORT, security=security).start() as server:
        options = ["--mec", server.endpoint, "--mec-key", str(keys / "mec.pub"), "--key", str(keys / "eve.key")]
        assert mecpilot.main(["status", *options]) == 1
    assert "mecpilot keys allow" in capsys.readouterr().err
