"""What did one controller do on one episode, frame by frame? The arrays behind a timeline plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.plots import Timeline
from agents.rollout import play
from agents.world import World
from controller.base import Controller
from controller.metrics import Frames
from controller.records import Decision, Floats, Outcome
from controller.scenario import Scenario
from controller.uplink import Trace, TraceBank


def of_twin(world: World, controller: Controller, scenario: Scenario, oracle: bool = False) -> Timeline:
    """Play one scenario in the twin; frames that were dropped have no place in the timeline."""
    episodes = play(world, controller, [scenario], oracle=oracle)
    decided = episodes.row >= 0
    frames, captured_s = episodes.frames, episodes.frame[decided] / scenario.fps
    return Timeline(
        controller=controller.name,
        trace=world.bank.traces[scenario.trace_index].name,
        t_s=captured_s,
        uplink_mbps=_uplink_mbps(world.bank.traces[scenario.trace_index], scenario, captured_s),
        deadline_ms=scenario.deadline_s * 1e3,
        latency_ms=frames.latency_s[decided] * 1e3,
        on_time=frames.on_time[decided],
        row=episodes.row[decided],
        decisions=world.costs.space.decisions,
    )


def of_outcomes(controller: str, outcomes: Sequence[Outcome], scenario: Scenario, trace: Trace) -> Timeline:
    """From the outcomes of a live episode."""
    captured_s = np.array([outcome.frame for outcome in outcomes]) / scenario.fps
    decisions: dict[Decision, int] = {}
    row = [-1 if o.decision is None else decisions.setdefault(_decision(o), len(decisions)) for o in outcomes]
    frames = Frames.from_outcomes(outcomes, 1.0 / scenario.fps)
    return Timeline(
        controller=controller,
        trace=trace.name,
        t_s=captured_s,
        uplink_mbps=_uplink_mbps(trace, scenario, captured_s),
        deadline_ms=scenario.deadline_s * 1e3,
        latency_ms=np.where(frames.dropped, np.inf, frames.latency_s) * 1e3,
        on_time=frames.on_time,
        row=np.array(row),
        decisions=tuple(decisions),
    )


def _decision(outcome: Outcome) -> Decision:
    """The decision of an outcome that may have come as plain values."""
    decision = outcome.decision
    return Decision(**decision) if isinstance(decision, dict) else decision  # type: ignore[return-value]


def _uplink_mbps(trace: Trace, scenario: Scenario, at_s: Floats) -> Floats:
    rate = TraceBank([trace]).rate_bps(np.zeros(len(at_s), dtype=int), scenario.trace_start_s + at_s)
    return rate * scenario.uplink_share_frac / 1e6
