"""Asks for the best that could have been done: whole episodes, and the value of each candidate at a decision point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.records import Floats, Ints
from controller.scenario import Scenario
from envs.search.beam import search_all
from envs.search.nodes import AIM, Beam, new_beam
from envs.twin.state import Environment, part_of
from envs.twin.twin import Twin


@dataclass(frozen=True, slots=True)
class Ranking:
    """How nodes are compared that reach the same frame: the guess of what a busy device and link will cost."""

    device_penalty: float = 0.05
    link_penalty: float = 0.02
    most_periods: float = 10.0
    preview: int = 2


def _beam(twin: Twin, frames: int, gamma: float, width: int, weight: float, ranking: Ranking) -> Beam:
    aim = np.zeros(1, AIM)
    aim["frames"], aim["streaming_weight"] = frames, weight
    for name in ("device_penalty", "link_penalty", "most_periods", "preview"):
        aim[name] = getattr(ranking, name)
    if not weight:
        aim["preview"] = 0
    totals = np.concatenate(([0.0], np.cumsum(gamma ** np.arange(frames, dtype=np.float64))))
    return new_beam(aim, totals, width, len(twin.costs), twin.costs.longest_stride, twin._environments)


def best_rows(twin: Twin, width: int, weight: float = 0.0, ranking: Ranking = Ranking()) -> tuple[Floats, Ints]:
    frames = int(twin.frames_left.max())
    beam = _beam(twin, frames, 1.0, width, weight, ranking)
    first = np.full((twin.batch, 1), -1)
    best, rows = np.zeros(first.shape), np.zeros((*first.shape, frames), np.int64)
    search_all(twin._tables, twin._environments, first, beam, best, rows)
    return best[:, 0], rows[:, 0]
