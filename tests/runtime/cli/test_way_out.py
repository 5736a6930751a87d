"""What commands say where a user took a wrong turn: one line with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

import mecpilot
from runtime.cli.status_tables import status_tables
from runtime.observe.oversight import shadow_text
from runtime.observe.summary import RunSummary
from runtime.observe.tables import table_console
from runtime.security.key_files import write_pair

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("mec", "door"):
        write_pair(tmp_path / "keys", name)
    return tmp_path / "keys"


def said(capsys: Capture, code: int, *words: str) -> str:
    """What a command prints, on both streams."""
    assert mecpilot.main(list(words)) == code
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_a_public_key_or_none_in_place_of_the_secret_one(keys: Path, capsys: Capture) -> None:
    device = ["device", "--workload", "garments", "--mec-key", str(keys / "mec.pub"), "--key"]
    assert f"expected the secret one, {keys / 'door.key'}" in said(capsys, 2, *device, str(keys / "door.pub"))
    assert f"`mecpilot keys new cam --dir {keys}` makes it" in said(capsys, 2, *device, str(keys / "cam.key"))


def test_a_role_that_is_replaced_is_said(keys: Path, capsys: Capture) -> None:
    allow = ["keys", "allow", "door", str(keys / "door.pub"), "--dir", str(keys)]
    said(capsys, 0, *allow, "--role", "operator")
    assert "as operator (" in said(capsys, 0, *allow)
    assert "as device, no longer as operator (" in said(capsys, 0, *allow, "--role", "device")


def test_show_finds_a_key_on_the_list_too(keys: Path, capsys: Capture) -> None:
    said(capsys, 0, "keys", "allow", "door", str(keys / "door.pub"), "--dir", str(keys))
    (keys / "door.key").unlink()
    assert said(capsys, 0, "keys", "show", "door", "--dir", str(keys)) == (keys / "door.pub").read_text()
    assert "there is no folder" in said(capsys, 2, "keys", "show", "--dir", str(keys / "nowhere"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[mec]\nbind = "tcp://0.0.0.0:5577"\n', "--bind tcp://0.0.0.0:5577 can be reached"),
        ('[device]\nmec = "tcp://10.0.0.5:5577"\n', "--mec tcp://10.0.0.5:5577 is not on this machine"),
        ('[mec]\nbind = "tcp://0.0.0.0:5577"\n[security]\nkey = "mec.key"\n', ""),
        ('[device]\nmec = "tcp://10.0.0.5:5577"\n[security]\nplain = true\n', ""),
    ],
)
def test_a_file_without_the_keys_that_it_needs_is_not_valid(
    tmp_path: Path, capsys: Capture, text: str, why: str
) -> None:
    file = tmp_path / "mecpilot.toml"
    file.write_text(text)
    shown = said(capsys, 2 if why else 0, "config", "check", str(file))
    assert (why or "is valid") in shown


def test_a_shadow_that_is_no_controller(capsys: Capture) -> None:
    shown = said(capsys, 2, "device", "--workload", "garments", "--shadow", "greed")
    assert "--shadow greed; did you mean 'greedy'? expected a policy file, or one of: " in shown


def test_a_shadow_claims_no_difference_that_it_cannot_see() -> None:
    notes = {
        "controller": "greedy",
        "decisions": 500,
        "equal_frac": 0.27,
        "modelled_difference": 0.0007,
        "modelled_difference_error": 0.0001,
        "real_utility_of_active": 0.9477,
    }
    assert shadow_text(notes).endswith("decisions equal, no difference in utility seen (estimate +0.0007)")
    shown = shadow_text(notes | {"modelled_difference": -0.1})
    assert shown.endswith(
        "estimated -0.1000 +- 0.0001 utility per frame against the active controller, which got 0.9477"
    )


def test_a_status_has_no_empty_tables_and_whole_titles(capsys: Capture) -> None:
    status = {
        "version": "1.2.3",
        "uptime_s": 12345.0,
        "bundles": [],
        "devices": [],
        "waiting": 0,
        "counts": {"peer_faults": 2},
        "deploy": None,
    }
    for table in status_tables(status):
        table_console().print(table)
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].strip() == "MEC 1.2.3, up 12345 s"
    assert "bundles" not in shown
    assert "messages that broke the protocol" in shown


def test_a_run_without_a_frame_says_so(capsys: Capture) -> None:
    table_console().print(RunSummary().table("t", link="no MEC was met"))
    shown = capsys.readouterr().out
    assert "no frame was captured" in shown
    assert "p50" not in shown
