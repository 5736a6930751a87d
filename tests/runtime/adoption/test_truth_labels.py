"""Labels of the user become truths of the footage's frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from support.adopted import FRAMES as SHORT
from support.adopted import SHAPE, adoption_of, picture_at, truth_at, write_video

from controller.errors import UsageError
from runtime.adoption.request import Request
from runtime.adoption.truth.footage import Found, look_at
from runtime.adoption.truth.labels import read_labels
from runtime.adoption.truths import LABELS, Truths, with_truths

FRAMES = 50


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return look_at(write_video(tmp_path_factory.mktemp("footage") / "site.avi", FRAMES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Pictures of which the first is twice as large as the others."""
    path = tmp_path_factory.mktemp("pictures")
    for number in range(FRAMES):
        picture = picture_at(number % 20)
        size = picture if number else cv2.resize(picture, (2 * SHAPE[1], 2 * SHAPE[0]))
        cv2.imwrite(str(path / f"cam_{number}.png"), size)
    return look_at(path)


def _coco(path: Path, names: list[str], **changes: Any) -> Path:
    document: dict[str, Any] = {
        "images": [
            {"id": 100 + i, "file_name": name, "width": SHAPE[1], "height": SHAPE[0]} for i, name in enumerate(names)
        ],
        "annotations": [
            {"image_id": 103, "category_id": 7, "bbox": [4, 5, 10, 20]},
            {"image_id": 103, "category_id": 2, "bbox": [60, 40, 10, 20]},  # ends outside of the picture
            {"image_id": 104, "category_id": 7, "bbox": [4, 5, 10, 20], "iscrowd": 1},
        ],
        "categories": [{"id": 7, "name": "bag"}, {"id": 2, "name": "box"}],
    }
    path.write_bytes(msgspec.json.encode(document | changes))
    return path


def test_coco_labels_of_a_video_by_the_number_of_the_frame(tmp_path: Path, video: Found) -> None:
    for first in (0, 1):
        path = _coco(tmp_path / "labels.json", [f"{number + first:06d}.png" for number in range(FRAMES)])
        labels = read_labels(path, video)
        assert labels.classes == ("box", "bag")
        assert labels.truths[3] == [[4.0, 5.0, 10.0, 20.0, 1.0, 1], [60.0, 40.0, 4.0, 8.0, 1.0, 0]]
        assert labels.truths[4] == []
        assert len(labels.truths) == FRAMES


def test_classes_are_those_of_the_model(tmp_path: Path, video: Found) -> None:
    path = _coco(tmp_path / "labels.json", [f"{number}.png" for number in range(FRAMES)])
    labels = read_labels(path, video, ("person", "bag"))
    assert labels.truths[3] == [[4.0, 5.0, 10.0, 20.0, 1.0, 1]]
    assert labels.left_out == ("box",)
    with pytest.raises(UsageError, match=r"labels are of box, bag; expected some of the model's classes: cat"):
        read_labels(path, video, ("cat",))
    assert {box[5] for box in read_labels(path, video, (), "text").truths[3]} == {0}


def test_labels_of_pictures_of_another_size_are_scaled(tmp_path: Path, folder: Found) -> None:
    assert folder.frame_shape == (2 * SHAPE[0], 2 * SHAPE[1], 3)  # the others are enlarged
    path = _coco(tmp_path / "labels.json", [f"cam_{number}.png" for number in range(FRAMES)])
    assert read_labels(path, folder).truths[3][0] == [8.0, 10.0, 20.0, 40.0, 1.0, 1]
    texts = tmp_path / "yolo"
    texts.mkdir()
    for number in (0, 3):
        (texts / f"cam_{number}.txt").write_text("1 0.25 0.5 0.125 0.25\n")
    labels = read_labels(texts, folder, ("box", "bag"))
    assert labels.truths[0] == labels.truths[3] == [[24.0, 36.0, 16.0, 24.0, 1.0, 1]]
    assert labels.truths[1] == []


def test_labels_of_other_images_are_one_line(tmp_path: Path, video: Found, folder: Found) -> None:
    path = _coco(tmp_path / "labels.json", [f"street_{number}.png" for number in range(FRAMES)])
    with pytest.raises(UsageError, match="are of other images"):
        read_labels(path, folder)
    with pytest.raises(UsageError, match="are of other images"):
        read_labels(_coco(tmp_path / "other.json", ["a.png", "b.png", "c.png"]), video)
    with pytest.raises(UsageError, match="lists 20 of the 50 frames"):
        read_labels(_coco(tmp_path / "few.json", [f"{number}.png" for number in range(20)]), video)


def test_malformed_labels_are_one_line(tmp_path: Path, folder: Found) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UsageError, match="is not COCO JSON"):
        read_labels(tmp_path / "x.json", folder)
    with pytest.raises(UsageError, match="no such file"):
        read_labels(tmp_path / "missing", folder)
    for line in ("1 0.5 0.5", "x 0.5 0.5 0.1 0.1", "1 40 60 10 10", "nan 0 0 0 0"):
        (tmp_path / "cam_1.txt").write_text(line)
        with pytest.raises(UsageError, match="expected class, x, y, width, height"):
            read_labels(tmp_path, folder)
    (tmp_path / "cam_1.txt").write_text("5 0.5 0.5 0.1 0.1")
    with pytest.raises(UsageError, match="has a class 5; expected 0 to 1"):
        read_labels(tmp_path, folder, ("box", "bag"))


def test_folders_of_classes(tmp_path: Path) -> None:
    for number in range(FRAMES):
        kind = tmp_path / ("cat", "dog")[number % 2]
        kind.mkdir(exist_ok=True)
        cv2.imwrite(str(kind / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    found = look_at(tmp_path)
    labels = read_labels(tmp_path, found, (), "classify")
    assert labels.classes == ("cat", "dog")
    assert labels.truths == [number % 2 for number in range(FRAMES)]
    assert read_labels(tmp_path, found, ("dog", "cow", "cat"), "classify").truths[:2] == [2, 0]
    with pytest.raises(UsageError, match="a folder 'cat'"):
        read_labels(tmp_path, found, ("dog", "cow"), "classify")


def test_names_of_some_classes_do_not_say_which_of_the_model_they_are(tmp_path: Path) -> None:
    video = write_video(tmp_path / "site.avi")
    adoption, boxes = adoption_of(video), [truth_at(number) for number in range(SHORT)]

    def adopted(named: tuple[str, ...], *classes: str) -> tuple[str, ...]:
        request = Request(
            "m.onnx",
            tmp_path,
            "site",
            video,
            "detect",
            decode="yolov8",
            decode_options={"order": "boxes_last"},
            labels=tmp_path / "labels.json",
            classes=classes,
        )
        return with_truths(tmp_path, adoption, request, Truths(boxes, LABELS, named)).classes

    assert adopted(("bag", "box")) == ("bag", "box")
    assert adopted(("0",)) == ("0",)
    assert adopted(("box", "bag"), "box", "bag") == ("box", "bag")
    with pytest.raises(UsageError, match=r"labels are of 1 classes \(bag\), the model has 2; .*--classes"):
        adopted(("bag",))
