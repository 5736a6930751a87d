"""The best fixed image offload of each scenario, chosen in hindsight.

Of every scenario one decision is kept for all frames: the image codec, resolution, model, exit and frame interval that
earned most utility there, of all that the bundle offers (not of the shortlist that controllers choose from). It knows
no trace in advance and never adapts within an episode, but nobody could have set it better before. Where the link
cannot take a frame the device answers locally, as with every other controller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from agents.compare.rollout import play
from agents.compare.setup import Setup
from controller.controllers.shortlist import dominated, shortlist
from controller.controllers.simple import FixedRow, Memoryless, full_offload_rows
from controller.metrics import Frames, per_episode
from controller.records import Ints, SystemState
from controller.scenario import Scenario
from runtime.profiling.profile import load_costs

Progress = Callable[[int], None]  # called with the number of decisions tried so far

BEST_OFFLOAD = "best offload in hindsight"


class FixedRows(Memoryless):
    """A row for each episode, for all of its frames."""

    def __init__(self, name: str, rows: Ints) -> None:
        self.name = name
        self.rows = rows

    def decide(self, state: SystemState) -> Ints:
        return self.rows


def best_offload(setup: Setup, scenarios: Sequence[Scenario], progress: Progress = lambda _: None) -> Frames:
    """What happened to every frame under the fixed offload that was best in its scenario."""
    everything = load_costs(setup.bundle, setup.profile)
    images = full_offload_rows(everything)
    images = images[~dominated(everything.take(images))]
    # With the local rows that controllers choose from, so that a fallback is what it is for them.
    rows = np.union1d(images, shortlist(everything, setup.bundle.default_range))
    offers = replace(setup, costs=everything.take(rows))
    choices = np.flatnonzero(np.isin(rows, images))
    best, chosen = np.full(len(scenarios), -np.inf), np.zeros(len(scenarios), np.int64)
    for tried, row in enumerate(choices.tolist(), start=1):
        earned = per_episode(play(offers, FixedRow(BEST_OFFLOAD, row), scenarios).frames)["utility"]
        better = earned > best
        best, chosen = np.where(better, earned, best), np.where(better, row, chosen)
        progress(tried)
    return play(offers, FixedRows(BEST_OFFLOAD, chosen), scenarios).frames
