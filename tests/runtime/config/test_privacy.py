"""With ``no_raw_upload`` no image leaves the device: not by any controller, a pinned decision, or a fallback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.live import WORKLOAD, run_device_here
from support.tap import tapped

from controller.costs import CostTable
from controller.errors import UsageError
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.config.privacy import allowed
from runtime.config.sections.device import PrivacySection
from runtime.profiling.profile import load_costs, shipped_path
from runtime.testbed.processes import running_mec

PRIVATE, OPEN = PrivacySection(no_raw_upload=True), PrivacySection()
#: The device is slow and the deadline long, so that controllers ask the MEC.
LIVE = {"slowdown": 150, "fps": 20, "deadline_ms": 200, "frames": 15, "profile": "shipped"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(WORKLOAD)


@pytest.fixture(scope="module")
def costs(bundle: Bundle) -> CostTable:
    return load_costs(bundle, shipped_path(WORKLOAD))


def test_only_splits_and_local_decisions_are_left(costs: CostTable) -> None:
    left = allowed(costs, PRIVATE)
    assert 0 < len(left) < len(costs)
    assert all(d.partition_point >= 1 for d in left.space.decisions)
    lost = set(costs.space.decisions) - set(left.space.decisions)
    assert all(d.partition_point == 0 for d in lost)
    assert left.neighbour_mec_s == costs.neighbour_mec_s
    assert allowed(costs, OPEN) is costs


def test_a_table_without_any_other_decision_is_refused(costs: CostTable) -> None:
    with pytest.raises(UsageError, match="every decision of the bundle sends the image"):
        allowed(costs.take(np.flatnonzero(costs.space.full_offload)), PRIVATE)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_request_with_partition_point_0_leaves_the_device(bundle: Bundle, tmp_path: Path) -> None:
    """What crosses is read from the connection, between a real device and a real MEC."""
    config = tmp_path / "private.toml"
    config.write_text("[privacy]\nno_raw_upload = true\n")

    def points(mec: str, name: str, **options: object) -> set[int]:
        with tapped(mec) as tap:
            done = run_device_here(tap.endpoint, tmp_path / name, **LIVE | options)
            assert (done.code, len(done.outcomes)) == (0, 15), done.err
            return {bundle.space.decisions[row].partition_point for row in tap.requested_rows()}

    with running_mec(WORKLOAD) as mec:
        assert 0 in points(mec.endpoint, "open", controller="random")  # the tap sees what there is to see
        crossed = set()
        for name in (
            "random",
            "ppo",
            "static-best",
            "neurosurgeon",
            "edgent",
            "edgent-dynamic",
            "greedy",
            "oboe",
            "linucb",
        ):
            crossed |= points(mec.endpoint, name, controller=name, config=config)
        crossed |= points(mec.endpoint, "pinned", decision={}, config=config)
    assert crossed
    assert 0 not in crossed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"controller": "jpeg-offload"}, "controller jpeg-offload only sends images, which --no-raw-upload forbids"),
        ({"controller": "mec-only"}, "controller mec-only only sends images, which --no-raw-upload forbids"),
        (
            {"decision": {"partition_point": 0}},
            "the decision with partition_point=0 sends the image, which --no-raw-upload forbids",
        ),
        ({"decision": {"payload": "raw"}}, "the decision with payload='raw' sends the image"),
        ({"decision": {"partition_point": 99}}, "expected partition_point among [1, 2, 3"),
    ],
    ids=str,
)
def test_who_could_only_send_images_is_refused_in_one_line(
    options: dict[str, object], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "private.toml").write_text("[privacy]\nno_raw_upload = true\n")
    done = run_device_here("tcp://127.0.0.1:9", tmp_path / "log", config=tmp_path / "private.toml", **options)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert expected in done.err


def test_the_summary_of_a_private_device_says_so(tmp_path: Path) -> None:
    (tmp_path / "private.toml").write_text("[privacy]\nno_raw_upload = true\n")
    options = {"config": tmp_path / "private.toml", "frames": 2, "fps": 0, "profile": "shipped"}
    done = run_device_here("tcp://127.0.0.1:9", tmp_path / "log", **options)
    assert (done.code, done.out.splitlines()[-1]) == (0, "no_raw_upload: no decision sends an image")
