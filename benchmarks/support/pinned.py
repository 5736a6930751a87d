"""Plays one decision for every frame of the test split, in the twin or with real processes, and sums up.

The setup holds every legal decision of the bundle, not only the candidates of the controllers, which are chosen for the
workload's usual conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.compare.evaluation import Entrants, compare_live
from agents.compare.rollout import play
from controller.controllers.simple import FixedRow, Memoryless
from controller.metrics import ANSWERERS, EARLY_EXIT, Frames
from controller.packets import wire_bytes
from controller.predict.uplink import Trace, TraceBank
from controller.records import NO_PAYLOAD, Decision, Ints, Outcome, SystemState
from controller.scenario import Scenario
from envs.setup import Setup, open_setup
from envs.techniques import Techniques

#: Terms of the latency that are shown, as sums of those of ``BreakdownMs``. Live, uplink and downlink are told apart by
#: the smallest round trip that was seen, which on a narrow link holds the time of a ping: only their sum is exact.
TERMS = {"wait": ("wait",), "head": ("head",), "link": ("uplink", "downlink"), "MEC": ("queue", "tail")}
#: Episodes that the twin plays at a time.
_SIDE_BY_SIDE = 512
_EARLY = ANSWERERS.index(EARLY_EXIT)


def whole_setup(bundle: str, link: Trace, profile: Path | None, gates: Sequence[float] | None = None) -> Setup:
    """The test split of a bundle on one link, with every legal decision, and each gated by each of the gates."""
    techniques = Techniques(None if gates is None else tuple(gates))
    setup = open_setup(bundle, TraceBank([link]), "test", profile=profile, techniques=techniques)
    return replace(setup, costs=setup.everything)


def episode_of(setup: Setup, **conditions: float) -> Scenario:
    """All test frames in order, from the first, on a device and a MEC without other load."""
    return Scenario(frames=setup.bundle.manifest.sample_counts["test"], **conditions)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Figures:
    """What one decision comes to over an episode."""

    score: float  # mean over all frames; 0 for a frame without an answer in time, dropped ones included
    in_time_frac: float  # of the frames that were run or dropped
    fallback_frac: float  # of all frames: answered in time by the device in the MEC's place
    uplink_bytes_per_s: float  # whole messages of requests; pings and retransmissions do not count
    p50_ms: float  # latency of the frames that were run and answered; NaN without one
    p95_ms: float
    energy_j: float  # modelled, per frame
    early_frac: float = 0.0  # of the frames that were answered: by an exit on the way of a gated decision

    def plain(self) -> dict[str, float]:
        return asdict(self)


def figures_of(frames: Frames) -> Figures:
    """The figures of one episode."""
    run, counted = ~frames.reused, frames.in_time | frames.reused
    latency_ms = 1e3 * frames.latency_s[frames.answered]
    sent = frames.payload_bytes[frames.payload_bytes > 0]
    return Figures(
        score=float(np.where(counted, frames.score, 0.0).mean()),
        in_time_frac=float(frames.in_time.sum() / max(run.sum(), 1)),
        fallback_frac=float(frames.fallback.mean()),
        uplink_bytes_per_s=float(wire_bytes(sent).sum() / frames.capture_period_s.sum()),
        p50_ms=float(np.percentile(latency_ms, 50)) if len(latency_ms) else float("nan"),
        p95_ms=float(np.percentile(latency_ms, 95)) if len(latency_ms) else float("nan"),
        energy_j=float(frames.energy_j.mean()),
        early_frac=float((frames.answered_by == _EARLY).sum() / max(frames.answered.sum(), 1)),
    )


class _RowOfEach(Memoryless):
    """Decides row ``rows[i]`` for every frame of episode i."""

    name = "pinned"

    def __init__(self, rows: Ints) -> None:
        self._rows = rows

    def decide(self, state: SystemState) -> Ints:
        return self._rows


def in_twin(setup: Setup, scenario: Scenario, rows: Ints) -> list[Figures]:
    """The figures of each row of the setup's table in the twin."""
    return [figures for some in _parts(rows) for figures in _in_twin(setup, scenario, some)]


def _parts(rows: Ints) -> list[Ints]:
    return np.array_split(rows, max(-(-len(rows) // _SIDE_BY_SIDE), 1))


def _in_twin(setup: Setup, scenario: Scenario, rows: Ints) -> Iterator[Figures]:
    frames = play(setup, _RowOfEach(rows), [scenario] * len(rows)).frames
    names = Frames.__dataclass_fields__
    order = np.argsort(frames.episode, kind="stable")
    ends = np.cumsum(np.bincount(frames.episode, minlength=len(rows)))[:-1]
    columns = {name: np.split(getattr(frames, name)[order], ends) for name in names}
    for episode in range(len(rows)):
        yield figures_of(Frames(**{name: columns[name][episode] for name in names}))


@dataclass(frozen=True)
class Compared:
    """A decision live and in the twin."""

    decision: Decision
    live: Figures
    twin: Figures
    live_ms: dict[str, float]  # medians of the terms of the latency, over frames that were answered as decided
    twin_ms: dict[str, float]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def compare(setup: Setup, scenario: Scenario, rows: Ints, progress: Callable[[int], None]) -> list[Compared]:
    """Play each row with a MEC process and this process as the device, in real time, and in the twin.

    The table is reduced to these rows and the ones that a fallback may choose.
    """
    kept = np.unique(np.concatenate((rows, setup.costs.local_frontier)))
    setup = replace(setup, costs=setup.costs.take(kept))
    rows = np.searchsorted(kept, rows)
    decisions = [setup.costs.space.decisions[row] for row in rows]
    makers = {d.label: partial(_fixed, d.label, int(row)) for d, row in zip(decisions, rows, strict=True)}
    link = setup.bank.traces[0].name
    live, episodes = compare_live(setup, Entrants((), own=makers), [link], [scenario], progress)
    return [
        Compared(
            decision,
            figures_of(live.runs[decision.label][0]),
            twin,
            _live_ms(episodes.outcomes[decision.label][0][0], decision),
            _twin_ms(setup, scenario, int(row)),
        )
        for decision, row, twin in zip(decisions, rows, in_twin(setup, scenario, rows), strict=True)
    ]


def _fixed(name: str, row: int, _: Setup) -> FixedRow:
    return FixedRow(name, row)


def _live_ms(outcomes: Sequence[Outcome], decision: Decision) -> dict[str, float]:
    answered = [o.breakdown_ms for o in outcomes if o.decision == decision and o.prediction is not None]
    if decision.payload != NO_PAYLOAD:  # a fallback that was preceded by the head keeps the decision
        answered = [breakdown for breakdown in answered if breakdown.tail > 0]
    return {name: _median([sum(getattr(b, term) for term in terms) for b in answered]) for name, terms in TERMS.items()}


def _twin_ms(setup: Setup, scenario: Scenario, row: int) -> dict[str, float]:
    twin, records = setup.twin(1), []
    twin.reset(scenarios=[scenario])
    while not records or not records[-1].done[0]:
        records.append(twin.step(np.array([row]))[1])
    answered = [{t: 1e3 * v[0] for t, v in r.breakdown_s().items()} for r in records if r.answered[0] & ~r.fell_back[0]]
    return {name: _median([sum(b[term] for term in terms) for b in answered]) for name, terms in TERMS.items()}


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("nan")
