"""A workload of your own: your frames and truth for the models of a bundle. Here, garments in bad light.
Run: python examples/own_model/workload.py; or, with the package installed: mecpilot device --workload dim-garments"""

from typing import Any

import numpy as np

import mecpilot
from runtime.workloads.garments.workload import Garments
from runtime.workloads.types import Image, Split


class DimGarments(Garments):
    """Answers, scores and models are those of garments; docs/extending.md has a workload with models of its own."""

    name = "dim-garments"
    bundle = "garments"

    def sample(self, index: int, split: Split = "test") -> tuple[Image, Any]:
        image, truth = super().sample(index, split)
        noise = np.random.default_rng(index).normal(0, 8, image.shape)
        return np.clip(image * 0.3 + noise, 0, 255).astype(np.uint8), truth


def accuracy(workload: mecpilot.Workload, frames: int) -> float:
    """Mean score of the answers that a device gives without a MEC."""
    with mecpilot.Device("garments", "device-only", workload=workload, fps=0, deadline_s=1.0) as device:
        scores = [outcome.score for outcome in device.run(frames=frames)]
    return float(np.mean([score for score in scores if score is not None]))


if __name__ == "__main__":
    for workload in (Garments(), DimGarments()):
        print(f"{workload.name}: accuracy {accuracy(workload, 200):.3f}")
