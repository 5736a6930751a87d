"""docs/python.md: its snippet runs, and its table names the public names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mecpilot

PAGE = (Path(mecpilot.__file__).parent / "docs" / "python.md").read_text()


def test_the_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """On the smaller workload and fewer frames."""
    snippet = PAGE.split("```python\n")[1].split("```")[0]
    assert len(snippet.splitlines()) <= 16
    small = snippet.replace('"campus"', '"garments"').replace("Campus-v0", "Garments-v0").replace("=50", "=5")
    exec(small.replace('{"deadline_s": 0.15}', '{"deadline_s": 0.15, "frames": 5}'), {})
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5 + 3
    assert "device-only  utility" in out


def test_the_table_names_what_is_public() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = {
        name.split("(")[0].split(".")[0] for row in rows for name in re.findall(r"`([A-Za-z_.0-9]+)", row.split("|")[1])
    }
    errors = {"MecpilotError", "UsageError", "FailureError"}
    assert named - {"mecpilot"} == set(mecpilot.__all__) - errors - {"__version__", "Bundle"}
    assert all(name in PAGE for name in errors)
