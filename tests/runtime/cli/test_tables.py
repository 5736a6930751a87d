"""What commands print fits 80 columns, and no figure and no name is cut off."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.live import run_device_here

import mecpilot
from runtime.bundles.bundle import open_bundle
from runtime.cli.profile import report
from runtime.profiling.profile import choice_of, read_profile, shipped_path

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def check_whole(shown: str, columns: int = 80) -> None:
    assert max(map(len, shown.splitlines())) <= columns
    assert "…" not in shown
    assert "..." not in shown


@pytest.mark.parametrize("name", ["campus", "garments"])
def test_models_show(name: str, capsys: Capture) -> None:
    assert mecpilot.main(["models", "show", name]) == 0
    assert "payload" not in capsys.readouterr().out
    assert mecpilot.main(["models", "show", name, "--payloads"]) == 0
    shown = capsys.readouterr().out
    check_whole(shown)
    words, manifest = set(shown.split()), open_bundle(name).manifest
    for model in manifest.models:
        assert {model.name, f"{model.parameters / 1e6:.2f}"} <= words
    for payload in manifest.payloads:
        assert {payload.codec, f"{payload.mean_bytes:.0f}"} <= words


def test_models_show_wide_has_the_spread_too(capsys: Capture) -> None:
    assert mecpilot.main(["models", "show", "campus", "--payloads", "--wide"]) == 0
    shown = capsys.readouterr().out
    check_whole(shown, columns=160)
    for payload in open_bundle("campus").manifest.payloads:
        assert f"{payload.mean_bytes:.0f} ± {payload.std_bytes:.0f} (" in shown


def test_models_list(capsys: Capture) -> None:
    assert mecpilot.main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    check_whole(shown)
    for name in ("campus", "garments"):
        bundle = open_bundle(name)
        assert {name, bundle.digest[:12], str(len(bundle.space))} <= set(shown.split())
        assert set(bundle.model_names) <= set(re.findall(r"\w+", shown))


@pytest.mark.parametrize("name", ["campus", "garments"])
def test_profile(name: str, capsys: Capture) -> None:
    measured = read_profile(shipped_path(name))
    choice = choice_of(open_bundle(name), measured)
    report(measured, Path("profile.json"), None, choice)
    shown = capsys.readouterr().out
    check_whole(shown)
    assert measured.device is not None
    local = [s for s in measured.device.segments if s.key.exit_branch == 0]
    assert local
    assert all(f"{segment.median_s * 1e3:.3f} ms" in shown for segment in local)
    assert f"{choice.candidates} of {choice.legal} decisions" in shown
    assert all(loss.links in shown for loss in choice.losses)


def test_summary_of_a_device(tmp_path: Path) -> None:
    done = run_device_here("tcp://127.0.0.1:9", tmp_path / "log", frames=3, fps=0, profile="shipped")
    assert done.code == 0
    check_whole("\n".join(line for line in done.out.splitlines() if line[0] in "┌├│└"))
    assert "no MEC was met at" in done.out


def test_tune(tmp_path: Path, capsys: Capture) -> None:
    names = "static-best,edgent-dynamic,jpeg-offload"
    options = ["--workload", "garments", "--episodes", "2", "--frames", "5", "--profile", "shipped"]
    assert mecpilot.main(["tune", *options, "--controllers", names, "--out", str(tmp_path / "tuning.json")]) == 0
    shown = capsys.readouterr().out
    check_whole(shown)
    assert set(names.split(",")) <= set(re.findall(r"[\w-]+", shown))
