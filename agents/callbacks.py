"""What is seen of a training while it runs? TensorBoard, checkpoints, held-out evaluation, a progress bar.

=========================  ======================================================================================
metric                     meaning (over the frames since the last update unless said otherwise)
=========================  ======================================================================================
``reward/utility``         mean utility per frame, drops included: what is learned
``reward/score``           its first term: expected score of the answers in time
``reward/energy_cost``     its second term, weighted
``reward/drop_cost``       its third term
``slo/attainment``         share of all frames answered before the deadline
``slo/dropped``            share of all frames that never started
``slo/fallback``           share of all frames answered by the local fallback
``slo/skipped``            share of all frames that were not run, as decided for an earlier one
``goodput/fps``            frames answered before the deadline per second of camera time
``decision/SIDE``          share of decisions that compute on the device, on the MEC, or split
``decision/model=M`` ...   share of decisions per model, resolution, exit and frame interval
``decision/row``           histogram of the chosen rows of the candidate table
``held_out/...``           the frozen policy on traces that it does not learn from: utility, SLO attainment, goodput,
                           and ``gap_to_hindsight``, the utility that the tuned ``hindsight`` has more
=========================  ======================================================================================
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from agents.checkpoint import save_checkpoint
from agents.pilot import pilot_of
from agents.rollout import play, scenarios_on
from agents.run_folder import RunFolder
from agents.world import World
from controller.metrics import overall
from controller.records import Decision, Floats, Status
from controller.registry import make_controller
from envs.record import STATUSES
from envs.vec_env import TwinVecEnv
from runtime.tuning_file import load_tunings, tuning_of

HELD_OUT_EPISODES = 64
#: Seed of the held-out scenarios: the same for every run, so that runs can be compared.
_HELD_OUT_SEED = 7_000
_FALLBACK = STATUSES.index(Status.FALLBACK)


def tensorboard_writer(callback: BaseCallback) -> Any:
    """The SummaryWriter behind the learner's logger; None without TensorBoard."""
    formats = callback.logger.output_formats
    return next((f.writer for f in formats if isinstance(f, TensorBoardOutputFormat)), None)


class TwinMetrics(BaseCallback):
    """Sums the raw terms of every step of the twin and logs their means before each update."""

    def __init__(self, environment: TwinVecEnv) -> None:
        super().__init__()
        self._environment = environment
        self._decisions = environment.twin.costs.space.decisions
        self._clear()

    def _clear(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._rows = np.zeros(len(self._decisions), np.int64)

    def _on_step(self) -> bool:
        record, utility = self._environment.record, self._environment.twin.range.utility
        dropped = record.dropped.sum()
        terms = {
            "decided": len(record.row),
            "dropped": dropped,
            "skipped": record.skipped.sum(),
            "on_time": record.on_time.sum() + record.skipped.sum(),
            "fallback": (record.status == _FALLBACK).sum(),
            "utility": record.reward.sum(),
            "score": (record.accuracy * record.on_time + record.skipped_score).sum(),
            "energy_cost": utility.energy_weight_per_j * record.energy_j.sum(),
            "drop_cost": utility.drop_penalty * dropped,
            "camera_s": (self._environment.state.frame_interval_s * record.frames).sum(),
        }
        for term, value in terms.items():
            self._sums[term] += float(value)
        self._rows += np.bincount(record.row, minlength=len(self._rows))
        return True

    def _on_rollout_end(self) -> None:
        sums, log = self._sums, self.logger.record
        frames = sums["decided"] + sums["skipped"] + sums["dropped"]
        for term in ("utility", "score", "energy_cost", "drop_cost"):
            log(f"reward/{term}", sums[term] / frames)
        log("slo/attainment", sums["on_time"] / frames)
        log("slo/dropped", sums["dropped"] / frames)
        log("slo/fallback", sums["fallback"] / frames)
        log("slo/skipped", sums["skipped"] / frames)
        log("goodput/fps", sums["on_time"] / sums["camera_s"])
        self._log_decisions()
        self._clear()

    def _log_decisions(self) -> None:
        share = self._rows / max(self._rows.sum(), 1)
        for name, part in _shares(self._decisions, share).items():
            self.logger.record(f"decision/{name}", part)
        if writer := tensorboard_writer(self):
            writer.add_histogram("decision/row", np.repeat(np.arange(len(share)), self._rows), self.num_timesteps)


def _shares(decisions: tuple[Decision, ...], share: Floats) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for decision, part in zip(decisions, share.tolist(), strict=True):
        total[decision.side] += part
        total[f"model={decision.model}"] += part
        total[f"resolution_px={decision.resolution_px}"] += part
        total[f"exit_branch={decision.exit_branch}"] += part
        total[f"frame_interval={decision.frame_interval}"] += part
    return dict(total)


class HeldOut(BaseCallback):
    """Plays the frozen policy on traces that it does not learn from, every so many steps and at the end."""

    def __init__(self, world: World, every_steps: int, folder: RunFolder) -> None:
        super().__init__()
        self._world, self._every, self._folder = world, every_steps, folder
        self._scenarios = scenarios_on(world, HELD_OUT_EPISODES, _HELD_OUT_SEED)
        self._next = 0
        self._bound = 0.0

    def _on_training_start(self) -> None:
        batch = len(self._scenarios)
        tuning = tuning_of("hindsight", load_tunings(self._world.workload), self._world.costs)
        hindsight = make_controller("hindsight", self._world.costs, self._world.range.utility, tuning, batch=batch)
        bound = play(self._world, hindsight, self._scenarios, reward="expected", oracle=True)
        self._bound = float(overall(bound.frames)["utility"])

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self._every
            self._evaluate()
        return True

    def _on_training_end(self) -> None:
        self._evaluate()
        self.logger.dump(self.num_timesteps)

    def _evaluate(self) -> None:
        assert self.model is not None
        pilot = pilot_of(self.model, self._world, len(self._scenarios))  # type: ignore[arg-type]
        found = overall(play(self._world, pilot, self._scenarios, reward="expected").frames)
        figures = {name: found[name] for name in ("utility", "slo_attainment", "goodput_fps")}
        figures |= {"gap_to_hindsight": self._bound - figures["utility"], "steps": self.num_timesteps}
        for name, value in figures.items():
            self.logger.record(f"held_out/{name}", value)
        self._folder.write_held_out(figures | {"episodes": len(self._scenarios), "reward": "expected"})


class Checkpoints(BaseCallback):
    """Writes the learner every so many steps and at the end."""

    def __init__(self, folder: RunFolder, every_steps: int) -> None:
        super().__init__()
        self._folder, self._every = folder, every_steps
        self._next = 0

    def _on_training_start(self) -> None:
        self._next = self.num_timesteps + self._every

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        # Before the update of this rollout: a resumed run repeats at most one rollout.
        if self.num_timesteps >= self._next:
            self._next += self._every
            self._save()

    def _on_training_end(self) -> None:
        self._save()

    def _save(self) -> None:
        save_checkpoint(self.model, self._folder.checkpoint_at(self.num_timesteps))  # type: ignore[arg-type]
        self._folder.forget_old_checkpoints()


class Described(BaseCallback):
    """Writes the run's configuration into TensorBoard, as text."""

    def __init__(self, description: str) -> None:
        super().__init__()
        self._description = description

    def _on_training_start(self) -> None:
        if writer := tensorboard_writer(self):
            writer.add_text("run/config", f"```json\n{self._description}\n```", self.num_timesteps)

    def _on_step(self) -> bool:
        return True


class Told(BaseCallback):
    """Tells a progress bar how many environment steps are done."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        super().__init__()
        self._progress = progress

    def _on_step(self) -> bool:
        self._progress(self.num_timesteps)
        return True
