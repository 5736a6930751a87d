"""What does TensorBoard show of a training, and what does each curve mean?

All curves of a run share one axis, the environment steps from 0 on, warm start included. What matters most comes first
on the page: how the policy does on traces that it does not learn from. ``MEANINGS`` is the one place that says what a
tag means; every run carries it as text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import HParam, Image, Logger, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter

HELD_OUT, FINAL = "0_held_out", "final"
#: Figures of a held-out evaluation that are curves.
HELD_OUT_CURVES = ("utility", "gap_to_hindsight", "slo_attainment", "in_time_frac", "goodput_fps")

MEANINGS: Mapping[str, str] = {
    f"{HELD_OUT}/utility": "mean utility per frame of the policy, deciding as it will be deployed, on a few episodes "
    "of traces that it does not learn from: **is it getting better?**",
    f"{HELD_OUT}/gap_to_hindsight": "utility that the tuned `hindsight`, which knows the future, has more there",
    f"{HELD_OUT}/slo_attainment": "frames answered in time there, of those that were run or dropped",
    f"{HELD_OUT}/in_time_frac": "frames answered in time there, of all frames",
    f"{HELD_OUT}/goodput_fps": "frames answered in time there, per second of camera time",
    f"{FINAL}/*": "the same at the end, over more episodes: what `mecpilot train` prints",
    "reward/utility": "mean utility per frame in the training's own episodes. Their conditions vary from update to "
    "update, so this curve says little about progress",
    "reward/score": "its first term: expected score of the answers in time",
    "reward/energy_cost": "its second term: weighted energy",
    "reward/drop_cost": "its third term: penalty of dropped frames",
    "slo/attainment": "frames answered in time, of those that were run or dropped",
    "slo/in_time": "frames that were run and answered in time, fallbacks included, of all frames",
    "slo/late": "frames that were run and not answered in time, of all frames",
    "slo/dropped": "frames that never started, of all frames",
    "slo/reused": "frames that were not run because an earlier answer stands for them, of all frames",
    "slo/fallback": "frames answered in time by the local fallback, of all frames",
    "goodput/fps": "frames answered in time per second of camera time",
    "decision/device, split, MEC": "share of decisions that compute on the device, on both, on the MEC",
    "decision/resolution_px, exit_branch, frame_stride": "mean over decisions",
    "warm_start/actor_loss": "expected worth that the scorer's softmax falls short of the best candidate by, in the "
    "last epoch of a round's fit",
    "warm_start/critic_loss": "mean squared error of the critic's fit",
    "warm_start/rounds_left": "rounds of the warm start that are to come; then PPO takes over",
    "train/*": "stable-baselines3's figures of the last PPO update; `train/learning_rate` falls to 0",
    "figures/timeline": "one held-out episode: bandwidth, decisions, latency against the deadline",
    "figures/decisions_over_bandwidth": "where the policy computes, by the bandwidth at capture, on held-out episodes",
}


def metrics_text() -> str:
    """``MEANINGS`` as a table in Markdown."""
    rows = "\n".join(f"| {tag} | {meaning} |" for tag, meaning in MEANINGS.items())
    return f"| metric | meaning |\n|---|---|\n{rows}\n"


class _Events(TensorBoardOutputFormat):
    """One event file. Points of an earlier part of the run from this step on are taken back."""

    def __init__(self, folder: Path, step: int) -> None:
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=step)
        self._is_closed = False


class Curves:
    """Owns the event file of this part of a run."""

    def __init__(self, folder: Path, step: int) -> None:
        self.logger = Logger(str(folder), [_Events(folder, step)])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Points of curves. What is not finite is left out."""
        for tag, value in values.items():
            if math.isfinite(value):
                self.logger.record(tag, value)
        self.logger.dump(step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        self.logger.record(tag, markdown)
        self.logger.dump(step)

    def picture(self, tag: str, path: Path, step: int) -> None:
        """A PNG file."""
        import cv2

        image = cv2.imread(str(path))
        assert image is not None
        self.logger.record(tag, Image(np.ascontiguousarray(image[:, :, ::-1]), "HWC"), exclude="stdout")
        self.logger.dump(step)

    def hyperparameters(self, values: Mapping[str, Any], step: int) -> None:
        """What the HParams page compares runs by, with the final held-out figures."""
        plain = {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in values.items()}
        results = {f"{FINAL}/{name}": 0.0 for name in HELD_OUT_CURVES}
        self.logger.record("hparams", HParam(plain, results), exclude="stdout")
        self.logger.dump(step)

    def close(self) -> None:
        self.logger.close()
