"""From an ONNX file and footage to a bundle that the twin, a MEC and a device run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.bright_bars import bright_bars_model, bright_bars_video
from support.live import outcomes_in
from support.once import once

import mecpilot
import runtime.adoption.run
from controller.errors import FailureError
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.files.new_folder import appearing_folder
from runtime.testbed.processes import running_mec

FRAMES = 50


def _files(folder: Path) -> tuple[Path, Path]:
    """A model and footage."""
    model, video = folder / "bars.onnx", folder / "bars.avi"
    model.write_bytes(bright_bars_model().SerializeToString())
    bright_bars_video(video, FRAMES)
    return model, video


def _command(model: Path, video: Path, out: Path, *more: str) -> list[str]:
    given = ["--footage", str(video), "--task", "text", "--out", str(out), "--jobs", "0", "--no-relatives"]
    return ["adopt", str(model), *given, *more]


def _make(folder: Path) -> None:
    folder.mkdir()
    model, video = _files(folder)
    command = _command(model, video, folder / "site", "--resolutions", "128,96", "--json", str(folder / "found.json"))
    assert mecpilot.main(command) == 0


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime.adoption.run, "PROFILE_BUDGET_S", 0.1)
    return once(tmp_path_factory, "adopted-bars", _make)


@pytest.fixture
def bundle(made: Path) -> Bundle:
    return open_bundle(made / "site")


def test_the_bundle_has_every_resolution_cut_and_codec(bundle: Bundle) -> None:
    whole = bundle.info("whole")
    assert bundle.workload == "site"
    assert bundle.manifest.resolutions_px == (128, 96)
    assert len(whole.stages) == 3
    assert whole.engine == "onnxruntime"
    assert {d.partition_point for d in bundle.space.decisions} == {0, 1, 2, 3}
    assert len(bundle.space) < 300


def test_the_whole_model_agrees_with_itself(bundle: Bundle) -> None:
    exact = bundle.manifest.variants[bundle.exact_variant("whole", 128, 0)]
    assert exact.accuracy == {"validation": 1.0, "test": 1.0}


def test_the_report_has_what_the_bundle_has(made: Path, bundle: Bundle) -> None:
    report = json.loads((made / "found.json").read_text())
    assert report == json.loads((made / "site" / "report.json").read_text())
    assert report["digest"] == bundle.digest
    assert report["truth"].startswith("agreement with the whole model")
    assert report["head_tail_error"] < 1e-5
    assert [row["cut"] for row in report["cuts"]] == [1, 2]
    assert {row["codec"] for row in report["payloads"]} >= {"raw", "jpeg75", "u8"}
    assert all(row["device_s"] > 0 for row in report["exits"])
    assert 0 < report["peak_memory_bytes"] < 4 << 30
    assert "| whole |" in (made / "site" / "report.md").read_text()


def test_the_twin_plays_the_bundle(made: Path, tmp_path: Path) -> None:
    command = [
        "evaluate",
        "--workload",
        str(made / "site"),
        "--controllers",
        "greedy",
        "--seeds",
        "1",
        "--frames",
        "10",
    ]
    assert mecpilot.main([*command, "--json", str(tmp_path / "found.json")]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["workload"] == "site"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_commands_that_follow_take_the_folder(made: Path, tmp_path: Path) -> None:
    on, run, policy = ("--workload", str(made / "site")), str(tmp_path / "run"), str(tmp_path / "site.safetensors")
    quick = ("--controllers", "ppo,greedy", "--policy", policy, "--seeds", "1", "--frames", "10")
    assert mecpilot.main(["train", *on, "--out", run, "--steps", "100"]) == 0
    assert mecpilot.main(["export", run, "--out", policy]) == 0
    assert mecpilot.main(["evaluate", *on, *quick, "--json", str(tmp_path / "found.json")]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["controllers"].keys() == {"ppo", "greedy"}
    tuning = str(tmp_path / "tuning.json")
    tune = ("--controllers", "greedy", "--episodes", "2", "--frames", "10", "--out", tuning)
    assert mecpilot.main(["tune", *on, *tune]) == 0
    assert mecpilot.main(["evaluate", *on, *quick, "--tuning", tuning]) == 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_evaluation_with_real_processes_takes_the_folder(made: Path, tmp_path: Path) -> None:
    live = ("--controllers", "device-only", "--live", "--seeds", "1", "--frames", "10")
    found = tmp_path / "found.json"
    assert mecpilot.main(["evaluate", "--workload", str(made / "site"), *live, "--json", str(found)]) == 0
    assert json.loads(found.read_text())["controllers"]["device-only"]["utility"]["mean"] > 0.0


def test_models_of_an_adopted_bundle_are_not_trained_or_compressed_here(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, out = str(made / "site"), ("--out", str(tmp_path / "more"))
    assert mecpilot.main(["models", "train", "--workload", site, *out]) == 2
    assert "is an adopted bundle" in capsys.readouterr().err
    assert mecpilot.main(["models", "compress", site, "--model", "whole", "--scheme", "int8", *out]) == 2
    assert "is cut from a foreign model" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(("cut", "payload"), [(1, "u8"), (3, "none")])
def test_a_device_and_a_mec_answer_as_the_whole_model(
    made: Path, bundle: Bundle, tmp_path: Path, cut: int, payload: str
) -> None:
    decision = {"model": "whole", "resolution_px": 128, "exit_branch": 0, "partition_point": cut, "payload": payload}
    with running_mec(bundle.reference) as mec:
        command = ["device", "--workload", bundle.reference, "--mec", mec.endpoint, "--require-mec"]
        command += ["--source", str(made / "bars.avi"), "--decision", json.dumps(decision), "--fps", "20"]
        command += ["--deadline-ms", "5000", "--outcomes", str(tmp_path / "log")]
        assert mecpilot.main(command) == 0
    answered = [outcome for outcome in outcomes_in(tmp_path / "log") if outcome["status"] == "ok"]
    assert len(answered) >= FRAMES // 2
    work = bundle.work
    for outcome in answered:
        truth = work.truths[outcome["source_index"]]  # type: ignore[attr-defined]
        assert work.score(outcome["prediction"], truth) == 1.0


def test_a_bundle_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    def write(name: str, error: Exception | None = None) -> None:
        with appearing_folder(tmp_path / "bundle") as folder:
            (folder / name).write_text("x")
            if error is not None:
                raise error

    write("old")
    with pytest.raises(FailureError):
        write("half", FailureError("broken"))
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["old"]
    write("new")
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--decode", "ssd"], r"outputs of \(1, 240, 320\); the decoder 'ssd' takes .*; these decoders fit: db"),
        (["--decode", "yolo99"], "unknown decoder 'yolo99'"),
        (["--threshold", "0.999"], "found nothing in 50 frames"),
        (["--frames", "20"], "20 frames; expected"),
        (["--resolutions", "130"], "multiples of 4"),
        (["--mean", "1,2"], "--mean"),
        (["--labels", "nowhere.json"], "--labels nowhere.json: no such file"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], line: str
) -> None:
    model, video = _files(tmp_path)
    assert mecpilot.main(_command(model, video, tmp_path / "site", "--no-profile", *more)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("adopt: ")]
    assert len(said) == 1
    assert re.search(line, said[0])
    assert not (tmp_path / "site").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars.avi", "bars.onnx"]
