"""Writes a training's curves for TensorBoard, and explains each one.

All curves of a run share one axis: environment steps from 0, warm start included. The most important curves come first
on the page: the policy's results on held-out traces. ``MEANINGS`` explains every tag; each run stores it as text.
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
HELD_OUT_CURVES = ("utility", "gap_to_oracle", "slo_attainment", "in_time_frac", "goodput_fps")

MEANINGS: Mapping[str, str] = {
    f"{HELD_OUT}/utility": "mean utility per frame on a few episodes of held-out traces, without exploration: **shows "
    "whether the policy improves**",
    f"{HELD_OUT}/gap_to_oracle": "utility of the tuned `greedy-oracle`, which knows the future, minus the policy's, on "
    "the same episodes",
    f"{HELD_OUT}/slo_attainment": "share of frames answered in time, of those that were run or dropped, on the same "
    "episodes",
    f"{HELD_OUT}/in_time_frac": "share of all frames that were run and answered in time, on the same episodes",
    f"{HELD_OUT}/goodput_fps": "frames answered in time per second of camera time, on the same episodes",
    f"{FINAL}/*": "the same figures at the end of the training, over more episodes; `mecpilot train` prints them",
    "reward/utility": "mean utility per frame in the training episodes. Their conditions vary from update to update, "
    "so this curve does not show progress",
    "reward/score": "first term of `reward/utility`: expected score of the answers in time",
    "reward/energy_cost": "second term, subtracted: energy times its weight",
    "reward/drop_cost": "third term, subtracted: penalty for dropped frames",
    "slo/attainment": "share of frames answered in time, of those that were run or dropped (training episodes)",
    "slo/in_time": "share of all frames that were run and answered in time, fallbacks included",
    "slo/late": "share of all frames that were run but not answered in time",
    "slo/dropped": "share of all frames that were dropped from the queue",
    "slo/reused": "share of all frames that were not run because an earlier answer stands for them",
    "slo/fallback": "share of all frames that the local fallback answered in time",
    "goodput/fps": "frames answered in time per second of camera time",
    "decision/device, split, MEC": "share of decisions that compute on the device, on both, on the MEC",
    "decision/resolution_px, exit_branch, frame_stride": "mean over decisions",
    "warm_start/actor_loss": "expected value of the best candidate minus that of the scorer's softmax (regret), in the "
    "last epoch of a round's fit",
    "warm_start/critic_loss": "mean squared error of the critic in the last epoch of its fit",
    "warm_start/rounds_left": "remaining rounds of the warm start; PPO follows after 0",
    "train/*": "stable-baselines3's figures of the last PPO update; `train/learning_rate` decays towards 0",
    "figures/timeline": "one held-out episode: bandwidth, decisions, latency against the deadline, ends of frames",
    "figures/decision_map": "kind of decision (device-only, split, offload) chosen most often, and its share, by "
    "device slowdown and bandwidth at capture, on held-out episodes",
}


def metrics_text() -> str:
    """``MEANINGS`` as a table in Markdown."""
    rows = "\n".join(f"| {tag} | {meaning} |" for tag, meaning in MEANINGS.items())
    return f"| metric | meaning |\n|---|---|\n{rows}\n"


class _Events(TensorBoardOutputFormat):
    """One event file. TensorBoard hides points of earlier files of the run from this step on."""

    def __init__(self, folder: Path, step: int) -> None:
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=step)
        self._is_closed = False


class Curves:
    """Owns the event file of this part of a run."""

    def __init__(self, folder: Path, step: int) -> None:
        self.logger = Logger(str(folder), [_Events(folder, step)])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve; values that are not finite are left out."""
        for tag, value in values.items():
            if math.isfinite(value):
                self.logger.record(tag, value)
        self.logger.dump(step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        self.logger.record(tag, markdown)
        self.logger.dump(step)

    def picture(self, tag: str, path: Path, step: int) -> None:
        """Show a PNG file."""
        import cv2

        image = cv2.imread(str(path))
        assert image is not None
        self.logger.record(tag, Image(np.ascontiguousarray(image[:, :, ::-1]), "HWC"), exclude="stdout")
        self.logger.dump(step)

    def hyperparameters(self, values: Mapping[str, Any], step: int) -> None:
        """Hyperparameters for the HParams page, which compares runs by the final held-out figures."""
        plain = {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in values.items()}
        results = {f"{FINAL}/{name}": 0.0 for name in HELD_OUT_CURVES}
        self.logger.record("hparams", HParam(plain, results), exclude="stdout")
        self.logger.dump(step)

    def close(self) -> None:
        self.logger.close()
