"""Which kind of decision is best, by how much, over device speed and uplink bandwidth.

A cell of the map is a constant device slowdown and a constant uplink; all other conditions are in the middle of the
scenario range. In each cell, the best decision of each kind (``controller.records.KINDS``) is chosen in hindsight: it
is pinned for whole episodes of the twin, and the mean utility per frame counts. Nothing adapts, so the differences
between kinds are those of the decisions, not of a controller.

All decisions of the bundle compete, not only the candidates of controllers. First, every decision that no other one of
its kind and frame stride dominates plays a short episode with expected scores in every cell. Then the best few of each
kind and cell play whole episodes with recorded scores.

Where an offload or a split cannot be carried out or comes too late, the device answers alone (the fallback). So such a
decision counts for its kind only where it answered at least half of the frames that were run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from controller.controllers.shortlist import dominated
from controller.costs import CostTable
from controller.predict.uplink import Trace, TraceBank
from controller.records import KINDS, Bools, Decision, Floats, Ints
from controller.scenario import Scenario
from envs.setup import Setup
from envs.twin.twin import Reward

#: Frames of the short episode, decisions of each kind and cell that go on, and whole episodes for these.
SHORT_FRAMES, KEPT, EPISODES = 60, 30, 4
#: Least share of the run frames that an offload or a split must have answered itself.
LEAST_CARRIED = 0.5
#: Most episodes side by side.
_BATCH = 4096
_TRACE_S = 60.0  # a constant trace starts over after any time

Progress = Callable[[int, int], None]  # called with the number of episodes played so far, and of all in this round


@dataclass(frozen=True)
class KindMap:
    """Y slowdowns and X bandwidths. Where no decision of a kind can be carried out its utility is NaN, its row -1."""

    scenario: Scenario  # the other conditions
    device_slowdown: Floats  # (Y,)
    uplink_bps: Floats  # (X,)
    utility: Floats  # (Y, X, kinds) mean per frame of the best decision of each kind
    row: Ints  # (Y, X, kinds) of ``decisions``
    decisions: tuple[Decision, ...]

    @property
    def best(self) -> Ints:
        """(Y, X) number in KINDS. What computes on the device alone can always be carried out, so there is one."""
        return np.asarray(np.nanargmax(self.utility, axis=2))

    @property
    def lead(self) -> Floats:
        """(Y, X) utility of the best kind minus that of the second; NaN where no other kind can be carried out."""
        ordered = np.sort(np.where(np.isnan(self.utility), -np.inf, self.utility), axis=2)
        lead = ordered[:, :, -1] - ordered[:, :, -2]
        return np.where(np.isfinite(lead), lead, np.nan)

    def worth(self, kind: str) -> Floats:
        """(Y, X) what the best of all kinds has more than the best of the others; NaN where there is no other."""
        return np.asarray(np.where(self.best == KINDS.index(kind), self.lead, 0.0))


def constant_links(uplink_bps: Sequence[float] | Floats) -> TraceBank:
    """A trace of each bandwidth, all of it the device's."""
    names = [f"constant/{bps:.0f}" for bps in uplink_bps]
    one = np.zeros(1)
    return TraceBank(
        [Trace(n, one, one + bps, _TRACE_S, is_shared=False) for n, bps in zip(names, uplink_bps, strict=True)]
    )


def map_kinds(
    setup: Setup,
    device_slowdown: Floats,
    uplink_bps: Floats,
    kept: int = KEPT,
    episodes: int = EPISODES,
    progress: Progress = lambda done, total: None,
) -> KindMap:
    """The map of a setup over the given slowdowns (Y,) and bandwidths (X,); the traces of the setup do not count."""
    everything = setup.everything
    costs = _competitors(everything)
    setup = replace(setup, costs=costs, bank=constant_links(uplink_bps))
    middle = setup.range.middle()
    cells = [
        replace(middle, device_slowdown=float(slowdown), uplink_share_frac=1.0, trace_index=trace)
        for slowdown in device_slowdown
        for trace in range(len(uplink_bps))
    ]
    entrants = _preselected(setup, cells, kept, progress)
    utility, row = _played_out(setup, cells, entrants, episodes, progress)
    shape = (len(device_slowdown), len(uplink_bps), len(KINDS))
    grid = np.asarray(device_slowdown), np.asarray(uplink_bps)
    return KindMap(cells[0], *grid, utility.reshape(shape), row.reshape(shape), costs.space.decisions)


def _competitors(costs: CostTable) -> CostTable:
    """The rows that no row of the same kind dominates."""
    kept = []
    for kind in range(len(KINDS)):
        rows = np.flatnonzero(costs.space.kind == kind)
        if len(rows):
            kept.append(rows[~dominated(costs.take(rows))])
    return costs.take(np.sort(np.concatenate(kept)))


def _preselected(setup: Setup, cells: Sequence[Scenario], kept: int, progress: Progress) -> Bools:
    """(cells, C) the rows of each cell that play on: the best of each kind in a short episode."""
    short = [replace(cell, frames=min(SHORT_FRAMES, cell.frames)) for cell in cells]
    count, kind = len(setup.costs), setup.costs.space.kind
    cell, row = (part.ravel() for part in np.indices((len(cells), count)))
    utility = pinned_utility(setup, row, [short[i] for i in cell.tolist()], "expected", progress).reshape(-1, count)
    chosen = np.zeros(utility.shape, bool)
    for number in range(len(KINDS)):
        rows = np.flatnonzero(kind == number)
        ranked = rows[np.argsort(-utility[:, rows], axis=1, kind="stable")[:, :kept]]  # NaN comes last
        np.put_along_axis(chosen, ranked, values=True, axis=1)
    return chosen & np.isfinite(utility)


def _played_out(
    setup: Setup, cells: Sequence[Scenario], entrants: Bools, episodes: int, progress: Progress
) -> tuple[Floats, Ints]:
    """(cells, kinds) utility of the best entrant over whole episodes, and its row."""
    cell, row = np.nonzero(entrants)
    first = [(e, setup.recorded.score.shape[1] * e // episodes) for e in range(episodes)]
    scenarios = [replace(cells[i], first_sample=sample, seed=e) for i in cell.tolist() for e, sample in first]
    played = pinned_utility(setup, np.repeat(row, episodes), scenarios, "replayed", progress)
    mean = np.full(entrants.shape, -np.inf)
    mean[cell, row] = np.nan_to_num(played.reshape(-1, episodes).mean(axis=1), nan=-np.inf)
    utility, best = np.full((len(cells), len(KINDS)), np.nan), np.full((len(cells), len(KINDS)), -1)
    for number in range(len(KINDS)):
        of_kind = np.where(setup.costs.space.kind == number, mean, -np.inf)
        top = of_kind.argmax(axis=1)
        found = of_kind[np.arange(len(cells)), top]
        utility[:, number] = np.where(np.isfinite(found), found, np.nan)
        best[:, number] = np.where(np.isfinite(found), top, -1)
    return utility, best


def pinned_utility(
    setup: Setup,
    rows: Ints,
    scenarios: Sequence[Scenario],
    reward: Reward,
    progress: Progress = lambda done, total: None,
) -> Floats:
    """(N,) mean utility per frame of each row (N,), pinned in its scenario; NaN where a row that needs the MEC answered
    too few frames itself."""
    found = np.empty(len(rows))
    for first in range(0, len(rows), _BATCH):
        part = slice(first, first + _BATCH)
        found[part] = _play_pinned(setup, rows[part], scenarios[part], reward)
        progress(min(first + _BATCH, len(rows)), len(rows))
    return found


def _play_pinned(setup: Setup, rows: Ints, scenarios: Sequence[Scenario], reward: Reward) -> Floats:
    twin = setup.twin(len(rows), reward=reward)
    twin.reset(scenarios=scenarios)
    alive = np.ones(len(rows), bool)
    total, run, carried = np.zeros((3, len(rows)))
    while alive.any():
        _, record = twin.step(rows)
        total += np.where(alive, record.reward, 0.0)
        run += alive
        carried += alive & (record.row == rows) & ~record.fell_back & record.answered
        alive &= ~record.done
    mean = total / np.array([scenario.frames for scenario in scenarios])
    alone = setup.costs.space.device_only[rows]  # while the link is down, another of its kind may stand in
    return np.where(alone | (carried >= LEAST_CARRIED * run), mean, np.nan)
