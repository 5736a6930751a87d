"""What did one controller do on one episode, frame by frame? The arrays behind a timeline plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.evaluation import Entrants, LiveEpisodes
from agents.plots import Timeline
from agents.report import BOUND, Comparison
from agents.rollout import paired_scenarios, play
from agents.world import World
from controller.base import Controller
from controller.metrics import Frames
from controller.records import Decision, Floats, Outcome
from controller.scenario import Scenario
from controller.uplink import Trace, TraceBank


def timeline(
    world: World, entrants: Entrants, comparison: Comparison, name: str, episode: int, live: LiveEpisodes | None = None
) -> Timeline:
    """One episode of one controller (its first copy): what was seen live, or played again in the twin."""
    if live is not None:
        scenario = live.scenarios[episode]
        trace = world.bank.traces[scenario.trace_index]
        return of_outcomes(name, live.outcomes[name][0][episode], scenario, trace)
    scenario = paired_scenarios(world, range(comparison.seeds))[episode]
    return of_twin(world, entrants.make(name, world, batch=1)[0], scenario, oracle=name == BOUND)


def of_twin(world: World, controller: Controller, scenario: Scenario, oracle: bool = False) -> Timeline:
    """Play one scenario in the twin."""
    episodes = play(world, controller, [scenario], oracle=oracle)
    frames, order = episodes.frames, np.argsort(episodes.frame)
    captured_s = episodes.frame[order] / scenario.fps
    trace = world.bank.traces[scenario.trace_index]
    return Timeline(
        controller=controller.name,
        trace=trace.name,
        t_s=captured_s,
        uplink_mbps=_uplink_mbps(trace, scenario, captured_s),
        deadline_ms=scenario.deadline_s * 1e3,
        latency_ms=frames.latency_s[order] * 1e3,
        on_time=frames.on_time[order],
        fallback=frames.fallback[order],
        row=episodes.row[order],
        decisions=world.costs.space.decisions,
    )


def of_outcomes(controller: str, outcomes: Sequence[Outcome], scenario: Scenario, trace: Trace) -> Timeline:
    """From the outcomes of a live episode."""
    captured_s = np.array([outcome.frame for outcome in outcomes]) / scenario.fps
    decisions: dict[Decision, int] = {}
    row = [-1 if o.decision is None else decisions.setdefault(o.decision, len(decisions)) for o in outcomes]
    frames = Frames.from_outcomes(outcomes, 1.0 / scenario.fps)
    return Timeline(
        controller=controller,
        trace=trace.name,
        t_s=captured_s,
        uplink_mbps=_uplink_mbps(trace, scenario, captured_s),
        deadline_ms=scenario.deadline_s * 1e3,
        latency_ms=np.where(frames.dropped, np.inf, frames.latency_s) * 1e3,
        on_time=frames.on_time,
        fallback=frames.fallback,
        row=np.array(row),
        decisions=tuple(decisions),
    )


def _uplink_mbps(trace: Trace, scenario: Scenario, at_s: Floats) -> Floats:
    rate = TraceBank([trace]).rate_bps(np.zeros(len(at_s), dtype=int), scenario.trace_start_s + at_s)
    return rate * scenario.uplink_share_frac / 1e6
