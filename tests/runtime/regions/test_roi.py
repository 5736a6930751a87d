"""Regions of interest on a real device with a real MEC: where it looks, what it says of the rest, when it sees all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.costs import CostTable
from controller.errors import UsageError
from controller.records import Outcome, Region, SystemState
from controller.regions import MOST_AGE, Window
from controller.reuse import PastAnswer
from runtime.bundles.bundle import open_bundle
from runtime.device.device import Device
from runtime.mec.records import RequestRecord
from runtime.mec.server import MecServer
from runtime.profiling.profile import load_costs
from runtime.regions.costs import can_be_cropped, with_unmeasured_crops
from runtime.regions.finder import RegionFinder
from runtime.regions.part import moved_region, part_of
from runtime.sources.frames import Frame
from runtime.workloads.placement import Placement
from runtime.workloads.registry import get_workload

NOBODY = "tcp://127.0.0.1:9"
LOCAL = {"model": "nano", "resolution_px": 512, "payload": "none", "exit_branch": 2}
SENT = {"model": "nano", "resolution_px": 384, "payload": "jpeg30", "partition_point": 0}


class Kept(list[RequestRecord]):
    """A sink that keeps what it is given."""

    def add(self, record: RequestRecord) -> None:
        self.append(record)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def requests() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def mec(requests: Kept) -> Iterator[MecServer]:
    with MecServer("campus", bind="tcp://127.0.0.1:*", sinks=[requests]).start() as server:
        yield server


def run(mec: str, decision: dict[str, Any], source: Any = None, **options: Any) -> list[Outcome]:
    """Every frame is answered before the next is captured, however long that takes."""
    with Device("campus", mec=mec, decision=decision, fps=0, deadline_s=20.0, profile="shipped", **options) as device:
        return list(device.run(source, frames=None if source is not None else 24))


def of_video(numbers: Sequence[int]) -> list[np.ndarray]:
    return [get_workload("campus").sample(number, "validation")[0] for number in numbers]  # type: ignore[arg-type]


@pytest.mark.parametrize("decision", [LOCAL, SENT], ids=["local", "sent"])
def test_a_part_is_run_and_the_whole_is_answered(mec: MecServer, requests: Kept, decision: dict[str, Any]) -> None:
    outcomes = run(mec.endpoint, decision | {"crop": 0.75}, of_video(range(24)))
    assert outcomes[0].region is None
    assert outcomes[0].decision is not None
    assert outcomes[0].decision.crop == 0
    since = 0
    for outcome in outcomes[1:]:
        since = 0 if outcome.region is None else since + 1
        assert since <= MOST_AGE
        if (region := outcome.region) is not None:
            assert (region.width, region.height) == (576, 432)
            assert outcome.decision is not None
            assert outcome.decision.crop == 0.75
            assert 0 <= region.seen <= len(outcome.prediction)
            for x, y, w, h, _ in outcome.prediction[: region.seen]:
                assert region.x - 0.2 <= x <= x + w <= region.x + region.width + 0.2
                assert region.y - 0.2 <= y <= y + h <= region.y + region.height + 0.2
    assert sum(outcome.region is not None for outcome in outcomes) > 12
    if decision is SENT:
        assert len(requests) >= 12
        asked = [request.decision for request in requests if request.decision is not None]
        assert {decision.crop for decision in asked} == {0.0}  # the MEC knows of no crop


def test_with_forecasts_objects_keep_their_numbers(mec: MecServer) -> None:
    outcomes = run(mec.endpoint, LOCAL | {"crop": 0.625}, forecast=True)
    assert any(outcome.region is not None for outcome in outcomes)
    for outcome in outcomes:
        assert outcome.track_ids is not None
        assert len(set(outcome.track_ids)) == len(outcome.prediction)
    first, last = (set(outcomes[place].track_ids or ()) for place in (2, -1))
    assert first & last


def test_after_a_cut_and_when_the_camera_was_moved_the_whole_picture_is_run_at_once(mec: MecServer) -> None:
    here = of_video(range(12))
    elsewhere = [np.ascontiguousarray(picture[::-1, ::-1]) for picture in here]
    moved = [np.roll(picture, 150, axis=1) for picture in here]
    outcomes = run(mec.endpoint, LOCAL | {"crop": 0.75}, [*here[:4], *elsewhere[4:8], *moved[8:12]])
    whole = [outcome.frame for outcome in outcomes if outcome.region is None]
    assert whole == [0, 4, 8]


def test_nothing_moves_nothing_is_cropped(mec: MecServer) -> None:
    outcomes = run(mec.endpoint, LOCAL | {"crop": 0.75}, of_video([5]) * 6)
    assert all(outcome.region is None for outcome in outcomes)


def test_regions_are_in_pixels_of_the_users_own_picture(mec: MecServer) -> None:
    large = [np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1) for picture in of_video(range(4))]
    outcomes = run(mec.endpoint, LOCAL | {"crop": 0.75}, large)
    regions = [outcome.region for outcome in outcomes if outcome.region is not None]
    assert regions
    assert {(region.width, region.height) for region in regions} == {(1152, 864)}


class Cropper:
    """A controller of a user's own that takes the first decision with a crop."""

    def __init__(self, costs: CostTable) -> None:
        self._row = int(np.flatnonzero(costs.space.cropped & costs.space.device_only)[0])
        self.ages: list[int] = []

    def decide(self, state: SystemState) -> int:
        assert state.whole_age is not None
        self.ages.append(int(state.whole_age[0]))
        return self._row


def test_a_controller_may_choose_crops_and_sees_how_old_the_last_whole_answer_is(mec: MecServer) -> None:
    made: list[Cropper] = []

    def make(costs: CostTable) -> Cropper:
        made.append(Cropper(costs))
        return made[0]

    with Device("campus", make, mec.endpoint, roi=True, fps=0, deadline_s=20.0, profile="shipped") as device:
        outcomes = list(device.run(frames=16))
    assert made[0].ages[0] == 0
    ran = [outcome for outcome in outcomes if outcome.status.ran]
    assert any(outcome.region is not None for outcome in ran)  # until the MEC is met, local answers may be whole
    for age, outcome in zip(made[0].ages, ran, strict=True):
        assert outcome.region is None or 1 <= age <= MOST_AGE


def test_the_summary_counts_them() -> None:
    with Device("campus", mec=NOBODY, decision=LOCAL | {"crop": 0.75}, fps=0, deadline_s=20.0) as device:
        run = device.prepare(frames=3)
        outcomes = list(run)
        notes = run.shortcut_notes["roi"]
        run.close()
    assert notes["cropped"] == sum(outcome.region is not None for outcome in outcomes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bundle": "garments", "roi": True}, "got crops with the workload 'garments', whose answers are no boxes"),
        ({"bundle": "campus", "decision": {"crop": 2}}, "crop 2; expected a share of the picture's width"),
        (
            {"bundle": "campus", "decision": {"crop": 0.5, "payload": "h264q40"}},
            r"no legal decision has crop=0.5, payload='h264q40'|no legal decision has",
        ),
    ],
)
def test_what_cannot_be_cropped_is_refused_in_one_line(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as refused:
        Device(options.pop("bundle"), mec=NOBODY, **options)
    assert "\n" not in str(refused.value)


def test_only_device_only_decisions_and_images_that_stand_alone_have_crops() -> None:
    bundle = open_bundle("campus")
    for decision in bundle.space.decisions:
        split = decision.partition_point > 0 and decision.payload != "none"
        assert can_be_cropped(decision) == (not split and not decision.payload.startswith("h264"))


def test_without_crops_nothing_changes() -> None:
    costs = load_costs(open_bundle("campus"), Path("shipped"))
    more = with_unmeasured_crops(costs, (0.75,))
    assert more.space.take(range(len(costs))).digest == costs.space.digest
    np.testing.assert_array_equal(more.head_s[: len(costs)], costs.head_s)
    np.testing.assert_array_equal(more.local_frontier, costs.local_frontier)
    cropped = np.flatnonzero(more.space.cropped)
    assert [more.space.decisions[row].whole for row in cropped] == [
        more.space.decisions[row] for row in more.whole_row[cropped]
    ]


def picture(index: int) -> np.ndarray:
    """A bright square of 64 pixels that walks to the right."""
    found = np.full((576, 768, 3), 90, np.uint8)
    found[200:264, 16 * index : 16 * index + 64] = 220
    return found


def test_a_crop_refers_to_the_newest_answer_to_a_whole_picture_that_is_out() -> None:
    finder = RegionFinder(picture)
    assert finder.aim(Frame(0, 0, 0.0), 0.75, 0.0) is None  # no answer yet
    finder.answered(PastAnswer(0, 0.5, []))
    assert finder.aim(Frame(1, 1, 0.1), 0.75, 0.4) is None  # not out yet
    found = finder.aim(Frame(2, 2, 0.2), 0.75, 0.6)
    assert found is not None
    assert found.reference.frame == 0
    finder.answered(PastAnswer(2, 0.7, [], None, is_whole=False))
    for index in range(3, MOST_AGE + 1):
        found = finder.aim(Frame(index, index, 0.0), 0.75, 0.8)
        assert found is not None
        assert found.reference.frame == 0
    assert finder.aim(Frame(MOST_AGE + 1, MOST_AGE + 1, 0.0), 0.75, 0.9) is None  # too old
    assert finder.age(MOST_AGE + 1, 0.9) == MOST_AGE + 1
    assert finder.notes() == {"cropped": float(MOST_AGE - 1), "whole_instead": 3.0}


def test_part_and_region() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    np.testing.assert_array_equal(part_of(image, Window(2, 1, 4, 3)), image[1:4, 2:6])
    placement = Placement(1536, 1152, 0.5, 0.5, 0.0, 0.0)
    assert moved_region(Region(10, 20, 100, 50, 3), 2, placement) == Region(20, 40, 200, 100, 2)
    assert moved_region(Region(900, 20, 100, 50, 0), 0, placement) == Region(0.0, 0.0, 0.0, 0.0, 0)
