"""An adopted workload does what its description says, and needs its footage only for its own frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from support.adopted import FRAMES, SHAPE, adoption_of, picture_at, truth_at, write_adoption, write_video

from controller.errors import FailureError, UsageError
from runtime.models.detector_parts import NO_PEAK
from runtime.workloads.adopted.description import (
    ADOPTION_FILE,
    Adoption,
    by_time,
    decode_adoption,
    encode_adoption,
)
from runtime.workloads.adopted.geometry import Geometry
from runtime.workloads.adopted.pictures import VideoPictures
from runtime.workloads.adopted.workload import Adopted, read_adopted


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("footage") / "site.avi")


@pytest.fixture
def adoption(video: Path) -> Adoption:
    return adoption_of(video)


@pytest.fixture
def work(tmp_path: Path, adoption: Adoption) -> Adopted:
    return read_adopted(write_adoption(tmp_path / "site", adoption))


def test_a_description_comes_back_as_it_was_written(adoption: Adoption) -> None:
    assert decode_adoption(encode_adoption(adoption), "x") == adoption


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "../up"),
        (("task",), "sing"),
        (("surplus",), 1),
        (("splits", "train"), [5, 2]),
        (("splits", "test"), [14, 21]),
        (("geometry", "std"), [0.0]),
        (("geometry", "sizes"), {"64": [64, 32]}),
        (("decoding", "threshold"), 1.0),
        (("decoding", "outputs"), {"96": [[6, 5]]}),
        (("footage", "file"), "a/b.mp4"),
        (("conditions", "device_slowdown"), [30.0, 5.0]),
        (("frame_shape",), [48]),
        (("format_version",), 99),
    ],
)
def test_a_damaged_description_is_one_line(adoption: Adoption, path: tuple[str, ...], value: object) -> None:
    document = msgspec.json.decode(encode_adoption(adoption))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FailureError) as caught:
        decode_adoption(msgspec.json.encode(document), "adoption.json")
    assert "adoption.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_frames_and_truths_are_those_of_the_footage_in_any_order(work: Adopted) -> None:
    assert work.sample_count("train") == 10
    assert work.sample_count("all") == FRAMES
    for index, split, number in ((0, "test", 14), (5, "test", 19), (1, "validation", 11), (0, "train", 0)):
        image, truth = work.sample(index, split)  # type: ignore[arg-type]
        assert (image == picture_at(number)).all()
        assert truth == truth_at(number)
        assert work.source_index(index, split) == number  # type: ignore[arg-type]


def test_splits_follow_each_other_in_time() -> None:
    assert by_time(90) == {"train": (0, 45), "validation": (45, 63), "test": (63, 90)}


def test_boxes_come_back_to_the_pixels_of_the_frame(work: Adopted) -> None:
    rows = np.zeros((1, 8, 6), np.float32)
    rows[..., 4] = NO_PEAK
    rows[0, 0] = (0.25, 8 / 64 + 0.25, 0.5, 8 / 64 + 0.5, 2.0, 1)  # the frame lies 8 pixels below the top of the input
    rows[0, 1] = (0.26, 8 / 64 + 0.25, 0.5, 8 / 64 + 0.5, 1.0, 1)  # the same object
    rows[0, 2] = (0.25, 8 / 64 + 0.25, 0.5, 8 / 64 + 0.5, 0.0, 0)  # one of another class
    rows[0, 3] = (0.0, 0.0, 0.9, 0.9, -0.1, 0)  # below the threshold
    (boxes,) = work.answers(rows, 64)
    assert boxes == [[16.0, 16.0, 16.0, 16.0, 0.8808, 1], [16.0, 16.0, 16.0, 16.0, 0.5, 0]]
    (small,) = work.answers(rows, 32)
    assert small == boxes  # sides are fractions of the input


def test_boxes_match_within_their_class_at_half_an_overlap(work: Adopted) -> None:
    box = [10.0, 10.0, 10.0, 10.0, 0.9, 0]
    assert work.score([box], [box]) == 1.0
    assert work.score([box], [[*box[:5], 1]]) == 0.0
    assert work.score([box], [[13.0, 10.0, 10.0, 10.0, 1.0, 0]]) == 1.0  # IoU 0.54
    assert work.score([box], [[14.0, 10.0, 10.0, 10.0, 1.0, 0]]) == 0.0  # IoU 0.43
    assert work.score([], []) == 1.0


def test_a_letterboxed_input_is_the_frame_between_bars(work: Adopted) -> None:
    frame = picture_at(3)
    picture = work.resize(frame, 64)
    assert picture.shape == (64, 64, 3)
    assert (picture[8:56] == frame).all()
    assert (picture[:8] == 114).all()
    assert (picture[56:] == 114).all()
    values = work.to_input(picture[None]).numpy()
    assert values.shape == (1, 3, 64, 64)
    assert np.allclose(values[0, :, 8:56], frame[..., ::-1].transpose(2, 0, 1) / 255.0)  # red first


def test_mean_and_deviation_are_those_of_each_colour() -> None:
    geometry = Geometry({8: (8, 8)}, colours="bgr", scale=1.0, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0), layout="nhwc")
    values = geometry.values(np.full((1, 8, 8, 3), 11, np.uint8)).numpy()
    assert values.shape == (1, 8, 8, 3)
    assert values[0, 0, 0].tolist() == [5.0, 2.25, 1.0]
    grey = Geometry({8: (8, 8)}, colours="grey")
    assert grey.values(grey.picture(np.zeros(SHAPE, np.uint8), 8)[None]).shape == (1, 1, 8, 8)


def test_without_the_footage_everything_but_frames_works(tmp_path: Path, adoption: Adoption) -> None:
    gone = msgspec.structs.replace(adoption.footage, path=str(tmp_path / "gone.avi"))
    work = read_adopted(write_adoption(tmp_path / "site", msgspec.structs.replace(adoption, footage=gone)))
    assert work.resize(picture_at(0), 32).shape == (32, 32, 3)
    assert work.sample_count("test") == 6
    assert work.build("whole").exit_after == (1,)
    assert work.frame_shape == SHAPE
    with pytest.raises(FailureError, match=r"gone\.avi.*--data"):
        work.sample(0)


def test_the_footage_may_be_named_or_its_folder(tmp_path: Path, video: Path, adoption: Adoption) -> None:
    folder = write_adoption(tmp_path / "site", adoption)
    for data in (video, video.parent):
        assert (read_adopted(folder, data).sample(0)[0] == picture_at(14)).all()
    with pytest.raises(UsageError, match="--data"):
        read_adopted(folder, tmp_path).sample(0)


def test_other_footage_of_the_same_size_is_refused(tmp_path: Path, video: Path, adoption: Adoption) -> None:
    changed = bytearray(video.read_bytes())
    changed[-100] ^= 1
    (tmp_path / video.name).write_bytes(changed)
    work = read_adopted(write_adoption(tmp_path / "site", adoption), tmp_path)
    with pytest.raises(FailureError, match="SHA-256"):
        work.sample(0)


def test_changed_truths_are_refused(tmp_path: Path, adoption: Adoption) -> None:
    work = read_adopted(write_adoption(tmp_path / "site", adoption, [[]] * FRAMES))
    with pytest.raises(FailureError, match="damaged"):
        _ = work.truths


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "FFV1"), ("a.avi", "MJPG"), ("a.mp4", "mp4v")])
def test_a_step_back_finds_the_same_picture(tmp_path: Path, name: str, codec: str) -> None:
    video = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*codec), 10.0, (SHAPE[1], SHAPE[0]))
    for number in range(60):
        video.write(picture_at(number % 20))
    video.release()
    pictures = VideoPictures(tmp_path / name)
    in_order = [pictures.picture(number) for number in range(60)]
    for number in (59, 58, 3, 30, 29, 0, 45, 13):
        assert (pictures.picture(number) == in_order[number]).all()
        assert (pictures.picture(number) == in_order[number]).all()
    pictures.close()
    assert (pictures.picture(7) == in_order[7]).all()


def test_a_folder_of_pictures_is_read_in_natural_order(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(pictures / f"frame{number}.png"), picture_at(number))
    work = read_adopted(write_adoption(tmp_path / "site", adoption_of(pictures)))
    assert (work.sample(2, "all")[0] == picture_at(2)).all()
    assert (work.sample(19, "all")[0] == picture_at(19)).all()


def test_forecasts_keep_the_class_of_each_object(work: Adopted) -> None:
    forecaster = work.forecaster()
    assert forecaster is not None
    for number in range(4):
        forecast = forecaster.add(number, [[*truth_at(number)[0][:5], 1]])
    assert forecast is not None
    shown = forecast.at(5)
    assert shown.prediction[0][5] == 1
    assert abs(shown.prediction[0][0] - truth_at(5)[0][0]) < 1.0


def test_answers_are_drawn_with_the_names_of_their_classes(work: Adopted) -> None:
    frame = picture_at(3)
    drawn = work.draw(frame, [[*truth_at(3)[0], 7]])
    assert drawn.shape == frame.shape
    assert (drawn != frame).any()
    assert (work.draw(frame, None) == frame).all()


def test_opening_imports_nothing_that_the_description_names(tmp_path: Path, adoption: Adoption) -> None:
    folder = write_adoption(tmp_path / "site", adoption)
    document = msgspec.json.decode((folder / ADOPTION_FILE).read_bytes())
    document["decoding"]["code"] = {"file": "evil.py", "function": "run", "sha256": "0" * 64}
    (folder / ADOPTION_FILE).write_bytes(msgspec.json.encode(document))
    (tmp_path / "evil.py").write_text("raise SystemExit(3)")
    work = read_adopted(folder)
    with pytest.raises(UsageError, match=r"--decode evil\.py:run"):
        work.build("whole")
