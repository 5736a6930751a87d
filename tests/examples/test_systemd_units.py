"""The shipped unit files are correct for systemd, hardened, and start commands that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import mecpilot
from runtime.config.load import load_config

FOLDER = Path(mecpilot.__file__).parent / "examples" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
#: Of `systemd-analyze security`, in tenths: "OK" ends at 40. What remains is the network and JIT compilation.
MOST_EXPOSURE = 20

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def installed(unit: Path, folder: Path) -> Path:
    """The unit as on a machine where mecpilot is installed: its program exists, and a template has an instance."""
    program = shutil.which("true")
    path = folder / unit.name.replace("@.", "@door.")
    path.write_text(unit.read_text().replace("/opt/mecpilot/bin/mecpilot", str(program)))
    return path


def analyze(*arguments: str) -> str:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_no_fault(unit: Path, tmp_path: Path) -> None:
    path = installed(unit, tmp_path)
    told = analyze("verify", "--man=no", "--recursive-errors=no", str(path))
    assert path.name not in told
    analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(path))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_with_options_that_it_has(unit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = re.findall(r"^ExecStart=\S+/mecpilot (.*)$", unit.read_text(), re.M)
    command, *options = line.split()
    assert mecpilot.main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in options if option.startswith("--"))


def test_the_pages_show_settings_that_the_units_can_read(tmp_path: Path) -> None:
    """The files of /etc/mecpilot in docs/deploy.md."""
    page = (FOLDER.parents[1] / "docs" / "deploy.md").read_text()
    files = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    assert len(files) == len(UNITS)
    for text in files:
        (tmp_path / "settings.toml").write_text(text)
        load_config(tmp_path / "settings.toml")
