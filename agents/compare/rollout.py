"""Plays the same scenarios under each controller in the twin.

All episodes of a comparison run as one batch of the twin. Scenarios are drawn once, and the twin's noise depends on
(episode, frame) only, so two controllers differ only in their decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controller.controllers.base import Controller
from controller.metrics import ANSWERERS, EARLY_EXIT, NO_KIND, NOBODY, Frames
from controller.predict.uplink import TraceBank
from controller.records import STATUSES, Bools, Floats, Ints, Status, SystemState
from controller.scenario import Scenario
from controller.streaming import newest_answered
from controller.timeline import GIVE_UP_DEADLINES
from envs.setup import Setup
from envs.twin.record import StepRecord
from envs.twin.twin import Reward, Twin

_LATE, _DROPPED = STATUSES.index(Status.LATE), STATUSES.index(Status.DROPPED)
_FALLBACK, _EARLY = ANSWERERS.index("fallback"), ANSWERERS.index(EARLY_EXIT)

Progress = Callable[[int], None]  # called with the number of frames decided since the last call
#: Called at each step with the states (B,), the rows decided for them, and which episodes are still running.
Watch = Callable[[SystemState, Ints, Bools], None]


@dataclass(frozen=True)
class Episodes:
    """The ends of all N frames: decided ones in order of decision, then dropped ones, then those with a reused
    answer."""

    frames: Frames
    frame: Ints  # (N,) number within the episode
    row: Ints  # (N,) of the cost table; -1 without a decision


def paired_scenarios(setup: Setup, seeds: Sequence[int]) -> list[Scenario]:
    """One scenario per seed and trace, seeds in the outer order."""
    return [_scenario(setup, seed, trace) for seed in seeds for trace in range(len(setup.bank))]


def spread_scenarios(setup: Setup, count: int) -> list[Scenario]:
    """``count`` of the paired scenarios, evenly spread over the bank's traces."""
    paired = paired_scenarios(setup, range(-(-count // len(setup.bank))))
    return [paired[i * len(paired) // count] for i in range(count)]


def scenarios_on(setup: Setup, count: int, seed: int) -> list[Scenario]:
    """``count`` scenarios; the traces take turns."""
    return [_scenario(setup, seed + i // len(setup.bank), i % len(setup.bank)) for i in range(count)]


def _scenario(setup: Setup, seed: int, trace: int) -> Scenario:
    """The scenario of a seed and a trace's number; it does not depend on the number of traces."""
    rng = np.random.default_rng([seed, trace])
    return setup.range.sample(rng, setup.bank, setup.recorded.score.shape[1], trace)


def play(
    setup: Setup,
    controller: Controller,
    scenarios: Sequence[Scenario],
    *,
    reward: Reward = "replayed",
    oracle: bool = False,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Episodes:
    """Run every scenario to its end under one controller, which was made for a batch of ``len(scenarios)``.

    Episodes that are over are stepped on until the last one ends, so a controller decides for them as well; nothing
    of that is in the result, and ``watch`` is told which ones still run."""
    twin = setup.twin(len(scenarios), reward=reward, oracle=oracle)
    state = twin.reset(scenarios=scenarios)
    controller.reset(np.ones(len(scenarios), bool))
    alive = np.ones(len(scenarios), bool)
    records: list[tuple[Bools, StepRecord]] = []
    while alive.any():
        rows = controller.decide(state)
        if watch is not None:
            watch(state, rows, alive)
        state, record = twin.step(rows)
        records.append((alive, record))
        if progress is not None:
            progress(int(alive.sum()))
        alive = alive & ~record.done
    return _episodes(records, scenarios, setup, twin)


def _episodes(
    records: list[tuple[Bools, StepRecord]], scenarios: Sequence[Scenario], setup: Setup, twin: Twin
) -> Episodes:
    alive = np.stack([mask for mask, _ in records])  # (steps, episodes)

    def column(name: str) -> np.ndarray:
        return np.stack([getattr(record, name) for _, record in records])[alive]

    episode = np.broadcast_to(np.arange(len(scenarios)), alive.shape)[alive]
    deadline = np.array([scenario.deadline_s for scenario in scenarios])[episode]
    interval = np.array([1.0 / scenario.fps for scenario in scenarios])
    status, latency = column("status").astype(np.int8), column("latency_s")
    # For a frame that was given up, the twin reports the time at which that happened.
    unanswered = (status == _LATE) & (latency >= GIVE_UP_DEADLINES * deadline * (1 - 1e-9))
    kind = setup.costs.space.kind[column("row")]
    early = (column("path") >= len(setup.costs)) & (column("path") < len(setup.costs.paths))
    by_kind = np.where(early, _EARLY, kind)  # KINDS are in the order of ANSWERERS
    answered_by = np.where(column("fell_back"), _FALLBACK, by_kind)
    frame, reused = column("frame"), _reused(records)
    lost, lost_frame = _dropped(scenarios, (episode, frame), (reused.env, reused.frame))
    streaming = np.full((len(scenarios), max(scenario.frames for scenario in scenarios)), np.nan)
    if setup.recorded.lagged is not None:
        answered = column("answered")
        out_frames = frame + latency / interval[episode]
        answers = _Answers(*(a[answered] for a in (episode, frame, out_frames, column("answer_row"))))
        streaming = _streaming(twin, scenarios, answers, streaming.shape)
    decided = Frames(
        episode=episode,
        status=status,
        kind=kind.astype(np.int8),
        answered_by=np.where(unanswered, NOBODY, answered_by).astype(np.int8),
        utility=column("utility"),
        score=column("score"),
        latency_s=np.where(unanswered, np.inf, latency),
        payload_bytes=column("payload_bytes"),
        energy_j=column("energy_j"),
        capture_period_s=interval[episode],
        streaming=streaming[episode, frame],
    )
    penalty, no_score = np.full(len(lost), -setup.range.utility.drop_penalty), np.zeros(len(lost))
    status = np.full(len(lost), _DROPPED)
    dropped = _not_run(status, lost, interval[lost], penalty, no_score, streaming[lost, lost_frame], no_score)
    # A reused answer is in time. It costs the energy of the shortcut that found it.
    earned = reused.score - setup.range.utility.energy_weight_per_j * reused.energy_j
    columns = (reused.reason, reused.env, interval[reused.env], earned, reused.score)
    reusing = _not_run(*columns, streaming[reused.env, reused.frame], reused.energy_j)
    no_row = np.full(len(lost) + len(reused.env), -1)
    return Episodes(
        _concatenated(_concatenated(decided, dropped), reusing),
        np.concatenate((frame, lost_frame, reused.frame)),
        np.append(column("row"), no_row),
    )


class _Reused(NamedTuple):
    """The K frames that an earlier answer stands for; (K,) each, ``env`` is the episode."""

    env: Ints
    frame: Ints
    reason: Ints  # number in STATUSES
    score: Floats
    energy_j: Floats


def _reused(records: list[tuple[Bools, StepRecord]]) -> _Reused:
    """The reused frames of running episodes; each record comes with a (B,) mask of these."""
    steps = [record.reused for _, record in records]
    alive = np.concatenate([mask[record.reused.env] for mask, record in records])
    return _Reused(*(np.concatenate([getattr(step, name) for step in steps])[alive] for name in _Reused._fields))


def _dropped(scenarios: Sequence[Scenario], *others: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    """Episode and number of every frame that is not among ``others``, which are such pairs too."""
    frames = np.array([scenario.frames for scenario in scenarios])
    left = np.arange(frames.max()) < frames[:, None]
    for episode, frame in others:
        left[episode, frame] = False
    episode, frame = np.nonzero(left)
    return episode, frame


class _Answers(NamedTuple):
    """All N computed answers; (N,) each."""

    episode: Ints
    frame: Ints
    out_frames: Floats  # time of the answer in frame intervals since the start of the episode
    row: Ints  # that computed it


def _streaming(twin: Twin, scenarios: Sequence[Scenario], answers: _Answers, shape: tuple[int, int]) -> Floats:
    """(episodes, frames) score of the newest answer at each capture, from the recorded scores of aged answers."""
    newest = newest_answered(answers.episode, answers.frame, answers.out_frames, shape)
    row_of = np.zeros(shape, np.int64)
    row_of[answers.episode, answers.frame] = answers.row
    known = np.maximum(newest, 0)
    first_sample = np.array([scenario.first_sample for scenario in scenarios])[:, None]
    sample = (first_sample + known) % twin.samples
    score = twin.aged_score(np.take_along_axis(row_of, known, axis=1), sample, np.arange(shape[1]) - known)
    return np.where(newest < 0, 0.0, score)


def _not_run(
    status: Ints,
    episode: Ints,
    period_s: Floats,
    utility: Floats,
    score: Floats,
    streaming: Floats,
    energy_j: Floats,
) -> Frames:
    """Frames without a computation."""
    zeros = np.zeros(len(episode))
    return Frames(
        episode=episode,
        status=status.astype(np.int8),
        kind=np.full(len(episode), NO_KIND, np.int8),
        answered_by=np.full(len(episode), NOBODY, np.int8),
        utility=utility,
        score=score,
        latency_s=zeros + np.inf,
        payload_bytes=zeros,
        energy_j=energy_j,
        capture_period_s=period_s,
        streaming=streaming,
    )


def _concatenated(first: Frames, second: Frames) -> Frames:
    return Frames(**{n: np.append(getattr(first, n), getattr(second, n)) for n in Frames.__dataclass_fields__})


def on_trace(bank: TraceBank, scenario: Scenario) -> str:
    """Name of the scenario's trace."""
    return bank.traces[scenario.trace_index].name
