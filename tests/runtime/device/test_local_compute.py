"""The device's own computation: what a MEC has to send back, and what is run before the first frame."""

from __future__ import annotations

import pytest
import torch

from controller.records import NO_PAYLOAD
from runtime.bundles.bundle import open_bundle
from runtime.device.local_compute import LocalCompute
from runtime.workloads.registry import get_workload


@pytest.fixture(scope="module")
def compute() -> LocalCompute:
    torch.set_num_threads(1)
    return LocalCompute(open_bundle("garments"), get_workload("garments"))


def test_the_shape_of_an_exits_outputs_is_that_of_the_undivided_model(compute: LocalCompute) -> None:
    decisions = open_bundle("garments").space.decisions
    exits = {(d.model, d.resolution_px, d.exit_branch): d for d in decisions}
    for decision in exits.values():
        assert compute.output_shape(decision) == compute._segments.whole(compute._blank, decision).shape
    assert compute.largest_output_bytes(decisions) == 40


def test_each_pass_and_each_codec_is_warmed_once_and_not_when_the_process_is_to_end(
    compute: LocalCompute, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = open_bundle("garments").space.decisions
    ran = []
    monkeypatch.setattr(compute._segments, "head", lambda _, decision: ran.append(decision))
    compute.warm_up(decisions, lambda: len(ran) >= 7)
    assert len(ran) == 7
    ran.clear()
    compute.warm_up(decisions)
    passes = {(d.model, d.resolution_px, d.partition_point, d.exit_branch) for d in ran if d.payload == NO_PAYLOAD}
    assert passes == {
        (d.model, d.resolution_px, d.partition_point, d.exit_branch) for d in decisions if d.payload == NO_PAYLOAD
    }
    assert {d.payload for d in ran} == {d.payload for d in decisions}
    assert len(ran) < len(decisions)
