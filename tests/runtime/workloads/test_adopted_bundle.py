"""A bundle carries the description of its workload: it is opened by its folder, served and run without its footage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import msgspec
import pytest
import torch
from support.adopted import SHAPE, adoption_of, picture_at, write_adoption, write_video
from support.live import outcomes_in
from support.once import once

import mecpilot
import runtime.cli.profile
from controller.errors import FailureError, UsageError
from runtime.building.build import write_bundle
from runtime.building.measure import TrainedModel, measure_model
from runtime.building.payload_sizes import measure_images
from runtime.bundles.bundle import Bundle, open_bundle, open_pair
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.bundles.weights import save_weights
from runtime.deploy.check import HealthCheck
from runtime.deploy.packing import pack
from runtime.deploy.release import RELEASE_FILE, encode_release
from runtime.mec.deployment import path_of
from runtime.testbed.processes import running_mec
from runtime.workloads.adopted.families import Answers, StudentFamily
from runtime.workloads.adopted.workload import Adopted, read_adopted

FRAMES = 12


def _make(folder: Path) -> None:
    """A bundle with a small detector of two classes that learned nothing. Its footage is moved away afterwards."""
    folder.mkdir()
    video = write_video(folder / "site.avi")
    adoption = msgspec.structs.replace(
        adoption_of(video),
        families={"small": StudentFamily("nano", Answers(2, (64, 32)))},
        image_codecs=("raw",),
        tensor_codecs=("u8",),
    )
    out = write_adoption(folder / "bundle", adoption)
    work = read_adopted(out)
    torch.manual_seed(0)
    model = work.build("small")
    save_weights(model, out / "small.safetensors")
    trained = TrainedModel("small", "small", "small.safetensors", model.exit_after, {})
    write_bundle(out, work, [measure_model(out, work, trained)], measure_images(work, codecs=("raw",)))
    profile = ["profile", "--workload", str(out), "--quick", "--out", str(folder / "profile.json")]
    assert mecpilot.main(profile) == 0
    video.rename(folder / "away.avi")


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime.cli.profile, "QUICK_BUDGET_S", 0.1)
    return once(tmp_path_factory, "adopted", _make)


@pytest.fixture
def folder(made: Path) -> Path:
    return made / "bundle"


def test_the_folder_is_bundle_and_workload(folder: Path) -> None:
    for opened, work in (open_pair(None, str(folder)), open_pair(folder), open_pair(str(folder), str(folder))):
        assert isinstance(work, Adopted)
        assert opened.held.workload == work.name == "site"
        assert opened.work is work
        assert opened.frame_shape == SHAPE
        assert opened.reference == str(folder)
    assert {"adoption.json", "truth.json"} <= set(open_bundle(folder).file_names)


def test_a_changed_description_is_another_bundle(folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "bundle"
    shutil.copytree(folder, changed)
    document = json.loads((changed / "adoption.json").read_text())
    document["decoding"]["threshold"] = 0.9
    (changed / "adoption.json").write_text(json.dumps(document))
    with pytest.raises(FailureError, match="damaged or was changed"):
        open_bundle(changed)
    with pytest.raises(UsageError, match="is for workload 'site'"):
        open_bundle(folder).served_by(read_adopted(changed))
    with pytest.raises(UsageError, match="is for workload 'garments'"):
        open_bundle("garments").served_by(read_adopted(folder))


def test_a_release_carries_the_description_and_passes_the_check_of_a_mec_that_serves_it(
    folder: Path, tmp_path: Path
) -> None:
    packed = pack(folder, tmp_path)
    assert {"adoption.json", "truth.json", MANIFEST_FILE} <= {file.name for file in packed.release.files}
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for file in packed.release.files:
        shutil.copy(packed.paths[file.sha256], arrived / file.name)
    (arrived / RELEASE_FILE).write_bytes(encode_release(packed.release))
    verdict = HealthCheck(path_of(read_adopted(folder)))(arrived)
    assert not verdict.reason
    assert verdict.samples > 0


def test_the_twin_plays_what_was_recorded(made: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--workload", str(made / "bundle"), "--profile", str(made / "profile.json")]
    command += ["--controllers", "greedy", "--seeds", "1", "--frames", "10", "--json", str(tmp_path / "found.json")]
    assert mecpilot.main(command) == 0
    assert json.loads((tmp_path / "found.json").read_text())["workload"] == "site"


def test_device_and_mec_run_without_the_footage(made: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(pictures / f"{number}.png"), picture_at(number))
    bundle = Bundle(made / "bundle")
    profile = ("--profile", str(made / "profile.json"))
    decision = {"model": "small", "resolution_px": 64, "exit_branch": 0, "partition_point": 0, "payload": "raw"}
    with running_mec(bundle.reference, options=profile) as mec:
        command = ["device", "--workload", bundle.reference, *profile, "--mec", mec.endpoint, "--require-mec"]
        command += ["--source", str(pictures), "--decision", json.dumps(decision), "--fps", "20"]
        command += ["--deadline-ms", "5000", "--outcomes", str(tmp_path / "log"), "--video", str(tmp_path / "x.png")]
        assert mecpilot.main(command) == 0
    answered = [outcome for outcome in outcomes_in(tmp_path / "log") if outcome["status"] == "ok"]
    assert answered
    model, work = bundle.model("small"), bundle.work
    for outcome in answered:
        pixels = work.resize(picture_at(outcome["source_index"]), 64)[None]
        outputs = model.whole(work.to_input(pixels), outcome["decision"]["exit_branch"])
        assert outcome["prediction"] == work.answers(outputs.detach().numpy(), 64)[0]
    assert (tmp_path / "x.png").stat().st_size > 0
    with pytest.raises(FailureError, match=r"the footage of 'site' is not at .*site\.avi"):
        work.sample(0)
