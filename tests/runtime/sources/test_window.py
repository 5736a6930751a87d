"""A window of the picture: grey outside, and only what lies in it counts."""

from __future__ import annotations

import numpy as np
import pytest

import mecpilot
from controller.errors import UsageError
from runtime.sources.samples import Samples
from runtime.sources.window import Window, Windowed, window_of
from runtime.workloads.registry import get_workload

WINDOW = Window(336, 240, 192, 144)


def test_pictures_are_grey_outside_and_truths_have_their_middle_inside() -> None:
    work = get_workload("campus")
    plain = Samples(work, "validation")
    windowed = Windowed(plain, WINDOW, work)
    kept = 0
    for index in range(0, 106, 5):
        picture, whole = windowed.picture(index), plain.picture(index)
        np.testing.assert_array_equal(picture[WINDOW.place], whole[WINDOW.place])
        assert (picture != whole).any(axis=2).sum() > 300_000
        truth = windowed.truth(index)
        assert all(box in plain.truth(index) for box in truth)
        for x, y, w, h, _ in truth:
            assert 336 <= x + w / 2 < 528
            assert 240 <= y + h / 2 < 384
        kept += len(truth)
    assert kept > 0
    assert (windowed.count, windowed.name, windowed.failure) == (plain.count, plain.name, "")


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "0,0,0,10", "600,0,200,10", "0,500,10,100", "-1,0,5,5", "a,b,c,d", "1e3,0,1,1"]
)
def test_a_window_that_is_not_in_the_frame_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected x,y,w,h in pixels of the frame, which has 768 x 576"):
        window_of(text, (576, 768, 3))


def test_a_device_looks_at_the_window_only() -> None:
    first, work = 465, get_workload("campus")
    with mecpilot.Device("campus", "device-only", profile="shipped", fps=0, deadline_s=10.0) as device:
        outcomes = list(device.run(frames=3, start=first, window="336,240,192,144"))
    truths = [work.inside(work.sample(outcome.frame + first, "all")[1], WINDOW) for outcome in outcomes]
    assert any(truths)
    for outcome, truth in zip(outcomes, truths, strict=True):
        assert outcome.score == work.score(outcome.prediction, truth)
