"""Where things are: predictions about a letterboxed frame are given in pixels of the picture that the user has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from controller.errors import UsageError
from controller.records import Outcome, Status
from controller.reuse import Reuse
from runtime.device.device import Device
from runtime.shortcuts.base import Context, Shortcut
from runtime.sources.footage import letterbox, placement_of
from runtime.sources.frames import Frame
from runtime.workloads.placement import Placement
from runtime.workloads.registry import get_workload

FRAME = (576, 768, 3)
SIZES = [(360, 640), (576, 768), (1080, 1920), (640, 360), (48, 64), (100, 101)]
NOBODY = "tcp://127.0.0.1:9"


@pytest.mark.parametrize("size", SIZES)
def test_what_is_seen_in_the_frame_is_found_in_the_picture(size: tuple[int, int]) -> None:
    """A white rectangle, found in the letterboxed frame and carried back."""
    height, width = size
    box = [width // 4, height // 4, width // 3, height // 2]
    picture = np.zeros((*size, 3), np.uint8)
    cv2.rectangle(picture, (box[0], box[1]), (box[0] + box[2] - 1, box[1] + box[3] - 1), (255, 255, 255), -1)
    framed = letterbox(picture, FRAME)
    ys, xs = np.nonzero(framed[..., 0] > 127)
    seen = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min(), 0.9]
    (found,) = placement_of(picture.shape, FRAME).boxes([seen])
    tolerance = 1.0 + width / framed.shape[1] + height / framed.shape[0]
    assert found[:4] == pytest.approx(box, abs=tolerance)
    assert found[4] == 0.9


@pytest.mark.parametrize("size", SIZES)
def test_back_and_forth_is_the_same_place(size: tuple[int, int]) -> None:
    placement = placement_of(size, FRAME)
    box = [size[1] * 0.25, size[0] * 0.25, size[1] * 0.5, size[0] * 0.5]
    (framed,) = placement.inverse(FRAME).boxes([box])
    (back,) = placement.boxes([framed])
    # Rounded to a tenth of a pixel on both sides.
    assert back == pytest.approx(box, abs=0.2 + 0.2 * size[1] / FRAME[1] + 0.2 * size[0] / FRAME[0])


def test_what_lies_beside_the_picture_is_cut_off_or_left_out() -> None:
    placement = Placement(640, 360, 1.2, 1.2, 0.0, 72.0)
    beside, across = [10.0, 5.0, 100.0, 60.0, 0.5], [12.0, 60.0, 120.0, 24.0, 0.7]
    assert placement.boxes([beside, across]) == [[10.0, 0.0, 100.0, 10.0, 0.7]]


def test_a_class_has_no_place() -> None:
    assert get_workload("garments").to_picture(3, placement_of((100, 50), (28, 28))) == 3


@pytest.fixture(scope="module")
def campus_frame() -> np.ndarray:
    """A frame of the campus in which people are found."""
    image: np.ndarray = get_workload("campus").sample(0)[0]
    return image


def test_a_device_finds_people_where_they_are_in_a_smaller_picture(campus_frame: np.ndarray) -> None:
    small = cv2.resize(campus_frame, (384, 288), interpolation=cv2.INTER_AREA)
    beside = np.hstack((small, np.zeros((288, 128, 3), np.uint8)))  # 512 x 288: bars above and below
    with Device("campus", controller="device-only", mec=NOBODY, fps=0, deadline_s=60.0) as device:
        whole, wide = (next(device.run([image])) for image in (campus_frame, beside))
    assert whole.status is wide.status is Status.OK
    assert len(wide.prediction) >= 1
    right = max(x + w for x, _, w, *_ in wide.prediction)
    bottom = max(y + h for _, y, _, h, _ in wide.prediction)
    assert right <= 512
    assert bottom <= 288
    assert found_again(wide, whole) >= 1


def found_again(wide: Outcome, whole: Outcome) -> int:
    """Boxes of the small picture whose middle lies in a box of the large one, at half its size."""

    def middle(box: list[float]) -> tuple[float, float]:
        return 2 * (box[0] + box[2] / 2), 2 * (box[1] + box[3] / 2)

    def holds(box: list[float], at: tuple[float, float]) -> bool:
        return box[0] <= at[0] <= box[0] + box[2] and box[1] <= at[1] <= box[1] + box[3]

    return sum(any(holds(large, middle(small)) for large in whole.prediction) for small in wide.prediction)


def test_boxes_are_drawn_where_they_are_though_outcomes_are_in_other_pixels(
    campus_frame: np.ndarray, tmp_path: Path
) -> None:
    """The pictures sink gets predictions in pixels of the frame that it draws on."""
    small = cv2.resize(campus_frame, (192, 144), interpolation=cv2.INTER_AREA)
    enlarged = letterbox(small, FRAME)
    options = {"controller": "device-only", "mec": NOBODY, "fps": 0.0, "deadline_s": 60.0}
    with Device("campus", **options) as device:  # type: ignore[arg-type]
        expected = next(device.run([enlarged])).prediction
        run = device.prepare([small])
        drawn = []
        for outcome in run:
            drawn.append(run.on_frame(outcome).prediction)
            assert max(x + w for x, _, w, *_ in outcome.prediction) <= 192
        run.close()
    assert len(expected) >= 1
    assert np.asarray(drawn[0])[:, :4] == pytest.approx(np.asarray(expected)[:, :4], abs=0.5)


class TwoOfThree(Shortcut):
    """Answers two of three frames with the newest answer."""

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        return Reuse(Status.FILTERED, context.answers.newest_at(context.now_s)) if frame.index % 3 else None


def test_boxes_that_move_on_keep_their_numbers_in_the_picture() -> None:
    """A wide picture: boxes are moved, cut off at its edges, or left out, and their numbers with them."""
    work = get_workload("campus")
    images = [np.hstack((work.sample(i)[0], np.zeros((576, 256, 3), np.uint8))) for i in range(6)]
    options: dict[str, Any] = {"mec": NOBODY, "fps": 0.0, "deadline_s": 60.0, "forecast": True}
    options["decision"] = {"model": "nano", "resolution_px": 384, "payload": "none"}
    options["shortcuts"] = [TwoOfThree()]
    with Device("campus", **options) as device:
        outcomes = list(device.run(images))
    assert [o.status.reused for o in outcomes] == [False, True, True] * 2  # filtered, or covered by a frame stride
    for outcome in outcomes:
        assert outcome.track_ids is not None
        assert len(set(outcome.track_ids)) == len(outcome.prediction) >= 1
        assert max(x + w for x, _, w, *_ in outcome.prediction) <= 1024
    ran, _, later = (dict(zip(o.track_ids or (), o.prediction, strict=True)) for o in outcomes[3:])
    both = set(ran) & set(later) & set(outcomes[0].track_ids or ())
    assert both  # seen twice, so their velocity is known
    assert any(later[track] != ran[track] for track in both)


def test_a_class_does_not_move_on() -> None:
    with pytest.raises(UsageError, match="got forecasts with the workload 'garments', whose answers do not move"):
        Device("garments", mec=NOBODY, forecast=True)
