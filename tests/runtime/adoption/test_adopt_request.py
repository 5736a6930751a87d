from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.errors import UsageError
from runtime.adoption.request import Request, parse_classes, parse_numbers, parse_time_s, parse_widths
from runtime.cores import usable_cores


def _request(tmp_path: Path, **more: Any) -> Request:
    given = {"footage": tmp_path, "task": "detect", "decode": "yolov8"} | more
    return Request.of("model.onnx", tmp_path / "out", "site", given, lambda done, total: None)


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200.0), ("90s", 90.0), ("1.5h", 5400.0), ("5", 300.0)])
def test_times_are_read_with_their_units(text: str, seconds: float) -> None:
    assert parse_time_s(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "0m", "5d", "1e3s", "nan"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time such as 20m"):
        parse_time_s(text, "--budget")


def test_widths_are_sorted_and_bounded() -> None:
    assert parse_widths("320, 640,320") == (640, 320)
    assert parse_widths(None) == ()
    with pytest.raises(UsageError, match="expected widths"):
        parse_widths("640,abc")
    with pytest.raises(UsageError, match="expected widths"):
        parse_widths("99999")


def test_numbers_are_one_or_one_per_channel() -> None:
    assert parse_numbers("0.5,0.25,1", "--mean") == (0.5, 0.25, 1.0)
    with pytest.raises(UsageError, match="2 numbers"):
        parse_numbers("1,2", "--mean")
    with pytest.raises(UsageError, match="separated by commas"):
        parse_numbers("a,b,c", "--mean")


def test_class_names_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("car\nperson\n\n")
    assert parse_classes(str(names)) == parse_classes("car, person") == ("car", "person")
    with pytest.raises(UsageError, match="expected different names"):
        parse_classes("car,car")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"task": "segment"}, "--task segment; expected one of: detect, classify, text, custom"),
        ({"decode": None}, "--task detect without --decode"),
        ({"task": "custom", "decode": None}, "--task custom needs --decode file.py:function and --scorer"),
        ({"mean": (0.5,), "std": (1.0, 1.0, 1.0)}, "expected as many of each"),
        ({"std": (0.0,)}, "expected numbers above 0"),
        ({"fit": "crop"}, "--fit crop; expected one of: stretch, letterbox, corner"),
        ({"footage": Path("nowhere.mp4")}, "--footage nowhere.mp4: no such file or folder"),
        ({"labels": Path("nowhere.json")}, "--labels nowhere.json: no such file or folder"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path: Path, more: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line.replace(".", r"\.")):
        _request(tmp_path, **more).check()


def test_a_request_needs_footage_and_task(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--footage is missing"):
        Request.of("model.onnx", tmp_path, "site", {"task": "text"}, lambda done, total: None)
    with pytest.raises(UsageError, match="--task is missing"):
        Request.of("model.onnx", tmp_path, "site", {"footage": tmp_path}, lambda done, total: None)


def test_what_the_user_did_not_say_is_left_as_it_is(tmp_path: Path) -> None:
    request = _request(tmp_path, decode_options={}, classes=(), jobs=None)
    assert request.decode_options == {}
    assert request.fps is None
    assert 1 <= request.jobs <= min(usable_cores(), 4)


def test_text_and_classes_have_a_usual_decoder(tmp_path: Path) -> None:
    assert _request(tmp_path, task="text", decode=None).decoder == "db"
    assert _request(tmp_path, task="classify", decode=None).decoder == "classify"
