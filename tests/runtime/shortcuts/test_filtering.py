"""The input filter on real frames: it passes what is new, whatever its threshold has become, and adapts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import cv2
import numpy as np
import pytest

from controller.filtering import MOST_SHIFT, MOST_THRESHOLD, VERIFY_EVERY, change, grown
from controller.records import Status
from controller.reuse import PastAnswer, Reuse
from runtime.shortcuts.base import Context, Shortcut
from runtime.shortcuts.chain import Chain
from runtime.shortcuts.filtering.differencing import Differencing
from runtime.shortcuts.filtering.features import FEATURES, Differencer
from runtime.sources.frames import Frame
from runtime.workloads.registry import get_workload
from runtime.workloads.types import Image


def same(one: object, other: object) -> float:
    return 1.0


class Played:
    """A filter that has seen some pictures; each frame that it passes is answered before the next one."""

    def __init__(
        self,
        feature: str = "pixel",
        threshold: float | None = None,
        agreement: Callable[[object, object], float] = same,
        most_age: int = 10,
        moves: bool = False,
    ) -> None:
        self.filter = Differencing(
            Differencer(feature), agreement, threshold=threshold, target=0.95, most_age=most_age, moves=moves
        )
        self._pictures: list[Image] = []
        self._chain = Chain([self.filter], 1.0, self._pictures.__getitem__)

    def play(self, pictures: Iterable[Image]) -> list[Reuse | None]:
        """What the filter says about each picture, frames 0.1 s apart."""
        said = []
        for picture in pictures:
            index = len(self._pictures)
            self._pictures.append(picture)
            frame = Frame(index, index, 0.1 * index)
            said.append(self._chain.before_decision(frame, frame.captured_s))
            if said[-1] is None:
                self._chain.decided(index, 1)
                self._chain.answered(PastAnswer(index, frame.captured_s + 0.05, index))
        return said


@pytest.fixture(scope="module")
def frames() -> list[Image]:
    """Consecutive frames of the campus camera."""
    work = get_workload("campus")
    return [work.sample(index, "validation")[0] for index in range(60)]


CHANGES: dict[str, Callable[[Image], Image]] = {
    "cut to another scene": lambda picture: picture[:, ::-1],
    "moved camera": lambda picture: np.roll(picture, (9, 14), (0, 1)),
    "gain 0.6": lambda picture: cv2.convertScaleAbs(picture, alpha=0.6),
    "gain 1.5": lambda picture: cv2.convertScaleAbs(picture, alpha=1.5),
    "black": np.zeros_like,
    "another size": lambda picture: picture[::2, ::2],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("feature", FEATURES)
def test_a_change_of_the_scene_is_let_through(frames: list[Image], feature: str, change: str) -> None:
    """Also after the threshold has grown for a while, because all answers agreed."""
    played = Played(feature)
    assert any(played.play(frames))
    assert played.play([CHANGES[change](frames[-1])]) == [None]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("feature", FEATURES)
def test_with_forecasts_a_change_of_the_scene_is_let_through_at_any_threshold(
    frames: list[Image], feature: str, change: str
) -> None:
    """Forecasts let the threshold grow far, here to its limit."""
    played = Played(feature, moves=True)
    played.filter._shift = MOST_SHIFT
    said = played.play(frames[:30])
    assert sum(reuse is not None for reuse in said) > 20
    assert played.play([CHANGES[change](frames[29])]) == [None]


def test_with_forecasts_night_mode_is_let_through_at_any_threshold(frames: list[Image]) -> None:
    played = Played(moves=True)
    played.filter._shift = MOST_SHIFT
    played.play(frames[:30])
    assert played.play([night_of(frames[29])]) == [None]


def test_with_forecasts_an_older_answer_stands_for_a_smaller_difference(frames: list[Image]) -> None:
    """The same pictures: what still stands one frame later does not after three."""
    difference = np.array([0.01, 0.01, 0.03, np.nan])
    found = change(difference, np.array([1, 3, 1, 1]))
    np.testing.assert_allclose(found, [0.01 / 3, 0.01, np.inf, np.nan])
    shift = grown(0.0, found, np.ones(4), 0.9)
    np.testing.assert_array_equal(shift > 0.0, [True, True, True, False])


def night_of(picture: Image) -> Image:
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.convertScaleAbs(grey, alpha=0.8), np.uint8)


def test_night_mode_is_let_through(frames: list[Image]) -> None:
    """Grey pictures at the gain that a camera has at night; grey alone changes little on grey asphalt."""
    played = Played()
    played.play(frames)
    assert played.play([night_of(frames[-1])]) == [None]


def test_no_answer_stands_longer_than_the_greatest_age(frames: list[Image]) -> None:
    said = Played(threshold=1.0, most_age=4).play(frames[:1] * 11)
    assert [reuse and reuse.answer and reuse.answer.frame for reuse in said] == [
        *(None, 0, 0, 0, 0),
        *(None, 5, 5, 5, 5),
        None,
    ]
    assert {reuse.reason for reuse in said if reuse} == {Status.FILTERED}


def test_a_threshold_that_does_not_matter_stays(frames: list[Image]) -> None:
    """While nothing moves, nothing is learned, so the next movement meets the threshold of before."""
    played = Played()
    before = played.filter.threshold
    played.play(frames[:1] * 100)
    assert played.filter.threshold == pytest.approx(before)


def test_the_threshold_grows_while_answers_agree_and_shrinks_when_they_do_not(frames: list[Image]) -> None:
    agreeing, wrong = Played(), Played(agreement=lambda older, newer: 0.0)
    agreeing.play(frames * 4), wrong.play(frames * 4)
    assert wrong.filter.threshold < 0.01 < agreeing.filter.threshold <= MOST_THRESHOLD
    assert wrong.filter.notes()["agreement"] == 0.0


def test_a_difference_that_is_not_a_number_filters_nothing(
    frames: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Differencer, "difference", lambda *_: float("nan"))
    played = Played()
    assert played.play(frames[:20]) == [None] * 20
    assert np.isfinite(played.filter.threshold)


def test_grey_and_tiny_pictures_are_compared(frames: list[Image]) -> None:
    tiny = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    for feature in FEATURES:
        said = Played(feature).play([tiny, tiny, tiny.T.copy()])
        assert [reuse is not None for reuse in said] == [False, True, False]


class Knows(Shortcut):
    """Answers every frame from a picture that looked like it."""

    needs_picture = True

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        return Reuse(Status.CACHED, PastAnswer(0, 0.0, "known"))


def test_a_frame_that_is_verified_is_run_even_if_a_later_shortcut_knows_an_answer(frames: list[Image]) -> None:
    played = Played()
    played._chain = Chain([played.filter, Knows()], 1.0, played._pictures.__getitem__)
    said = played.play([frames[0]] * (3 * VERIFY_EVERY))
    assert said.count(None) == 2  # the first frame is answered by the other shortcut: the filter knows nothing yet
    assert {reuse.reason for reuse in said if reuse is not None} == {Status.FILTERED, Status.CACHED}
    assert played.filter.notes()["verified"] == 2


def test_what_a_later_shortcut_knew_stands_for_the_next_frames(frames: list[Image]) -> None:
    played = Played()
    played._chain = Chain([played.filter, Knows()], 1.0, played._pictures.__getitem__)
    first, second = played.play([frames[0]] * 2)
    assert first is not None
    assert second is not None
    assert second.answer is not None
    assert (second.reason, second.answer.frame, second.answer.prediction) == (Status.FILTERED, 0, "known")
