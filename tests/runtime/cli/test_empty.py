"""`mecpilot models empty`: footage in, a file out, and a device that uses it."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

import mecpilot
from controller.records import Status
from runtime.cli.main import main
from runtime.workloads.registry import get_workload


def test_a_device_filters_with_what_was_trained_on_its_footage(tmp_path: Path) -> None:
    """Frames of the campus camera as pictures without labels: a few with people in the window, then none."""
    work, pictures, out = get_workload("campus"), tmp_path / "pictures", tmp_path / "empty.safetensors"
    pictures.mkdir()
    for index in range(90):
        cv2.imwrite(str(pictures / f"{index}.png"), work.sample(4 * index, "train")[0])
    command = ["models", "empty", "--source", str(pictures), "--window", "336,240,192,144", "--out", str(out)]
    assert main(command) == 0
    assert out.stat().st_size < 100_000
    section = mecpilot.FilterSection(empty=out)
    with mecpilot.Device("campus", "device-only", profile="shipped", fps=0, deadline_s=10.0, filter=section) as device:
        outcomes = list(device.run(pictures, window="336,240,192,144"))
    assert len(outcomes) == 90
    filtered = [outcome for outcome in outcomes if outcome.status is Status.FILTERED]
    assert filtered
    assert all((outcome.prediction, outcome.reused_frame) == ([], outcome.frame) for outcome in filtered)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workload", "garments"], "whose frames are never empty"),
        (["--window", "1,2,3,4"], "expected multiples of 4 pixels"),
        (["--window", "700,0,200,100"], "expected x,y,w,h in pixels of the frame"),
        (["--model", "huge"], "huge"),
        (["--source", "none.mp4"], "no such file"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = main(["models", "empty", "--out", str(tmp_path / "out.safetensors"), *options])
    assert code in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert not (tmp_path / "out.safetensors").exists()
