"""Recipes: models that ``mecpilot adopt NAME`` fetches by itself, with footage and the options that fit.

A recipe's name stands where otherwise the path of a model stands. Options that the user gives win over the recipe's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.scenario import Scenario, ScenarioRange

Progress = Callable[[int, int], None]  # frames of the footage that are made, and all


@dataclass(frozen=True)
class Recipe:
    """What ``mecpilot adopt`` needs to know. The files are the user's own, or in the user's cache."""

    name: str
    model: Path  # an ONNX file
    footage: Path  # a video
    labels: Path  # COCO JSON of the footage; used only if the user wants it as the truth
    options: Mapping[str, Any]  # of `mecpilot adopt`, by the names of its options with _ for -
    scenarios: ScenarioRange
    demo: Scenario
    words: str  # a sentence for the report: what the model and the footage are


#: Names of all recipes.
NAMES = ("labels",)


def find(
    name: str, data: Path | None = None, seed: int = 0, progress: Progress = lambda done, total: None
) -> Recipe | None:
    """The recipe of that name, its files fetched and made; None if there is no such recipe.

    ``data`` is a file or folder of the user that has the model. FailureError if it cannot be had.
    """
    if name not in NAMES:
        return None
    from runtime.adoption.recipes.labels.recipe import labels

    return labels(data, seed, progress)
