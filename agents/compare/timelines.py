"""Builds the arrays behind a timeline plot: one episode of one controller, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.compare.evaluation import Entrants, LiveEpisodes, player
from agents.compare.report import Comparison
from agents.compare.rollout import paired_scenarios, play
from controller.controllers.base import Controller
from controller.controllers.registry import ORACLE
from controller.metrics import Frames, overall
from controller.predict.uplink import Trace, TraceBank
from controller.records import Bools, Decision, Floats, Ints, Outcome
from controller.scenario import Scenario
from envs.setup import Setup


@dataclass(frozen=True)
class Timeline:
    """One episode of one controller; arrays are (N,), one value per frame in order of capture."""

    controller: str
    trace: str
    t_s: Floats  # capture time since the start of the episode
    uplink_mbps: Floats  # the device's bandwidth at capture
    deadline_ms: float
    latency_ms: Floats  # infinite for a frame that was not run or never answered
    status: Ints  # number in STATUSES
    answered: Bools  # whether the frame was run and answered, in time or late
    row: Ints  # in ``decisions``; -1 for a frame without a decision
    decisions: tuple[Decision, ...]
    figures: dict[str, float]  # of the episode, as in ``controller.metrics``


def timeline(
    setup: Setup, entrants: Entrants, comparison: Comparison, name: str, episode: int, live: LiveEpisodes | None = None
) -> Timeline:
    """One episode of a controller's first copy: recorded live, or played again in the twin."""
    if live is not None:
        scenario = live.scenarios[episode]
        trace = setup.bank.traces[scenario.trace_index]
        return of_outcomes(name, live.outcomes[name][0][episode], scenario, trace)
    scenario = paired_scenarios(setup, range(comparison.seeds))[episode]
    return of_twin(setup, player(setup, entrants, name, 0, [scenario]), scenario, oracle=name == ORACLE)


def of_twin(setup: Setup, controller: Controller, scenario: Scenario, oracle: bool = False) -> Timeline:
    """The timeline of one scenario, played in the twin."""
    episodes = play(setup, controller, [scenario], oracle=oracle)
    trace = setup.bank.traces[scenario.trace_index]
    played = (episodes.frames, episodes.frame, episodes.row, setup.costs.space.decisions)
    return _timeline(controller.name, trace, scenario, *played)


def of_outcomes(controller: str, outcomes: Sequence[Outcome], scenario: Scenario, trace: Trace) -> Timeline:
    """The timeline of a live episode, from its outcomes in any order."""
    decisions: dict[Decision, int] = {}
    row = [-1 if o.decision is None else decisions.setdefault(o.decision, len(decisions)) for o in outcomes]
    frames = Frames.from_outcomes(outcomes, 1.0 / scenario.fps)
    numbers = np.array([outcome.frame for outcome in outcomes])
    return _timeline(controller, trace, scenario, frames, numbers, np.array(row), tuple(decisions))


def _timeline(
    controller: str,
    trace: Trace,
    scenario: Scenario,
    frames: Frames,
    number: Ints,
    row: Ints,
    decisions: tuple[Decision, ...],
) -> Timeline:
    """Sort frames by capture; they come in the order in which they ended."""
    order = np.argsort(number)
    captured_s = number[order] / scenario.fps
    return Timeline(
        controller=controller,
        trace=trace.name,
        t_s=captured_s,
        uplink_mbps=_uplink_mbps(trace, scenario, captured_s),
        deadline_ms=scenario.deadline_s * 1e3,
        latency_ms=frames.latency_s[order] * 1e3,
        status=frames.status[order],
        answered=frames.answered[order],
        row=row[order],
        decisions=decisions,
        figures=overall(frames),
    )


def _uplink_mbps(trace: Trace, scenario: Scenario, at_s: Floats) -> Floats:
    rate = TraceBank([trace]).rate_bps(np.zeros(len(at_s), dtype=int), scenario.trace_start_s + at_s)
    return rate * scenario.uplink_share_frac / 1e6
