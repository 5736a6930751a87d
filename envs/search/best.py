"""Asks for the best that could have been done: in whole episodes, and after each candidate at a decision point."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from controller.errors import UsageError
from controller.records import Floats, Ints
from envs.search.beam import search_all
from envs.search.nodes import AIM, Beam, new_beam
from envs.twin.state import Environment
from envs.twin.threads import over_threads
from envs.twin.twin import Twin


@dataclass(frozen=True, slots=True)
class Ranking:
    """How nodes are ranked that reach the same frame, and what is left at the end of a horizon: guesses, in utility."""

    device_penalty: float = 0.05  # per capture period for which the device will be busy when the next frame is there
    link_penalty: float = 0.02  # likewise the link
    most_periods: float = 10.0  # of either, more do not count
    seen_weight: float = 0.2  # of the scores that the present answers have at the next captures


DEFAULT_RANKING = Ranking()


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
    accuracy is added with its weight. ``twin`` is not changed. What is late at the end of the horizon counts by the
    guesses of ``ranking``; episodes that end sooner earn what is left of them.
    """
    aim = _aim(twin, frames, streaming_weight, ranking)
    totals = np.concatenate(([0.0], np.cumsum(gamma ** np.arange(frames, dtype=np.float64))))
    return _searched(twin, np.ascontiguousarray(candidates, np.int64), aim, totals, width)[0]


def _aim(twin: Twin, frames: int, streaming_weight: float, ranking: Ranking) -> Any:
    """(1,) AIM."""
    aim = np.zeros(1, AIM)
    aim["frames"] = frames
    aim["streaming_weight"] = streaming_weight if twin.costs.lagged_accuracy is not None else 0.0
    for name, value in asdict(ranking).items():
        aim[name] = value
    return aim


def _searched(twin: Twin, first: Ints, aim: Any, totals: Floats, width: int) -> tuple[Floats, Ints]:
    """Values (B, K) and rows (B, K, F) of ``search_all`` for every environment of a twin."""
    best, rows = np.empty(first.shape), np.empty((*first.shape, len(totals) - 1), np.int64)

    def work(t: Any, batch: Environment, *arrays: Any) -> None:
        costs = twin.costs
        beam = new_beam(aim.copy(), totals, width, len(costs), costs.longest_stride, batch)
        search_all(t, batch, beam, *arrays)

    over_threads(work, twin._tables, twin._environments, first, best, rows)
    return best, rows


def best_rows(twin: Twin, width: int, weight: float = 0.0, ranking: Ranking = DEFAULT_RANKING) -> tuple[Floats, Ints]:
    frames = int(twin.frames_left.max())
    first = np.full((twin.batch, 1), -1)
    totals = np.arange(frames + 1.0)
    best, rows = _searched(twin, first, _aim(twin, frames, weight, ranking), totals, width)
    return best[:, 0], rows[:, 0]
