"""The filter of empty frames: it lets people and other scenes through, verifies itself, and reads only whole files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import mecpilot
from controller.emptiness import FRAMES_IN_A_ROW, VERIFY_EVERY
from controller.errors import UsageError
from controller.records import Status
from controller.reuse import PastAnswer, Reuse
from runtime.building.emptiness.fitting import cell_targets, fitted
from runtime.building.emptiness.footage import Labelled
from runtime.building.emptiness.training import Fitted, calibrated, chosen, reached_by
from runtime.emptiness.background import Background, small_copy
from runtime.emptiness.file import EmptyKnown, EmptyManifest, load_empty, save_empty
from runtime.emptiness.network import CELL, SHAPES, Weights, logits, network_input
from runtime.emptiness.scene import Scene
from runtime.shortcuts.chain import Chain
from runtime.shortcuts.filtering.emptiness import Emptiness
from runtime.sources.frames import Frame
from runtime.sources.window import Window
from runtime.workloads.registry import get_workload
from runtime.workloads.types import Image

FRAME = (576, 768)
WINDOW = Window(336, 240, 192, 144)
STEP = 4
RNG = np.random.default_rng(0)
#: A scene with texture, and a dark person of 24 x 56 pixels that may stand in it.
SCENE = cv2.resize(RNG.integers(90, 170, (36, 48), dtype=np.uint8), FRAME[::-1], interpolation=cv2.INTER_CUBIC)


def picture(middle: tuple[int, int] | None = None) -> Image:
    """The scene, with a little noise, and a person whose middle is at x, y."""
    found = SCENE.astype(int) + np.random.default_rng(middle).integers(-2, 3, SCENE.shape)
    if middle is not None:
        x, y = middle
        found[max(y - 28, 0) : y + 28, max(x - 12, 0) : x + 12] -= 60
    return np.dstack([np.clip(found, 0, 255).astype(np.uint8)] * 3)


def box_at(middle: tuple[int, int]) -> list[float]:
    return [middle[0] - 12.0, middle[1] - 28.0, 24.0, 56.0, 1.0]


def footage(count: int, seed: int) -> Labelled:
    """Every other frame has a person somewhere."""
    rng = np.random.default_rng(seed)
    middles = [(int(rng.integers(20, 748)), int(rng.integers(30, 546))) if n % 2 else None for n in range(count)]
    smalls = np.stack([small_copy(picture(middle), STEP).astype(np.uint8) for middle in middles])
    return Labelled(smalls, [[] if middle is None else [box_at(middle)] for middle in middles])


def averaging() -> Weights:
    """A network that averages the absolute difference: about -3 where there is only noise, 8 where the person is."""
    weights = Weights(*(np.zeros_like(array) for array in SHAPES))
    weights.first[0, 1] = weights.second[0, 0] = 1.0 / 9.0
    weights.third[0, 0, 1, 1] = 1.0
    weights.last[0, 0], weights.last_bias[0] = 10.0, -4.0
    return weights


@pytest.fixture(scope="module")
def known() -> EmptyKnown:
    manifest = EmptyManifest("campus", FRAME, WINDOW, 0.0, 0.98, 99, "", "", "")
    return EmptyKnown(manifest, averaging(), small_copy(picture()[WINDOW.place], STEP))


class Played:
    """The filter in a chain; each frame that it passes is answered before the next one."""

    def __init__(self, known: EmptyKnown) -> None:
        self.filter = Emptiness(known, get_workload("campus"))
        self.logged: list[str] = []
        self._pictures: list[Image] = []
        self._chain = Chain([self.filter], 1.0, self._pictures.__getitem__, self.logged.append)

    def play(self, pictures: Iterable[Image], answer: list[list[float]]) -> list[Reuse | None]:
        """What the filter says; ``answer`` is that of frames that are run."""
        said = []
        for each in pictures:
            index = len(self._pictures)
            self._pictures.append(each)
            said.append(self._chain.before_decision(Frame(index, index, 0.1 * index), 0.1 * index))
            if said[-1] is None:
                self._chain.answered(PastAnswer(index, 0.1 * index + 0.05, answer))
        return said


def test_an_empty_window_is_answered_with_nothing_and_a_person_is_run(known: EmptyKnown) -> None:
    played = Played(known)
    said = played.play([picture()] * 10, [])
    assert [reuse is None for reuse in said] == [True] * (FRAMES_IN_A_ROW - 1) + [False] * (11 - FRAMES_IN_A_ROW)
    for index, reuse in enumerate(said):
        if reuse is not None:
            assert reuse.reason is Status.FILTERED
            assert (reuse.answer and reuse.answer.frame, reuse.shown(index).prediction) == (index, [])
    assert played.play([picture((430, 310))], [box_at((430, 310))]) == [None]
    assert played.play([picture()], []) == [None]  # who was there just before may flicker
    assert played.play([picture()] * 4, [])[-1] is not None


def test_a_person_outside_of_the_window_does_not_count(known: EmptyKnown) -> None:
    assert None not in Played(known).play([picture((100, 100))] * 8, [])[FRAMES_IN_A_ROW - 1 :]


CHANGES: dict[str, Callable[[Image], Image]] = {
    "cut to another scene": lambda picture: picture[::-1, ::-1],
    "moved camera": lambda picture: np.roll(picture, (9, 14), (0, 1)),
    "gain 0.6": lambda picture: cv2.convertScaleAbs(picture, alpha=0.6),
    "gain 1.5": lambda picture: cv2.convertScaleAbs(picture, alpha=1.5),
    "night mode": lambda picture: cv2.convertScaleAbs(picture, alpha=0.8),
    "black": np.zeros_like,
    "white": lambda picture: np.full_like(picture, 255),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_scene_or_light_is_let_through_for_a_while(known: EmptyKnown, change: str) -> None:
    played = Played(known)
    assert played.play([picture()] * 20, [])[-1] is not None
    assert played.play([CHANGES[change](picture())] * 20, []) == [None] * 20


def test_another_light_becomes_the_background_in_the_end(known: EmptyKnown) -> None:
    played = Played(known)
    played.play([picture()] * 5, [])
    assert played.play([CHANGES["night mode"](picture())] * 300, [])[-1] is not None


def test_a_threshold_that_is_too_high_comes_down_because_empty_frames_are_verified(known: EmptyKnown) -> None:
    """The filter takes a person for nothing; the model does not."""
    person, scene = picture((430, 310)), Scene(known.weights, known.level)
    score = [scene.look(known.small(person)) for _ in range(FRAMES_IN_A_ROW)][-1]
    high = msgspec.structs.replace(known.manifest, threshold=score + 1.0)
    played = Played(EmptyKnown(high, known.weights, known.level))
    said = played.play([person] * (2 * VERIFY_EVERY + 20), [box_at((430, 310))])
    assert said[10] is not None
    assert said[-10:] == [None] * 10
    assert played.filter.notes()["missed"] == 2


def test_the_threshold_never_rises_above_that_of_the_file(known: EmptyKnown) -> None:
    played = Played(known)
    played.play([picture((430, 310))] * 30, [box_at((430, 310))])
    assert played.filter.threshold == pytest.approx(known.manifest.threshold)


def test_a_score_that_is_no_number_runs_the_frame(known: EmptyKnown) -> None:
    broken = known.weights._replace(last_bias=np.full(1, np.nan, np.float32))
    played = Played(EmptyKnown(known.manifest, broken, known.level))
    assert played.play([picture()] * 8, []) == [None] * 8
    assert played.logged == []


def test_the_network_in_numpy_is_that_of_the_training() -> None:
    rng = np.random.default_rng(3)
    weights = Weights(*(rng.normal(0, 0.3, array.shape).astype(np.float32) for array in SHAPES))
    for shape in ((36, 48), (37, 50), (4, 4)):
        levels = rng.normal(0, 40, shape).astype(np.float32)
        found = torch.from_numpy(network_input(levels))[None]
        for kernel, bias, stride in ((0, 1, 2), (2, 3, 2), (4, 5, 1)):
            arrays = torch.from_numpy(weights[kernel]), torch.from_numpy(weights[bias])
            found = torch.relu(torch.nn.functional.conv2d(found, *arrays, stride=stride, padding=1))
        found = torch.nn.functional.conv2d(found, torch.from_numpy(weights.last), torch.from_numpy(weights.last_bias))
        np.testing.assert_allclose(logits(weights, levels), found[0, 0], rtol=1e-3, atol=1e-3)


def test_the_cell_of_each_middle_is_a_target_and_those_around_it_do_not_count() -> None:
    targets, weights = cell_targets([[[100.0, 60.0, 20.0, 40.0, 1.0]], []], (36, 48), STEP * CELL)
    assert np.argwhere(targets.numpy()).tolist() == [[0, 5, 6]]
    assert int((weights[0] == 0).sum()) == 8
    assert weights[1].min() == 1


def test_the_threshold_is_reached_with_the_wanted_probability() -> None:
    scores = np.arange(99.0)
    assert reached_by(scores, 0.98) == 1.0  # rank 2 of 99
    assert reached_by(scores[:10], 0.98) == 0.0
    with pytest.raises(UsageError, match="expected longer footage"):
        reached_by(np.zeros(0), 0.98)


def test_training_takes_frames_with_and_without_a_target() -> None:
    holds = [n % 10 == 0 for n in range(5000)]
    rows = chosen(holds)
    assert len(rows) == 600
    assert sum(holds[row] for row in rows) == 300
    assert (np.diff(rows) > 0).all()
    with pytest.raises(UsageError, match="got 5 frames to train on; expected at least 32"):
        chosen([True] * 5)


def test_a_threshold_is_set_on_people_in_the_window_and_near_it() -> None:
    """Two of three hundred scores may be below it, and no empty frame reaches it."""
    found = Fitted(averaging(), small_copy(picture(), STEP), STEP)
    counts = calibrated(found, footage(60, seed=2), WINDOW, 0.98)
    assert counts.windows > 5
    assert counts.counted > 10
    assert counts.filtered > 0.5
    assert counts.level.shape == (36, 48)


def test_somebody_who_stands_is_seen_for_a_minute(known: EmptyKnown) -> None:
    scene = Scene(known.weights, known.level)
    for _ in range(5):
        scene.look(known.small(picture()))
    scores = [scene.look(known.small(picture((430, 310)))) for _ in range(600)]
    assert min(scores) > known.manifest.threshold


def test_the_background_follows_the_median() -> None:
    background = Background(np.full((9, 9), 100.0, np.float32))
    for _ in range(100):
        background.follow(np.full((9, 9), 110.0, np.float32), 0.2)
    assert abs(background.difference(np.full((9, 9), 110.0, np.float32)).levels).max() < 0.5


# The file ------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(known: EmptyKnown, tmp_path: Path) -> Path:
    save_empty(tmp_path / "empty.safetensors", known.manifest, known.weights, known.level)
    return tmp_path / "empty.safetensors"


def test_the_file_gives_back_what_was_written(known: EmptyKnown, path: Path) -> None:
    read = load_empty(path, "campus", (*FRAME, 3))
    assert read.window == WINDOW
    np.testing.assert_array_equal(read.level, known.level)
    for one, other in zip(read.weights, known.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_that_is_damaged_or_for_other_frames_is_refused_in_one_line(path: Path) -> None:
    whole = path.read_bytes()
    with pytest.raises(UsageError, match="made for campus, frames of 576 x 768 lines and columns, expected garments"):
        load_empty(path, "garments", (28, 28))
    with pytest.raises(UsageError, match="expected campus, frames of 480 x 640"):
        load_empty(path, "campus", (480, 640, 3))
    flipped = whole[:-40] + bytes(255 - byte for byte in whole[-40:])
    damages = [whole[:-1], whole[:100], b"", flipped, b"\xff" * len(whole)]
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"--filter-empty .*; make one with `mecpilot models empty") as caught:
            load_empty(path, "campus", FRAME)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="No such file"):
        load_empty(path.with_name("none"), "campus", FRAME)


def test_arrays_of_other_shapes_or_without_their_digest_are_refused(path: Path, known: EmptyKnown) -> None:
    arrays = load_file(path)
    text = msgspec.json.encode(known.manifest).decode()
    for name, array in (
        ("level", arrays["level"][1:]),
        ("last", arrays["last"] * np.nan),
        ("last", arrays["last"] + 1),
    ):
        save_file(arrays | {name: np.ascontiguousarray(array)}, path, {"manifest": text})
        with pytest.raises(UsageError, match="arrays"):
            load_empty(path, "campus", FRAME)


def test_a_device_refuses_a_file_for_another_window_or_workload(path: Path) -> None:
    section = mecpilot.FilterSection(empty=path)
    device = mecpilot.Device("campus", "device-only", profile="shipped", filter=section)
    with pytest.raises(UsageError, match="made for --window 336,240,192,144, got 0,0,768,576"):
        device.prepare(frames=1)
    with pytest.raises(UsageError, match="garments, whose frames are never empty"):
        mecpilot.Device("garments", "device-only", profile="shipped", filter=section)


def test_fitting_twice_gives_the_same_network() -> None:
    seen = footage(32, seed=4)
    smalls = [small.astype(np.float32) for small in seen.smalls]
    one, other = (fitted(smalls, seen.boxes, STEP, seed=7) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
