"""Asks for the best that could have been done: in whole episodes, and after each candidate at a decision point."""

from __future__ import annotations

from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.records import Floats, Ints
from envs.search.beam import search_all
from envs.search.nodes import Ranking, new_beam
from envs.twin.state import Environment
from envs.twin.threads import over_threads
from envs.twin.twin import Twin

#: Width for whole episodes: twice as much finds less than 0.0001 more per frame.
WIDTH = 512


DEFAULT_RANKING = Ranking()
#: In a whole episode a good old answer may stand for all that follows: the twin replays it like one of the last lag.
EPISODE_RANKING = Ranking(old_weight=3.0)


def best_rows(twin: Twin, streaming_weight: float = 0.0, width: int = WIDTH) -> tuple[Floats, Ints]:
    """The rows that earn most in the rest of every episode of a twin, which is not changed.

    Returns the sums (B,) of utility, on a stream of streaming accuracy with its weight too, and the row to be decided
    at each frame (B, F) from the present one on, -1 where none is decided. The twin pays the sum exactly if the rows
    are played in it.
    """
    totals = np.arange(twin.frames_left.max() + 1.0)
    earned, rows = _search(twin, np.full((twin.batch, 1), -1), totals, streaming_weight, width, EPISODE_RANKING)
    return earned[:, 0], rows[:, 0]


def best_values(
    twin: Twin,
    candidates: Ints,
    frames: int,
    gamma: float,
    streaming_weight: float,
    width: int = 2,
    ranking: Ranking = DEFAULT_RANKING,
) -> Floats:
    """Most discounted utility over the next ``frames`` frames after each candidate at each decision point, with the
    future known: what ``agents.learn.branches.branch_values`` is for a policy.

    ``candidates``: (B, K) rows of the cost table. Returns (B, K); gamma discounts per frame. On a stream, streaming
    accuracy is added with its weight. The twin is not changed. What is late at the end of the horizon counts by the
    guesses of ``ranking``; episodes that end sooner earn what is left of them.
    """
    totals = np.concatenate(([0.0], np.cumsum(gamma ** np.arange(frames, dtype=np.float64))))
    return _search(twin, candidates, totals, streaming_weight, width, ranking)[0]


def _search(
    twin: Twin, first: Ints, totals: Floats, streaming_weight: float, width: int, ranking: Ranking
) -> tuple[Floats, Ints]:
    """``search_all`` in every environment; ``totals`` (F + 1,) is what so many frames of utility 1 count."""
    if first.min() < -1 or first.max() >= len(twin.costs):
        raise UsageError(
            f"got rows {first.min()} to {first.max()}; expected rows of the cost table, below {len(twin.costs)}"
        )
    t, batch = twin.parts
    weight = float(streaming_weight) if t.reuses else 0.0
    earned, rows = np.empty(first.shape), np.empty((*first.shape, len(totals) - 1), np.int64)

    def work(t: Any, part: Environment, *arrays: Any) -> None:
        search_all(t, part, new_beam(ranking, weight, totals, width, twin.costs.longest_stride, part), *arrays)

    over_threads(work, t, batch, np.ascontiguousarray(first, np.int64), earned, rows, least=1)
    return earned, rows
