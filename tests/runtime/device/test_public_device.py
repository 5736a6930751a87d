"""A Python program answers frames with ``Device``: any source, any controller, errors in the program's own terms."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mecpilot
from controller.costs import CostTable
from controller.errors import FailureError, UsageError
from controller.records import Status, SystemState
from runtime.device.device import Device

NOBODY = "tcp://127.0.0.1:9"


def pictures(count: int) -> Iterator[np.ndarray]:
    """Images of another size than the workload's, in one array that is used again and again."""
    image = np.zeros((40, 60), np.uint8)
    for number in range(count):
        image[:] = number
        yield image


class Cheapest:
    """A controller of a user's own."""

    def __init__(self, costs: CostTable) -> None:
        self._row = int(costs.local_frontier[0])

    def decide(self, state: SystemState) -> int:
        return self._row


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with Device("garments", controller=Cheapest, mec=NOBODY, fps=0, deadline_s=5.0) as made:
        yield made


def test_the_workloads_samples_are_answered_and_scored(device: Device) -> None:
    outcomes = list(device.run(frames=5))
    assert [outcome.frame for outcome in outcomes] == list(range(5))
    assert all(outcome.score is not None for outcome in outcomes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"deadline_s": "x"}, "deadline_s: got 'x'; expected a number from 1e-06 to 3600"),
        ({"deadline_s": 0}, "deadline_s: got 0; expected a number from 1e-06 to 3600"),
        ({"fps": float("nan")}, "fps: got nan; expected a number from 0 to 1000"),
        ({"seed": None}, "seed: got None; expected a number from 0 to 2147483647"),
    ],
)
def test_what_is_no_such_number_is_a_usage_error(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        Device("garments", mec=NOBODY, **options)
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    ("options", "silent"),
    [
        ({"controller": "device-only"}, True),
        ({"decision": {"payload": "none"}}, True),
        ({"controller": "greedy"}, False),
        ({"decision": {"partition_point": 0}}, False),
    ],
    ids=str,
)
def test_only_a_device_that_may_ask_a_mec_misses_it(options: dict[str, Any], silent: bool) -> None:
    lines: list[str] = []
    with Device("garments", mec=NOBODY, fps=10, deadline_s=5.0, profile="shipped", log=lines.append, **options) as made:
        assert len(list(made.run(frames=22))) == 22
    assert (not any("no MEC at" in line for line in lines)) == silent


@pytest.mark.parametrize("images", [pictures(4), [np.zeros((5, 5, 3), np.uint8)] * 4, np.zeros((4, 28, 28), np.uint8)])
def test_any_iterable_of_images_is_a_source(device: Device, images: Any) -> None:
    outcomes = list(device.run(images))
    assert [(o.frame, o.source_index, o.status, o.truth) for o in outcomes] == [
        (i, i, Status.OK, None) for i in range(4)
    ]


def test_an_iterable_is_paced_by_the_frame_rate() -> None:
    with Device("garments", controller="device-only", mec=NOBODY, fps=20, deadline_s=5.0) as device:
        captured = [outcome.captured_at or 0.0 for outcome in device.run(pictures(9))]
    assert np.median(np.diff(captured)) == pytest.approx(0.05, rel=0.2)
    assert captured[-1] - captured[0] > 7 * 0.05  # a picture that a busy machine reads late may be close to the next


@pytest.mark.parametrize(
    ("image", "got"),
    [(np.zeros((5, 5)), "float64 (5, 5)"), (np.zeros((0, 5), np.uint8), "uint8 (0, 5)"), ("x", "str")],
)
def test_what_is_no_image_ends_the_run_with_what_was_expected(device: Device, image: Any, got: str) -> None:
    with pytest.raises(FailureError, match="expected numpy uint8 of") as failed:
        list(device.run([image]))
    assert got in str(failed.value)


def test_an_error_of_the_programs_own_source_is_the_cause(device: Device) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from pictures(1)
        raise KeyError("camera")

    answered = []
    with pytest.raises(FailureError, match="KeyError") as failed:
        answered.extend(device.run(broken()))
    assert isinstance(failed.value.__cause__, KeyError)


def test_fewer_images_than_asked_for_is_an_error(device: Device) -> None:
    with pytest.raises(FailureError, match="ended after 2 frames; 3 were asked for"):
        list(device.run(pictures(2), frames=3))


def test_a_run_can_be_left_stopped_and_begun_again(device: Device) -> None:
    for outcome in device.run(pictures(1000)):
        if outcome.frame == 1:
            break
    seen = 0
    for _ in device.run(pictures(1000)):
        seen += 1
        if seen == 3:
            threading.Thread(target=device.stop).start()
    assert 3 <= seen < 1000


def test_a_controller_that_returns_no_row_costs_no_frame() -> None:
    class Broken:
        def decide(self, state: SystemState) -> int:
            return 1_000_000

    said: list[str] = []
    with Device("garments", controller=Broken(), mec=NOBODY, fps=0, deadline_s=5.0, log=said.append) as device:
        assert [outcome.status for outcome in device.run(pictures(2))] == [Status.OK] * 2
    assert any("controller Broken failed: ValueError: decide() returned [1000000]" in line for line in said)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bundle": "zebras"}, "unknown bundle"),
        ({"workload": "campus"}, "is for workload 'garments'; expected 'campus'"),
        ({"controller": "magic"}, "unknown controller 'magic'"),
        ({"controller": lambda costs: None}, "expected an object with decide"),
        ({"mec": "somewhere"}, "somewhere"),
        ({"deadline_s": 0}, "deadline_s: got 0"),
        ({"controller": "greedy", "policy": "x"}, "got --policy"),
        ({"decision": {"partition_point": 99}}, "no legal decision"),
    ],
)
def test_what_cannot_be_is_refused_when_the_device_is_made(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Device(**{"bundle": "garments"} | options)


@pytest.mark.parametrize("source", [np.zeros((28, 28, 3), np.uint8), 4.5])
def test_one_image_is_no_source(device: Device, source: Any) -> None:
    with pytest.raises(UsageError, match="expected"):
        list(device.run(source))


@pytest.mark.parametrize("options", [{}, {"forecast": False}, {"roi": True}], ids=str)
def test_a_controller_that_was_made_beforehand_has_the_rows_of_the_device(options: dict[str, bool]) -> None:
    own = mecpilot.make_controller("greedy", "campus", profile="shipped", **options)
    costs = mecpilot.open_costs("campus", "shipped", **options)
    with mecpilot.Device("campus", own, profile="shipped", **options) as device:
        assert device.costs.space.digest == costs.space.digest
