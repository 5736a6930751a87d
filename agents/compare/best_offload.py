"""A reference for controllers: the best fixed image offload of each scenario, chosen after the episode.

One decision serves all frames of a scenario: the image codec, resolution, model, exit and frame stride with the highest
utility there, among all decisions of the bundle, not only the candidates of controllers. It never adapts within an
episode, but no fixed setting would have been better. If the link cannot take a frame, the device answers locally, as
with every other controller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from agents.compare.rollout import play
from controller.controllers.shortlist import dominated, shortlist
from controller.controllers.simple import FixedRow, Memoryless, full_offload_rows
from controller.metrics import Frames, per_episode
from controller.records import Ints, SystemState
from controller.scenario import Scenario
from envs.setup import Setup

Progress = Callable[[int], None]  # called with the number of decisions tried so far

BEST_OFFLOAD = "best offload in hindsight"


class FixedRows(Memoryless):
    """Returns a fixed row for each episode of the batch; ``rows``: (B,)."""

    def __init__(self, name: str, rows: Ints) -> None:
        self.name = name
        self.rows = rows

    def decide(self, state: SystemState) -> Ints:
        return self.rows


def best_offload(setup: Setup, scenarios: Sequence[Scenario], progress: Progress = lambda _: None) -> Frames:
    """The frames of all scenarios, each scenario played with its best fixed offload."""
    everything = setup.everything
    images = full_offload_rows(everything)
    images = images[~dominated(everything.take(images))]
    # The controllers' own candidates are included, so that fallbacks have the same local rows.
    rows = np.union1d(images, shortlist(everything, setup.bundle.default_range))
    extended = replace(setup, costs=everything.take(rows))
    offloads = np.flatnonzero(np.isin(rows, images))
    best, chosen = np.full(len(scenarios), -np.inf), np.zeros(len(scenarios), np.int64)
    for tried, row in enumerate(offloads.tolist(), start=1):
        utility = per_episode(play(extended, FixedRow(BEST_OFFLOAD, row), scenarios).frames)["utility"]
        better = utility > best
        best, chosen = np.where(better, utility, best), np.where(better, row, chosen)
        progress(tried)
    return play(extended, FixedRows(BEST_OFFLOAD, chosen), scenarios).frames
