"""The footage of labels: the same for the same seed, other goods in each split, boxes where the text is."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from controller.errors import FailureError
from runtime.adoption.recipes.labels import prints
from runtime.adoption.recipes.labels.goods import make_good
from runtime.adoption.recipes.labels.render import render, suffix
from runtime.adoption.recipes.labels.scene import BORDERS, HEIGHT_PX, WIDTH_PX, Scene

SECONDS = 24.0


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(SECONDS, seed=3)


def test_a_frame_is_the_same_whenever_it_is_drawn():
    scene, again, other = Scene(6.0, seed=3), Scene(6.0, seed=3), Scene(6.0, seed=4)
    picture, boxes = scene.frame(8)
    again.frame(3)
    assert (picture == again.frame(8)[0]).all()
    assert (boxes == again.frame(8)[1]).all()
    assert (picture != other.frame(8)[0]).any()


def test_boxes_lie_in_the_picture_and_most_frames_have_some(scene):
    boxes = [scene.frame(number)[1] for number in range(0, scene.frames, 6)]
    everything = np.concatenate(boxes)
    assert (everything[:, :2] >= 0).all()
    assert (everything[:, :2] + everything[:, 2:] <= (WIDTH_PX, HEIGHT_PX)).all()
    assert np.mean([len(found) > 0 for found in boxes]) > 0.5


def test_no_text_is_in_view_where_a_split_ends(scene):
    for share in BORDERS:
        assert not len(scene.frame(round(share * scene.frames))[1])


def test_text_has_more_contrast_than_what_is_around_it(scene):
    """Where a box is, something is printed: its pixels vary more than those of the picture on the whole."""
    inside, whole = [], []
    for number in range(0, scene.frames, 10):
        picture, boxes = scene.frame(number)
        edges = np.abs(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.CV_32F))
        whole.append(edges.mean())
        for x, y, w, h in boxes.astype(int):
            inside.append(edges[y : y + h, x : x + w].mean())
    assert np.median(inside) > 2 * np.mean(whole)


def test_the_box_of_a_text_fits_its_ink():
    line = prints.text("LOT 4711", "DejaVuSans", 40, (0, 0, 0))
    ink_y, ink_x = np.nonzero(line.opacity > 0.1)
    low, high = line.quads[0].min(axis=0), line.quads[0].max(axis=0)
    assert abs(ink_x.min() - low[0]) <= 2
    assert abs(ink_x.max() - high[0]) <= 2
    assert abs(ink_y.min() - low[1]) <= 2
    assert abs(ink_y.max() - high[1]) <= 2


@pytest.mark.parametrize("seed", range(12))
def test_text_of_every_good_lies_on_its_faces(seed):
    for face in make_good(np.random.default_rng(seed)).faces:
        width, height = face.print.size
        assert (face.print.quads >= -1).all()
        assert (face.print.quads <= (width + 1, height + 1)).all()


@pytest.mark.parametrize("ending", sorted({suffix(), ".avi"}))
def test_a_video_and_its_labels_agree(tmp_path, ending):
    video, seen = tmp_path / "new" / f"goods{ending}", []
    labels = render(video, seconds=12.0, seed=3, progress=lambda done, total: seen.append((done, total)))
    document = json.loads(labels.read_bytes())
    capture = cv2.VideoCapture(str(video))
    frames = [picture for _ in range(80) for ok, picture in [capture.read()] if ok]
    assert len(frames) == len(document["images"]) == 60
    assert seen[-1] == (60, 60)
    of_image = [[a["bbox"] for a in document["annotations"] if a["image_id"] == number] for number in range(60)]
    fullest = int(np.argmax([len(found) for found in of_image]))
    drawn, boxes = Scene(12.0, seed=3).frame(fullest)
    assert np.abs(frames[fullest].astype(int) - drawn).mean() < 4
    assert len(boxes)
    assert np.allclose(of_image[fullest], boxes, atol=0.06)
    assert sorted(path.name for path in video.parent.iterdir()) == sorted([video.name, labels.name])


def test_footage_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FailureError, match="cannot write the footage"):
        render(Path(tmp_path / "file" / "goods.avi"), seconds=1.0)
