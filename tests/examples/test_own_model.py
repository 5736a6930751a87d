"""The package in examples/own_model adds each kind of part from outside: adopted, served and run by its names."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.live import outcomes_in
from support.once import once
from support.plug_ins import install

import mecpilot
import runtime.adoption.run
from controller.errors import RemoteProtocolError, UsageError
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.codecs import get_codec
from runtime.decoders.base import get_decoder
from runtime.inference.engines.fastest import difference_frac
from runtime.inference.segments import Segments
from runtime.testbed.processes import running_mec
from runtime.workloads.registry import get_workload

FOLDER = Path(mecpilot.__file__).parent / "examples" / "own_model"
FRAMES = 48
#: Of the range of an output: bfloat16 rounds to one part in 256, several times in a row.
BFLOAT16_FRAC = 0.03


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its pyproject.toml makes of it, in this process and in those that it starts."""
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    install(tmp_path / "site", "own_model", project["entry-points"])
    for folder in (str(FOLDER.parent), str(tmp_path / "site")):
        monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def things_at(number: int) -> list[tuple[int, int, int, int]]:
    """Two red things x, y, w, h that move in opposite directions."""
    return [(2 * number, 8, 32, 24), (96 - 2 * number, 56, 24, 32)]


def write_footage(path: Path) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (128, 96))
    for number in range(FRAMES):
        picture = np.random.default_rng(number).integers(90, 110, (96, 128, 3)).astype(np.uint8)
        for x, y, w, h in things_at(number):
            cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), (30, 30, 230), -1)
        video.write(picture)
    video.release()


def make(folder: Path) -> None:
    folder.mkdir()
    write_footage(folder / "site.avi")
    given = ["--footage", str(folder / "site.avi"), "--task", "detect", "--decode", "fcos", "--codec", "f16"]
    given += ["--resolutions", "128", "--samples", "8", "--no-relatives", "--jobs", "0"]
    assert mecpilot.main(["adopt", f"{FOLDER / 'model.py'}:detector", *given, "--out", str(folder / "red")]) == 0


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime.adoption.run, "PROFILE_BUDGET_S", 0.1)
    return once(tmp_path_factory, "own-model", make)


@pytest.fixture
def bundle(made: Path) -> Bundle:
    return open_bundle(made / "red")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_each_part_has_less_than_40_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 40


def test_the_adopted_model_finds_the_things_with_the_own_decoder(bundle: Bundle) -> None:
    work = bundle.work
    assert work.sample_count("test") >= 8
    for index in range(work.sample_count("test")):
        found = work.sample(index, "test")[1]  # the answers of the whole model are the truth
        expected = things_at(work.source_index(index, "test"))
        for thing in expected:
            nearest = min(found, key=lambda box, thing=thing: np.abs(np.subtract(box[:4], thing)).max())
            assert np.abs(np.subtract(nearest[:4], thing)).max() < 3.0


def test_the_own_codec_is_offered_at_the_cuts(bundle: Bundle) -> None:
    cuts = {d.partition_point for d in bundle.space.decisions if d.payload == "f16"}
    assert cuts >= {1}
    assert 0 not in cuts


def test_the_own_engine_agrees(bundle: Bundle) -> None:
    frame = bundle.work.sample(0)[0]
    for decision in (d for d in bundle.space.decisions if d.payload == "f16"):
        found, expected = (
            Segments(bundle, bundle.work, engine).whole(frame, decision) for engine in ("bfloat16", None)
        )
        assert bundle.work.score(*(bundle.work.answers(outputs, 128)[0] for outputs in (found, expected))) == 1.0
    garments = open_bundle("garments")
    decision = next(d for d in garments.space.decisions if d.payload == "none" and d.exit_branch == 1)
    image = get_workload("garments").sample(0)[0]
    found, expected = (
        Segments(garments, garments.work, engine).whole(image, decision) for engine in ("bfloat16", None)
    )
    assert 0 < difference_frac(found, expected) < BFLOAT16_FRAC


def test_device_and_mec_answer_all_frames_with_the_own_codec_and_engine(
    made: Path, bundle: Bundle, tmp_path: Path
) -> None:
    decision = {"model": "whole", "resolution_px": 128, "exit_branch": 0, "partition_point": 1, "payload": "f16"}
    with running_mec(bundle.reference, options=("--engine", "bfloat16")) as mec:
        command = ["device", "--workload", bundle.reference, "--mec", mec.endpoint, "--require-mec"]
        command += ["--source", str(made / "site.avi"), "--decision", json.dumps(decision), "--engine", "bfloat16"]
        command += ["--fps", "0", "--deadline-ms", "10000", "--outcomes", str(tmp_path / "log")]
        assert mecpilot.main(command) == 0
    outcomes = outcomes_in(tmp_path / "log")
    assert sorted(outcome["frame"] for outcome in outcomes) == list(range(FRAMES))
    assert {(outcome["status"], outcome["decision"]["payload"]) for outcome in outcomes} == {("ok", "f16")}
    truths = bundle.work.truths  # type: ignore[attr-defined]
    scores = [bundle.work.score(outcome["prediction"], truths[outcome["source_index"]]) for outcome in outcomes]
    assert np.mean(scores) > 0.95


def test_the_codec_checks_what_arrives() -> None:
    codec, tensor = get_codec("f16"), np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    tensor[0, 0, 0] = 1e9  # more than half precision holds
    payload = codec.encode(tensor)
    decoded = codec.decode(payload, tensor.shape)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded.ravel()[1:], tensor.ravel()[1:], rtol=1e-3, atol=1e-6)
    for bad in (b"", payload[:-1], payload + b"\0", codec.encode(tensor[:2]), codec.encode(tensor * np.nan)):
        with pytest.raises(RemoteProtocolError):
            codec.decode(bad, tensor.shape)


def test_the_decoder_takes_levels_and_refuses_other_outputs() -> None:
    decoder, shapes = get_decoder("fcos"), ((2, 4, 8), (4, 4, 8), (2, 2, 4), (4, 2, 4))
    assert decoder.fits(shapes)
    assert decoder.classes(shapes) == 2
    outputs = [np.zeros(shape, np.float32) for shape in shapes]
    outputs[2][1, 1, 3] = 0.9
    outputs[3][:, 1, 3] = 4.0, 8.0, 2.0, 6.0
    found = decoder.decode(outputs, (32, 64))
    assert len(found) == 4 * 8 + 2 * 4
    best = found[found[:, 4].argmax()]
    assert best.tolist() == pytest.approx([52 / 64, 16 / 32, 58 / 64, 30 / 32, 0.9, 1])
    for others in (shapes[:3], ((6, 8400),), ((2, 4, 8), (4, 4, 4))):
        assert not decoder.fits(others)
    with pytest.raises(UsageError, match="speed"):
        get_decoder("fcos", {"speed": 1.0})


def test_the_workload_dims_the_frames_of_another() -> None:
    from own_model.workload import DimGarments, Garments, accuracy  # type: ignore[import-not-found]

    dim = get_workload("dim-garments")
    assert isinstance(dim, DimGarments)
    bright, darker = Garments().sample(3), dim.sample(3)
    assert darker[1] == bright[1]
    assert darker[0].mean() < bright[0].mean()
    assert 0 <= accuracy(dim, 20) <= accuracy(Garments(), 20) <= 1


def test_the_model_is_an_ordinary_module() -> None:
    from own_model.model import detector  # type: ignore[import-not-found]

    with torch.inference_mode():
        scores, distances = detector()(torch.rand(1, 3, 64, 96))
    assert (scores.shape, distances.shape) == ((1, 1, 8, 12), (1, 4, 8, 12))
