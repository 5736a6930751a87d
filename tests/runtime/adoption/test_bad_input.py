"""What an engineer may get wrong with `mecpilot adopt`, and bundles that are damaged or hostile: one line each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from support.adopted import adoption_of, truth_at, write_adoption, write_video
from support.bright_bars import HEIGHT, WIDTH, bright_bars_model, bright_bars_video

import mecpilot
from controller.errors import MecpilotError
from runtime.workloads.adopted.description import ADOPTION_FILE
from runtime.workloads.adopted.workload import read_adopted

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
import onnx

Change = Callable[[Any], object]


def _said(capsys: pytest.CaptureFixture[str], folder: Path, code: int, *command: str | Path) -> str:
    """The only line that `mecpilot adopt` prints; no bundle and no part of one is left."""
    given = ["--out", str(folder / "site"), "--jobs", "0", "--no-relatives", "--no-profile"]
    assert mecpilot.main(["adopt", *given, *map(str, command)]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("adopt: ")]
    assert len(said) == 1
    assert not [path.name for path in folder.iterdir() if "site" in path.name]
    return said[0]


def _video(folder: Path) -> Path:
    bright_bars_video(folder / "bars.avi", 50)
    return folder / "bars.avi"


def _model(folder: Path, change: Change = lambda proto: None) -> Path:
    proto = bright_bars_model()
    change(proto)
    path = folder / "bars.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


# The model -----------------------------------------------------------------------------------------------------


def _dims(*sizes: int) -> Change:
    def change(proto: Any) -> None:
        for dim, size in zip(proto.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
            dim.dim_value = size

    return change


def _input(kind: int, *shape: Any) -> Change:
    return lambda proto: proto.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("image", kind, list(shape)))


def _constant(proto: Any) -> None:
    proto.graph.node.append(onnx.helper.make_node("Identity", ["gain"], ["fixed"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("fixed", onnx.TensorProto.FLOAT, [1, 1, 1, 1]))


def _custom(proto: Any) -> None:
    proto.graph.node[0].domain = "their.ops"
    proto.opset_import.append(onnx.helper.make_opsetid("their.ops", 1))


def _control_flow(proto: Any) -> None:
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    proto.graph.node[-1].output[0] = "found"

    def branch(kind: str) -> Any:
        out = info(kind, onnx.TensorProto.FLOAT, None)
        return onnx.helper.make_graph([make(kind, ["found"], [kind])], kind, [], [out])

    proto.graph.node.extend(
        [
            make("ReduceMax", ["found"], ["most"], keepdims=0),
            make("Cast", ["most"], ["bright"], to=onnx.TensorProto.BOOL),
            make("If", ["bright"], ["map"], then_branch=branch("Identity"), else_branch=branch("Neg")),
        ]
    )


def _nan(proto: Any) -> None:
    gain = next(weight for weight in proto.graph.initializer if weight.name == "gain")
    gain.CopyFrom(onnx.numpy_helper.from_array(np.full((1, 1, 1, 1), np.nan, np.float32), "gain"))


MODELS: dict[str, tuple[Change, int, str]] = {
    "opset": (lambda proto: setattr(proto.opset_import[0], "version", 99), 1, "ai.onnx 99 is newer than the installed"),
    "ir": (lambda proto: setattr(proto, "ir_version", 99), 1, "IR version 99 with opset"),
    "batch": (_dims(4, 3, 96, 128), 2, "takes 4 images at a time; expected one"),
    "huge": (_dims(1, 3, 100_000, 100_000), 2, "image of 100000 x 100000; expected at most"),
    "rank": (_input(onnx.TensorProto.FLOAT, 3, "h", "w"), 2, "is (3, ?, ?) of float32; expected an image"),
    "dtype": (_input(onnx.TensorProto.INT64, 1, 3, 96, 128), 2, "of int64; expected an image"),
    "no outputs": (lambda proto: proto.graph.ClearField("output"), 2, "the graph has no outputs"),
    "constant": (_constant, 2, "output 'fixed' is not computed from the image"),
    "custom operator": (_custom, 2, "operator Conv of 'their.ops' needs a library of its maker"),
    "control flow": (_control_flow, 2, "is control flow (If), which cannot be cut"),
    "NaN": (_nan, 1, "output 'map' is not a number"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    change, code, line = MODELS[name]
    model = _model(tmp_path, change)
    assert line in _said(capsys, tmp_path, code, model, "--footage", _video(tmp_path), "--task", "text")


@pytest.mark.parametrize("content", [b"", b"hello " * 40, bytes(500), None])
def test_a_file_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None) -> None:
    model = _model(tmp_path)
    model.write_bytes(model.read_bytes()[:900] if content is None else content)
    assert "an ONNX " in _said(capsys, tmp_path, 2, model, "--footage", _video(tmp_path), "--task", "text")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import sys\ndef make(): sys.exit(3)", "failed with SystemExit"),
        ("import sys\nsys.exit(3)", "failed with SystemExit"),
        ("def make(): raise ValueError('a\\nb')", "failed with ValueError: a b"),
        ("def make(): return 3", "gave int; expected"),
        ("x = 1", "has no function 'make'"),
    ],
)
def test_a_function_that_makes_no_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, line: str
) -> None:
    (tmp_path / "net.py").write_text(code)
    said = _said(capsys, tmp_path, 2, f"{tmp_path}/net.py:make", "--footage", _video(tmp_path), "--task", "text")
    assert line in said


# Options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--task detect --decode values", "--decode values gives values; --task detect needs"),
        ("--task classify --decode db", "--decode db gives boxes; --task classify needs"),
        ("--task text --colours grey", "--colours grey: the model's input has 3 channels; expected rgb or bgr"),
        ("--task text --mean nan", "expected finite numbers"),
        ("--task text --decode-option unclip=nan", "expected a finite number"),
        ("--task text --decode-option shrink=2", "its options: pixel_threshold=0.3, unclip=1.5"),
        ("--task text --classes a,b", "--classes has 2 names; expected 1"),
        ("--task text --resolutions 8192", "frames are 128 pixels wide; expected at most 640"),
        ("--task text --name campus", "the name 'campus' is that of another workload"),
        ("--task text --jobs 100000", "--jobs 100000; expected a whole number from 0 to 256"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, line: str) -> None:
    model, video = _model(tmp_path), _video(tmp_path)
    assert line in _said(capsys, tmp_path, 2, model, "--footage", video, *options.split())


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("import sys; sys.exit(4)", "fails on outputs of (1, 96, 128): SystemExit: 4"),
        ("return np.zeros((3, 4))", "gave an array of (3, 4); expected (n, 6)"),
        ("return np.array([[.1, .1, .5, .5, .9, -1]])", "gave the class -1; expected numbers from 0"),
        ("raise KeyError('q')", "KeyError: 'q'"),
    ],
)
def test_a_decoder_of_the_users_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, line: str
) -> None:
    (tmp_path / "own.py").write_text(f"import numpy as np\ndef decode(outputs, size):\n    {body}\n")
    options = ["--task", "detect", "--decode", f"{tmp_path}/own.py:decode", "--resolutions", "128"]
    assert line in _said(capsys, tmp_path, 1, _model(tmp_path), "--footage", _video(tmp_path), *options)


# Footage and labels --------------------------------------------------------------------------------------------


def test_a_damaged_picture_is_told_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(50):
        cv2.imwrite(str(folder / f"{number:03}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (folder / "049.png").write_bytes(b"no picture")
    said = _said(capsys, tmp_path, 1, _model(tmp_path), "--footage", folder, "--task", "text")
    assert "049.png is not an image" in said


@pytest.mark.parametrize("footage", ["text", "/dev/zero"])
def test_footage_that_is_no_video(tmp_path: Path, capsys: pytest.CaptureFixture[str], footage: str) -> None:
    (tmp_path / "text").write_text("no video")
    said = _said(capsys, tmp_path, 2, _model(tmp_path), "--footage", tmp_path / footage, "--task", "text")
    assert "expected a video" in said


def _coco(**changes: Any) -> str:
    boxes = [{"image_id": number, "category_id": 0, "bbox": [4, 16, 36, 14]} for number in range(50)]
    images = [{"id": number, "file_name": f"{number}.png", "width": 128, "height": 96} for number in range(50)]
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "text"}]} | changes)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (
            _coco(annotations=[]),
            "the labels found nothing in 50 frames of the footage; expected detections: check",
        ),
        (
            _coco(annotations=[{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}]),
            "of category 7; expected one of",
        ),
        (_coco(images=[{"id": 1, "file_name": f"{n}.png"} for n in range(50)]), "two images with the same id"),
        (_coco(images=[{"id": 1, "file_name": "holiday.png"}]), "are of other images (holiday.png)"),
        (_coco()[:600], "is not COCO JSON"),
        ("0 0.5 0.5 0.1 0.1", "is not COCO JSON"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: str, line: str) -> None:
    (tmp_path / "labels.json").write_text(labels)
    options = ["--task", "text", "--labels", tmp_path / "labels.json", "--resolutions", "128"]
    assert line in _said(capsys, tmp_path, 2, _model(tmp_path), "--footage", _video(tmp_path), *options)


def test_a_class_without_end_takes_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.txt").write_text("1000000000 0.5 0.5 0.1 0.1")
    options = ["--task", "detect", "--decode", "db", "--labels", tmp_path / "labels", "--resolutions", "128"]
    said = _said(capsys, tmp_path, 2, _model(tmp_path), "--footage", _video(tmp_path), *options)
    assert "expected class, x, y, width, height" in said


# Bundles that were changed -------------------------------------------------------------------------------------


def _set(*path: Any) -> Change:
    *way, name, value = path

    def change(document: Any) -> None:
        for step in way:
            document = document[step]
        document[name] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("name", ".."),
        _set("name", "a/b"),
        _set("truth", "file", ".."),
        _set("truth", "file", "../../etc/passwd"),
        _set("frame_shape", [16_384, 16_384, 3]),
        _set("decoding", "outputs", {"64": [[1 << 40]]}),
        _set("decoding", "outputs", {"64": [[-1]]}),
        _set("families", "whole", {"type": "shell"}),
        _set("families", "whole", "stages", 1 << 40),
        _set("format_version", 2),
        _set("evil", 1),
    ],
)
def test_a_hostile_description_is_refused(tmp_path: Path, change: Change) -> None:
    folder = write_adoption(tmp_path / "site", adoption_of(write_video(tmp_path / "site.avi")))
    document = json.loads((folder / ADOPTION_FILE).read_text())
    change(document)
    (folder / ADOPTION_FILE).write_text(json.dumps(document))
    with pytest.raises(MecpilotError, match=ADOPTION_FILE) as found:
        read_adopted(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"format_version": 1, "name": ' + "[" * 200_000, "", "{"])
def test_a_description_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / ADOPTION_FILE).write_text(text)
    with pytest.raises(MecpilotError, match="does not describe an adopted workload"):
        read_adopted(tmp_path)


def test_a_device_file_is_never_read_as_footage(tmp_path: Path) -> None:
    adoption = adoption_of(write_video(tmp_path / "site.avi"))
    footage = msgspec.structs.replace(adoption.footage, path="/dev/zero", size_bytes=0)
    work = read_adopted(write_adoption(tmp_path / "site", msgspec.structs.replace(adoption, footage=footage)))
    with pytest.raises(MecpilotError, match="the footage of 'site' is not at /dev/zero"):
        work.frame(0)


def test_truths_nested_without_end_are_refused(tmp_path: Path) -> None:
    adoption = adoption_of(write_video(tmp_path / "site.avi"))
    folder = write_adoption(tmp_path / "site", adoption, [truth_at(0)])
    deep = b"[" * 200_000
    (folder / "truth.json").write_bytes(deep)
    truth = msgspec.structs.replace(adoption.truth, sha256=hashlib.sha256(deep).hexdigest())
    document = json.loads((folder / ADOPTION_FILE).read_text()) | {"truth": msgspec.to_builtins(truth)}
    (folder / ADOPTION_FILE).write_text(json.dumps(document))
    with pytest.raises(MecpilotError, match="truths"):
        read_adopted(folder).truths  # noqa: B018 - reading it is what is tested
