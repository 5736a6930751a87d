"""With a hardware encoder a payload of H.264 costs the device the resize: in tables, twin, training and device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mecpilot
from agents.runs.run_folder import RunFolder
from controller.costs import CostTable
from controller.errors import UsageError
from controller.records import NO_PAYLOAD, Decision
from controller.scenario import ScenarioRange
from controller.space import DecisionSpace
from envs.setup import open_setup
from runtime.bundles.bundle import open_bundle
from runtime.codecs.image import Jpeg
from runtime.config.load import load_config
from runtime.config.sections.device import EmulationSection
from runtime.files.scenario_file import range_from
from runtime.profiling.hardware_encoder import with_hardware_encoder
from runtime.profiling.profile import load_costs
from runtime.testbed.markov_traces import builtin_traces

HEAD_MS = {
    Decision("net", 384, 0, 0, "raw"): 0.2,
    Decision("net", 384, 0, 0, "h264q40"): 0.7,
    Decision("net", 384, 0, 0, "h264q45", 3): 0.6,
    Decision("net", 384, 0, 0, "jpeg5"): 0.5,
    Decision("net", 256, 0, 0, "raw"): 0.6,
    Decision("net", 256, 0, 0, "h264q40"): 0.9,
    Decision("net", 384, 0, 2, "u1"): 2.0,
    Decision("net", 384, 0, 4, NO_PAYLOAD): 4.0,
}
NOTE = "hardware_encoder: encoding H.264 takes the device no time"


def table() -> CostTable:
    count, ones = len(HEAD_MS), np.ones(len(HEAD_MS))
    space = DecisionSpace(tuple(HEAD_MS), np.full(count, 4), np.arange(count))
    return CostTable(space, ones, np.array(list(HEAD_MS.values())) / 1e3, ones, ones, ones)


@pytest.fixture
def jpeg_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped bundle has JPEG at every resolution."""
    monkeypatch.setattr("runtime.profiling.hardware_encoder.H264", Jpeg)


def test_only_the_device_time_of_h264_changes_to_that_of_the_resize() -> None:
    costs, changed = table(), with_hardware_encoder(table())
    assert (1e3 * changed.head_s).round(6).tolist() == [0.2, 0.2, 0.2, 0.5, 0.6, 0.6, 2.0, 4.0]
    assert (1e3 * costs.head_s).round(6).tolist() == list(HEAD_MS.values())
    for name in ("accuracy", "payload_bytes", "mec_s", "neighbour_mec_s"):
        assert np.array_equal(getattr(changed, name), getattr(costs, name))


def head_s(costs: CostTable, codec: str) -> float:
    """Shortest device time of the images of 384 px in a codec."""
    decisions = costs.space.decisions
    rows = [row for row, d in enumerate(decisions) if (d.resolution_px, d.partition_point) == (384, 0)]
    return float(min(costs.head_s[row] for row in rows if decisions[row].payload.startswith(codec)))


@pytest.mark.usefixtures("jpeg_in_hardware")
def test_twin_and_device_play_with_these_costs() -> None:
    device = mecpilot.Device(
        "campus", controller="static-best", profile="shipped", emulation=EmulationSection(hardware_encoder=True)
    )
    setup = open_setup("campus", builtin_traces("test"), "test", {"hardware_encoder": True}, Path("shipped"))
    plain = open_setup("campus", builtin_traces("test"), "test", None, Path("shipped"))
    resize_s = head_s(load_costs(open_bundle("campus"), Path("shipped")), "raw")
    for costs in (device.costs, setup.costs):
        assert head_s(costs, "jpeg") == resize_s < head_s(plain.costs, "jpeg")
    assert NOTE in device.provenance().notes
    device.close()


def test_a_device_only_chooses_among_codecs_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jpeg, "missing", property(lambda self: "" if self.quality > 50 else "not installed"))
    with mecpilot.Device("campus", controller="static-best", profile="shipped") as device:
        payloads = {decision.payload for decision in device.costs.space.decisions}
    assert not payloads & {"jpeg5", "jpeg10", "jpeg30"}
    assert "jpeg75" in payloads


def test_commands_take_the_flag_and_a_run_remembers_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("--workload", "garments", "--profile", "shipped", "--hardware-encoder")
    report = ("--controllers", "device-only", "--seeds", "1", "--frames", "5")
    assert mecpilot.main(["evaluate", *quick, *report]) == 0
    assert NOTE in capsys.readouterr().out
    out = ("--out", str(tmp_path / "run"), "--steps", "100")
    assert mecpilot.main(["train", *quick, *out]) == 0
    assert RunFolder(tmp_path / "run").config().scenario.hardware_encoder
    assert mecpilot.main(["train", *out, "--resume", "--hardware-encoder"]) == 2
    assert "--hardware-encoder" in capsys.readouterr().err


def test_a_device_that_is_not_slow_enough_for_encoding_in_software_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mecpilot.toml"
    path.write_text("[emulation]\nhardware_encoder = true\nslowdown = 10\n")
    with pytest.raises(UsageError, match="--hardware-encoder with --slowdown 10; expected at least 20"):
        load_config(path)
    path.write_text("[emulation]\nhardware_encoder = true\nslowdown = 20\n")
    assert load_config(path).emulation.hardware_encoder


def test_a_scenario_states_it_as_true_or_false() -> None:
    assert range_from({"hardware_encoder": True}, "s.json", ScenarioRange()).hardware_encoder
    with pytest.raises(UsageError, match=r"hardware_encoder: got 'yes'; expected true or false"):
        range_from({"hardware_encoder": "yes"}, "s.json", ScenarioRange())
