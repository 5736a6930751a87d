"""Calibrated confidence, what gates cost, and the exits on the way on real frames."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.costs import CostTable
from controller.errors import FailureError, UsageError
from controller.gates import calibrated, exits_on_way, quantised
from controller.records import NO_PAYLOAD, Decision
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.device.device import Device
from runtime.device.local_compute import LocalCompute
from runtime.files.provenance import SHIPPED
from runtime.gating.calibration import Calibrations, calibration_error, fit
from runtime.gating.judge import GateJudge
from runtime.inference.segments import Segments
from runtime.profiling.profile import load_costs
from runtime.workloads.registry import get_workload

GATE = 0.9


@cache
def garments() -> Bundle:
    return open_bundle("garments")


@cache
def costs() -> CostTable:
    return load_costs(garments(), Path(SHIPPED), gates=(GATE,))


def test_every_exit_of_garments_is_calibrated_on_samples_that_the_fit_has_not_seen() -> None:
    calibrations, test = Calibrations(garments()), garments().recorded("test")
    for model in garments().manifest.models:
        for px in garments().manifest.resolutions_of(model):
            for e in range(len(model.exits)):
                variant = calibrations.variant(model.name, px, e)
                sure = calibrated(test.confidence[variant], *calibrations.of(model.name, px, e))
                assert calibration_error(sure, test.score[variant]) <= 0.02, (model.name, px, e)


def test_the_fit_finds_what_distorts_a_confidence() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.05, 0.95, 50_000)
    told = calibrated(truth, 0.5, 0.4)  # the fit must find the inverse: twice the log odds, less 0.8
    found = fit(told, (rng.uniform(size=len(truth)) < truth).astype(float))
    assert found.slope == pytest.approx(2.0, abs=0.1)
    assert found.offset == pytest.approx(-0.8, abs=0.1)
    few = fit(np.array([0.9, 0.9]), np.array([1.0, 1.0]))  # the prior holds what two samples cannot tell
    assert 0.5 < few.slope < 2.0


def spoilt(**changes: Any) -> Calibrations:
    """Calibrations of garments whose recorded confidence was changed."""
    calibrations = Calibrations(garments())
    calibrations.recorded = dataclasses.replace(calibrations.recorded, **changes)
    return calibrations


def test_a_calibration_of_another_model_is_refused() -> None:
    recorded = garments().recorded("validation")
    shuffled = recorded.confidence[:, np.random.default_rng(0).permutation(recorded.confidence.shape[1])]
    for confidence in (shuffled, recorded.confidence * 0.5):
        with pytest.raises(FailureError, match="calibration is that of another model; train the bundle again"):
            spoilt(confidence=confidence).of("resnet", 28, 0)


@pytest.mark.parametrize("gate", [0.0, 0.3, 1.0, 1.5, float("nan"), True, "sure"])
def test_a_gate_that_is_no_confidence_is_refused_in_one_line(gate: Any) -> None:
    with pytest.raises(UsageError, match=r"gate .*; expected a confidence from 0.5 to 0.9999, such as 0.9"):
        load_costs(garments(), Path(SHIPPED), gates=(gate,))


def test_a_bundle_without_exits_on_the_way_has_no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.gating.costs._asked", lambda bundle, decision: ())
    with pytest.raises(UsageError, match=r"no model of the bundle .* has an exit on the way to a later one"):
        load_costs(garments(), Path(SHIPPED), gates=(GATE,))


def test_a_decision_without_an_exit_on_the_way_cannot_be_gated() -> None:
    with pytest.raises(UsageError, match=r"no legal decision has .*gate=0\.9; expected gate among"):
        Device("garments", decision={"partition_point": 0, "gate": GATE}, profile=SHIPPED)


def test_a_gate_of_the_device_goes_into_its_decisions() -> None:
    pinned = Device("garments", decision={"model": "vgg", "partition_point": 4}, gate=GATE, profile=SHIPPED)
    assert pinned._setup.chosen.pinned is not None
    assert pinned._setup.chosen.pinned.gate == GATE
    chosen, plain = (Device("garments", "greedy", gate=gate, profile=SHIPPED).costs.space for gate in (GATE, None))
    assert set(plain.decisions) < set(chosen.decisions)
    assert chosen.gated.any()
    assert not plain.gated.any()


def test_the_heads_on_the_way_run_in_order_and_the_first_sure_one_answers() -> None:
    work = get_workload("garments")
    segments, image = Segments(garments(), work), work.sample(0, "test")[0]
    split = Decision("vgg", 28, 3, 6, "u8")
    gated = dataclasses.replace(split, gate=GATE)
    assert exits_on_way(garments().info("vgg").exit_after, gated) == (0, 1, 2)
    asked: list[int] = []

    def never(exit_branch: int, _: object) -> bool:
        asked.append(exit_branch)
        return False

    through = segments.head(image, gated, is_sure=never)
    assert asked == [0, 1, 2]
    assert through == segments.head(image, split)
    early = segments.head(image, gated, is_sure=lambda e, _: e == 1)
    alone = segments.head(image, Decision("vgg", 28, 1, 4, NO_PAYLOAD))
    assert (early.early_exit, early.payload) == (1, b"")
    np.testing.assert_array_equal(early.outputs, alone.outputs)


def test_the_device_judges_as_the_twin_replays() -> None:
    gates, work = costs().gates, get_workload("garments")
    assert gates is not None
    compute = LocalCompute(garments(), work, gates=gates)
    decision = Decision("vgg", 28, 3, 6, "u8", gate=GATE)
    row = costs().space.index(decision)
    taken = gates.taken(garments().recorded("test").confidence[:, :60])[row]
    found = [costs().path(row, compute.head(sample, decision, lambda: None).early_exit) for sample in range(60)]
    assert len(set(taken.tolist())) >= 3
    assert (np.array(found) == taken).mean() >= 0.95  # a confidence may lie on the edge of two steps
    assert compute.row(decision) == garments().space.index(decision.ungated)


def test_outputs_that_are_no_numbers_are_never_sure() -> None:
    judge = GateJudge(garments(), get_workload("garments"), costs().gates)
    decision, outputs = Decision("vgg", 28, 3, 6, "u8", gate=GATE), np.zeros((1, 10), np.float32)
    outputs[0, 3] = 30.0
    assert judge.is_sure(decision, 0, outputs)
    assert not judge.is_sure(decision, 0, outputs * np.float32("nan"))
    assert float(quantised(0.5)) == pytest.approx(128 / 255)
