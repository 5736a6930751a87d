"""The demo shows the same on every machine, as far as machines allow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from agents.demo import QUICK, DemoFiles, _what_next, same_device
from controller.scenario import Scenario
from runtime.profiling.profile import read_profile, shipped_path, write_profile


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0])
def test_the_emulated_device_is_as_slow_on_a_slower_machine(times: float, tmp_path: Path) -> None:
    shipped = read_profile(shipped_path("garments"))
    assert shipped.device is not None
    slower = [msgspec.structs.replace(s, median_s=times * s.median_s) for s in shipped.device.segments]
    device = msgspec.structs.replace(shipped.device, segments=tuple(slower))
    write_profile(tmp_path / "profile.json", msgspec.structs.replace(shipped, device=device))
    scenario = Scenario(device_slowdown=100.0)
    expected = replace(scenario, device_slowdown=100.0 / times)
    assert same_device(scenario, "garments", tmp_path / "profile.json") == expected


@pytest.mark.parametrize(("workload", "warned"), [("campus", True), ("garments", False)])
def test_who_tries_a_camera_next_knows_what_to_expect(workload: str, warned: bool, tmp_path: Path) -> None:
    files = DemoFiles(tmp_path, replace(QUICK, workload=workload))
    assert ("expect poor boxes: the models know one camera" in _what_next(files)) == warned
