"""The input filter: the device's half and the twin's are one rule, and both follow the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.moving_answers import MOVED, MovedCompute, Mover, recorded_with_forecast
from support.same_episode import assert_same
from support.simulated import SimCompute, Simulation
from support.stream import SAMPLES, stream_costs, stream_recorded

import mecpilot
from controller.errors import UsageError
from controller.records import Status
from controller.reuse import Reuse
from envs.played import NO_PICTURES
from envs.setup import open_setup
from envs.techniques import Techniques
from envs.twin.filtering import FilterTable, differences
from runtime.config.sections.shortcuts import FilterSection
from runtime.shortcuts.base import Context
from runtime.shortcuts.filtering.differencing import Differencing
from runtime.shortcuts.filtering.features import LOOK_S, Differencer
from runtime.sources.frames import Frame
from runtime.testbed.markov_traces import builtin_traces
from runtime.workloads.types import Image

#: Brightness of each sample: it wanders by up to 3 of 255 per sample.
BRIGHTNESS = 128 + np.cumsum(np.random.default_rng(5).integers(-3, 4, SAMPLES))


class MovingCompute(SimCompute):
    """Pictures that change by a different amount from sample to sample."""

    def picture(self, source_index: int) -> Image:
        return np.full((16, 16, 3), BRIGHTNESS[source_index], np.uint8)


class MovingSimulation(Simulation):
    compute_type = MovingCompute


class BothMovingCompute(MovingCompute, MovedCompute):
    """Answers move on, too."""


class BothMovingSimulation(Simulation):
    compute_type = BothMovingCompute


class TimedDifferencing(Differencing):
    """Takes its time on the simulated clock. It agrees with an answer as the twin does: by the truth."""

    sim: Simulation

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        self.sim.clock.advance(LOOK_S["pixel"])
        return super().try_answer(frame, context)


def halves(
    config: FilterSection, moves: bool = False, **options: Any
) -> tuple[Simulation, TimedDifferencing, FilterTable]:
    """One filter on a simulated device and in the twin. ``moves``: answers move on by forecasts."""
    differencer, costs = Differencer(config.feature), stream_costs()
    recorded = recorded_with_forecast() if moves else stream_recorded()
    half = TimedDifferencing(
        differencer,
        lambda older, newer: half.sim.compute.score(older, newer[1]),
        threshold=config.threshold,
        target=config.target,
        most_age=config.max_age,
        moves=moves,
    )
    make = BothMovingSimulation if moves else MovingSimulation
    forecaster = Mover(recorded.tracked_speed) if moves else None
    half.sim = sim = make(costs=costs, recorded=recorded, shortcuts=[half], forecaster=forecaster, **options)
    pictures = [sim.compute.picture(sample) for sample in range(SAMPLES)]
    sim.recorded = replayed = recorded.with_forecast() if moves else recorded  # what the twin replays
    return sim, half, FilterTable(config, differences(differencer, pictures), costs, replayed, moves=moves)


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("mode", ["auto", "0.008"])
@pytest.mark.parametrize("seed", range(3))
def test_every_frame_ends_in_the_twin_as_on_the_device(
    mode: str, seed: int, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random decisions over a random uplink; answers are verified and the threshold moves."""
    monkeypatch.setattr("runtime.device.emulation.HEAD_NOISE_FRAC", 0.0)
    rng = np.random.default_rng(seed)
    sim, half, table = halves(
        FilterSection(mode=mode, target=0.9, max_age=4),
        moves,
        device_slowdown=8.0,
        uplink_bps=list(np.exp(rng.normal(np.log(2e6), 0.6, 20))),
        fps=rng.uniform(8, 25),
        deadline_s=rng.uniform(0.1, 0.3),
        frames=200,
    )
    rows = rng.choice(np.flatnonzero(sim.costs.space.frame_stride == 1), 200)
    outcomes = assert_same(sim, rows, [table])
    assert any(np.isfinite(state.motion[0]) for state in sim.states)
    assert max(state.reused_frac[0] for state in sim.states) > 0
    assert Status.FILTERED in {outcome.status for outcome in outcomes}
    assert max(o.frame - o.reused_frame for o in outcomes if o.reused_frame is not None) <= 4
    assert ("verified" in half.notes()) == (mode == "auto")
    assert all((MOVED in o.prediction) == moves for o in outcomes if o.status is Status.FILTERED)


def test_a_comparison_in_the_twin_filters_frames_and_counts_the_time_of_looking() -> None:
    scenario = {"frames": 100, "mec_load_frac": 0.0, "device_slowdown": 5.0, "deadline_s": 0.4}
    techniques = Techniques(filter=FilterSection(mode="auto"))
    filtering = open_setup("campus", builtin_traces("test"), "validation", scenario, "shipped", techniques=techniques)
    local = int(np.flatnonzero(filtering.costs.space.device_only)[0])
    found = {}
    for mode, setup in (("off", replace(filtering, pictures=NO_PICTURES)), ("auto", filtering)):
        twin = setup.twin(4, seed=3)
        twin.reset()
        found[mode] = [twin.step(np.full(4, local))[1] for _ in range(30)]
    passed = sum(int(record.passed_frames.sum()) for record in found["auto"])
    assert passed > 20
    assert all((record.looked_s > 0).all() for record in found["auto"])
    assert all((record.looked_s == 0).all() for record in found["off"])
    assert sum(record.reused_energy_j.sum() for record in found["auto"]) > 0


def test_samples_that_are_no_stream_are_refused() -> None:
    with pytest.raises(UsageError, match="got --filter auto for garments, whose samples are no stream; expected"):
        open_setup("garments", builtin_traces("test"), "test", techniques=Techniques(filter=FilterSection(mode="auto")))


@pytest.mark.parametrize("mode", ["on", "0", "nan", "1.5", "-0.1"])
def test_a_mode_that_makes_no_sense_is_refused(mode: str) -> None:
    with pytest.raises(UsageError, match=rf"--filter {mode}; expected off, auto, or a threshold above 0 and up to 1"):
        mecpilot.Device("campus", "device-only", profile="shipped", filter=FilterSection(mode=mode))
