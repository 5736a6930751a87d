"""Evaluates a policy on held-out traces during training.

Curves get a point after every round, so a short training plays few and short episodes for each point. The final figures
are always over ``FINAL_EPISODES``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agents.compare.map_plot import draw_choices
from agents.compare.plots import draw_timeline
from agents.compare.rollout import Episodes, play, scenarios_on
from agents.compare.timelines import of_twin
from controller.controllers.base import Controller
from controller.controllers.learned import FrozenPolicy
from controller.controllers.registry import ORACLE, make_controller
from controller.metrics import NO_KIND, overall
from controller.records import Floats
from controller.scenario import Scenario
from envs.setup import Setup
from runtime.files.tuning_file import load_tunings, tuning_of

FINAL_EPISODES = 64
#: Episodes and frames for each point of a short training: a third of the time of a full evaluation.
FEW_EPISODES, FEW_FRAMES = 16, 150
#: Trainings of at least this many steps evaluate every point on all episodes.
LONG_STEPS = 100_000
#: Seed of the held-out scenarios: the same for every run, so that runs can be compared.
_SEED = 7_000


class Judge:
    """Owns the held-out episodes, and the utility of ``greedy-oracle`` on them."""

    def __init__(self, setup: Setup, scenarios: Sequence[Scenario]) -> None:
        self._setup, self._scenarios = setup, scenarios
        self._oracle: float | None = None
        self._latest: tuple[FrozenPolicy, Episodes] | None = None

    @property
    def episodes(self) -> int:
        return len(self._scenarios)

    def figures(self, policy: FrozenPolicy) -> dict[str, float]:
        """Means over the episodes, with expected scores."""
        return self._with_gap(overall(self._played(policy).frames))

    def draw(self, policy: FrozenPolicy, step: int, folder: Path) -> dict[str, Path]:
        """Draw one episode, and the map of the decisions in all of them. Returns the PNG files by name."""
        example = of_twin(self._setup, self._controller(policy, 1), self._scenarios[0])
        paths = {name: folder / f"{name}_{step:09d}.png" for name in ("timeline", "decision_map")}
        draw_timeline(example, paths["timeline"])
        played = self._played(policy)
        run = played.frames.kind != NO_KIND
        title = f"kind of decision chosen most often, and its share in %\n{self.episodes} held-out episodes after "
        title += f"{step:,} steps; bandwidth at capture"
        slowdown = np.array([scenario.device_slowdown for scenario in self._scenarios])[played.frames.episode]
        at = (slowdown[run], self._uplink_bps(played)[run])
        draw_choices(*at, played.frames.kind[run], title, paths["decision_map"])
        return paths

    def _played(self, policy: FrozenPolicy) -> Episodes:
        if self._latest is None or self._latest[0] is not policy:
            played = play(self._setup, self._controller(policy, self.episodes), self._scenarios, reward="expected")
            self._latest = policy, played
        return self._latest[1]

    def _controller(self, policy: FrozenPolicy, batch: int) -> Controller:
        return make_controller("ppo", self._setup.costs, self._setup.range.utility, policy=policy, batch=batch)

    def _with_gap(self, figures: dict[str, float]) -> dict[str, float]:
        if self._oracle is None:
            costs, utility = self._setup.costs, self._setup.range.utility
            tuning = tuning_of(ORACLE, load_tunings(self._setup.workload), costs)
            oracle = make_controller(ORACLE, costs, utility, tuning, batch=self.episodes)
            frames = play(self._setup, oracle, self._scenarios, reward="expected", oracle=True).frames
            self._oracle = overall(frames)["utility"]
        return figures | {"gap_to_oracle": self._oracle - figures["utility"]}

    def _uplink_bps(self, played: Episodes) -> Floats:
        """(N,) bandwidth that the device of each frame has at the capture."""
        scenario = played.frames.episode

        def of(name: str) -> Floats:
            return np.array([getattr(s, name) for s in self._scenarios])[scenario]

        at_s = of("trace_start_s") + played.frame / of("fps")
        rate_bps = self._setup.bank.rate_bps(of("trace_index").astype(np.int64), at_s)
        return np.asarray(rate_bps * of("uplink_share_frac"))


def judges(setup: Setup, steps: int, keeps_best: bool) -> tuple[Judge, Judge]:
    """A judge for the curves of a training of ``steps`` steps, and one for its final figures.

    They are the same one if the training is long, or if it keeps its best weights: these must be best by the final
    figures.
    """
    scenarios = scenarios_on(setup, FINAL_EPISODES, _SEED)
    final = Judge(setup, scenarios)
    if keeps_best or steps >= LONG_STEPS:
        return final, final
    return Judge(setup, [replace(s, frames=min(s.frames, FEW_FRAMES)) for s in scenarios[:FEW_EPISODES]]), final
