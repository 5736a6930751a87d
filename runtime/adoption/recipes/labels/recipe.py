"""What ``mecpilot adopt labels`` adopts: text detection of PaddleOCR, on footage that is rendered here."""

from __future__ import annotations

from pathlib import Path

from controller.scenario import Scenario, ScenarioRange
from runtime.adoption.recipes import Progress, Recipe
from runtime.adoption.recipes.labels.render import SECONDS, render, suffix
from runtime.adoption.recipes.labels.scene import FPS
from runtime.adoption.recipes.labels.weights import find_model
from runtime.files.fetch import cache_dir

WORDS = (
    "The model is PP-OCRv6 text detection (small; PaddleOCR, Apache-2.0), as published in rapidocr 3.10.0. The footage "
    "is rendered, not filmed: made-up goods with printed text pass a fixed camera on a belt; blur, noise, shadows and "
    "changes of light are simulated."
)
#: Options of `mecpilot adopt`. Pixels become (blue-green-red / 255 - mean) / std, as PaddleOCR trains its detectors.
OPTIONS = {
    "task": "text",
    "decode": "db",
    "classes": ("text",),
    "resolutions": (640, 480, 320),
    "colours": "bgr",
    "scale": 1.0 / 255.0,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "threshold": 0.6,
}
#: docs/labels.md names the boards between a fifth and a thirtieth of a server's core, and why these deadlines.
SCENARIOS = ScenarioRange(
    fps=(FPS, FPS),
    deadline_s=(0.2, 1.0),
    device_slowdown=(5.0, 30.0),
    mec_slowdown=(1.0, 4.0),
    mec_load_frac=(0.0, 0.9),
    uplink_share_frac=(0.05, 0.4),
)
#: A board of ten times on a busy cell.
DEMO = Scenario(
    fps=FPS,
    deadline_s=0.5,
    device_slowdown=10.0,
    mec_slowdown=1.5,
    mec_load_frac=0.3,
    rtt_s=0.01,
    uplink_share_frac=0.1,
    trace_start_s=30.0,
    seed=1,
)


def labels(data: Path | None, seed: int, progress: Progress) -> Recipe:
    """The recipe, with the model and the footage of a seed in the user's cache.

    ``data`` is the model, the wheel that holds it, or their folder. FailureError when the model cannot be had or the
    footage cannot be written.
    """
    model = find_model("detection", data)
    footage = cache_dir() / "labels" / f"goods-{SECONDS:.0f}s-{seed}{suffix()}"
    truth = footage.with_suffix(".json")
    if not (footage.is_file() and truth.is_file()):
        render(footage, SECONDS, seed, progress)
    return Recipe("labels", model, footage, truth, OPTIONS, SCENARIOS, DEMO, WORDS)
