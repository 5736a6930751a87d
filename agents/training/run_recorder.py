"""Writes the files of a training while it runs: curves, pictures, checkpoints, and its best weights.

A training that continues a policy keeps the weights with the best held-out utility, those at the start included, and
exports them. Continuing a policy therefore never makes it worse on the held-out traces.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from stable_baselines3 import PPO

from agents.learn.policy import CandidatePolicy
from agents.learn.warm_start import Round
from agents.runs.checkpoint import load_actor, save_checkpoint
from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.training.curves import FINAL, HELD_OUT, HELD_OUT_CURVES, Curves, metrics_text
from agents.training.judge import LONG_STEPS, judges
from controller.controllers.learned import FrozenPolicy
from envs.setup import Setup


class RunRecorder:
    """Owns the curves, the step of the last evaluation, and the best held-out utility."""

    def __init__(
        self,
        model: PPO,
        folder: RunFolder,
        judge_on: Setup,
        config: TrainingConfig,
        goal: int,
        rounds_left: int,
        resumed: bool,
    ) -> None:
        self._model, self._folder, self._config = model, folder, config
        self._goal, self._rounds_left = goal, rounds_left
        self._curves = Curves(folder.tensorboard, model.num_timesteps + 1 if resumed else 0)
        model.set_logger(self._curves.logger)
        self._judge, self._final = judges(judge_on, config.steps, keeps_best=bool(config.continues))
        self._judged_at = model.num_timesteps if resumed else -1
        self._best: float | None = None

    def describe(self) -> None:
        """Write the explanation of the curves, the configuration and the hyperparameters."""
        step, description = self._model.num_timesteps, self._folder.description()
        self._curves.text("run/metrics", metrics_text(), step)
        self._curves.text("run/config", f"```json\n{_indented(description)}\n```", step)
        self._curves.hyperparameters(_hyperparameters(self._config), step)

    def evaluate(self, draw: bool = False) -> None:
        """Evaluate the present policy on held-out traces: add a point to the curves, once per step, and pictures."""
        step, policy = self._model.num_timesteps, self._frozen()
        if step != self._judged_at:
            self._judged_at = step
            figures = self._judge.figures(policy)
            self._curves.scalars({f"{HELD_OUT}/{name}": figures[name] for name in HELD_OUT_CURVES}, step)
            if self._is_best(figures["utility"]):
                self._folder.write_held_out(figures | self._of_episodes(self._judge.episodes, step))
        if draw:
            for name, path in self._judge.draw(policy, step, self._folder.figures).items():
                self._curves.picture(f"figures/{name}", path, step)

    def round_ended(self, ended: Round) -> None:
        """Log a round of the warm start, evaluate, and write a checkpoint."""
        self._rounds_left = ended.rounds_left
        losses = {"actor_loss": ended.actor_loss, "rounds_left": float(ended.rounds_left)}
        if ended.critic_loss is not None:
            losses["critic_loss"] = ended.critic_loss
        values = ended.terms.scalars() | {f"warm_start/{name}": value for name, value in losses.items()}
        self._curves.scalars(values, self._model.num_timesteps)
        self.evaluate(draw=ended.rounds_left == 0 and self._config.steps >= LONG_STEPS)
        self.checkpoint()

    def warm_start_over(self) -> None:
        """Checkpoints from now on belong to PPO."""
        self._rounds_left = 0

    def checkpoint(self) -> None:
        path = self._folder.checkpoint_at(self._model.num_timesteps)
        save_checkpoint(self._model, path, self._goal, self._rounds_left)
        self._folder.forget_old_checkpoints()

    def finish(self) -> FrozenPolicy:
        """Write the last checkpoint, and the final figures of the weights that will be exported; returns these."""
        self.evaluate(draw=True)
        self.checkpoint()
        step = self._model.num_timesteps
        policy = self._frozen() if self._best is None else load_actor(self._folder.best_checkpoint)
        figures = self._final.figures(policy)
        self._curves.scalars({f"{FINAL}/{name}": figures[name] for name in HELD_OUT_CURVES}, step)
        self._folder.write_held_out(figures | self._of_episodes(self._final.episodes, step))
        return policy

    def close(self) -> None:
        self._curves.close()

    def _is_best(self, utility: float) -> bool:
        """Whether these weights are the best so far, which are then kept. Always true if the training keeps no best."""
        if not self._config.continues:
            return True
        if self._best is None and self._folder.best_checkpoint.is_file():  # resumed
            self._best = self._judge.figures(load_actor(self._folder.best_checkpoint))["utility"]
        if self._best is not None and utility <= self._best:
            return False
        self._best = utility
        save_checkpoint(self._model, self._folder.best_checkpoint, self._goal, self._rounds_left)
        return True

    def _of_episodes(self, episodes: int, step: int) -> dict[str, Any]:
        return {"steps": step, "episodes": episodes, "reward": "expected"}

    def _frozen(self) -> FrozenPolicy:
        assert isinstance(self._model.policy, CandidatePolicy)
        return self._model.policy.frozen()


def _hyperparameters(config: TrainingConfig) -> dict[str, Any]:
    """The hyperparameters as one flat table."""
    ppo = {f"ppo/{name}": value for name, value in asdict(config.ppo).items()}
    warm = {f"warm_start/{name}": v for name, v in asdict(config.warm_start).items() if not isinstance(v, dict)}
    named = {name: getattr(config, name) for name in ("workload", "steps", "seed", "environments", "continues")}
    return {**named, "traces": ", ".join(config.traces) or "builtin", **warm, **ppo}


def _indented(values: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(values)).decode()
