"""The map of kinds is printed, drawn and written with what it was made with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.bench_map import main
from controller.records import KINDS

SMALL = ("--slowdown", "5", "300", "2", "--uplink-kbit", "1", "50000", "3", "--kept", "2", "--episodes", "1")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_map", *arguments])
    main()


def test_a_map_of_garments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.json").write_text('{"frames": 30}')
    plot, report = tmp_path / "map.png", tmp_path / "map.json"
    files = ("--scenario", str(tmp_path / "short.json"), "--plot", str(plot), "--json", str(report))
    run(monkeypatch, "--workload", "garments", "--profile", "shipped", *SMALL, *files)
    made = json.loads(report.read_text())
    assert len(made["cells"]) == 6
    assert made["conditions"]["frames"] == 30
    assert sum(figures["best_frac"] for figures in made["kinds"].values()) == pytest.approx(1.0)
    for cell in made["cells"]:
        known = {kind: found["utility"] for kind, found in cell["kinds"].items() if found}
        assert cell["best"] == max(known, key=known.__getitem__)
        assert (cell["lead"] is None) == (len(known) == 1)
    assert plot.stat().st_size > 5000
    shown = capsys.readouterr().out
    assert "deadline 110 ms" in shown
    assert all(kind in shown for kind in KINDS)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--slowdown", "0", "300", "2"), "--slowdown: got 0 to 300, 2 values; expected 0 < FROM <= TO"),
        (("--uplink-kbit", "8", "50000", "0.5"), "--uplink-kbit: got 8 to 50000, 0.5 values"),
        (("--kept", "0"), "--kept: got 0; expected at least 1"),
    ],
)
def test_a_grid_without_cells_is_refused_in_one_line(
    arguments: tuple[str, ...], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=error):
        run(monkeypatch, "--workload", "garments", "--profile", "shipped", *arguments)
