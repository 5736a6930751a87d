"""Makes the table and the picture at the end of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from controller.records import Outcome
from controller.scenario import Scenario
from runtime.observe.pictures import MARGIN_PX, PANEL_WIDTH_PX, panel, write_png
from runtime.observe.summary import number, percent
from runtime.sources.samples import Samples
from runtime.workloads.drawing import FAINT, WHITE, blank, text_width, write
from runtime.workloads.registry import get_workload
from runtime.workloads.types import Image

#: Each controller in a few words.
PLAIN_NAMES = {
    "device-only": "never asks the MEC",
    "jpeg-offload": "always sends a JPEG",
    "neurosurgeon": "fastest split",
    "edgent": "most accurate in time",
    "greedy": "best by last bandwidth",
    "ppo": "the learned policy",
}
#: Number of frames that the picture shows of each controller, spread evenly over the run.
COLUMNS = 3
_TITLE_HEIGHT_PX = 44
_TITLE_SIZE, _TEXT_SIZE = 0.8, 0.58

Figures = Mapping[str, Mapping[str, Any]]  # by controller: what ``mecpilot device --json`` writes


def demo_table(figures: Figures, scenario: Scenario) -> Table:
    """One row per controller, at most 80 columns wide."""
    deadline_ms, fps = scenario.deadline_s * 1e3, scenario.fps
    table = Table(
        title=f"{scenario.frames} frames at {fps:g} per second, each to be answered within {deadline_ms:.0f} ms",
        caption=(
            "answered in time: computed for this frame before its deadline. reused: not\n"
            "computed, the last answer stands. accuracy: mean score of the answers in time.\n"
            "on screen: mean score of the newest answer that a viewer has at each capture.\n"
            "This is one short run on one uplink; the comparison in the twin above covers\n"
            "many episodes."
        ),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("controller")
    for heading in (
        "answered\nin time",
        "reused",
        "late or\ndropped",
        "accuracy",
        "on\nscreen",
        "sent per\nframe",
    ):
        table.add_column(heading, justify="right")
    for name in sorted(figures, key=lambda name: -_on_screen(figures[name])):
        row = figures[name]
        table.add_row(
            f"{name}\n  {PLAIN_NAMES[name]}" if name in PLAIN_NAMES else name,
            percent(row["in_time_frac"]),
            percent(row["reused_frac"]),
            percent(row["late_frac"] + row["dropped_frac"]),
            percent(row["accuracy"]),
            percent(row.get("streaming_accuracy")),
            number(row["payload_kbytes"], ".2f") + " kB",
            style="bold" if name == "ppo" else None,
        )
    return table


def _on_screen(row: Mapping[str, Any]) -> float:
    """Sort key of the rows: streaming accuracy, or utility if samples are not a stream."""
    return float(row.get("streaming_accuracy") or row["utility"])


def captions(figures: Figures) -> dict[str, str]:
    """A caption for each controller in the picture: shares of frames in time, skipped, and late or dropped."""
    return {
        name: f"{percent(row['in_time_frac'])} answered in time, {percent(row['reused_frac'])} reused, "
        f"{percent(row['late_frac'] + row['dropped_frac'])} late or dropped"
        for name, row in figures.items()
    }


def draw_example_frames(
    workload: str, outcomes: Mapping[str, Sequence[Outcome]], captions: Mapping[str, str], path: Path
) -> None:
    """Write one PNG with a row per controller and ``COLUMNS`` frames of its run in it."""
    rows = [np.vstack((_title(name, captions[name]), _frames(workload, run))) for name, run in outcomes.items()]
    write_png(path, np.vstack(rows))


def _frames(workload_name: str, outcomes: Sequence[Outcome]) -> Image:
    workload = get_workload(workload_name)
    ordered = sorted(outcomes, key=lambda outcome: outcome.frame)
    examples = [ordered[(2 * column + 1) * len(ordered) // (2 * COLUMNS)] for column in range(COLUMNS)]
    images = Samples(workload).replay([outcome.source_index for outcome in examples])
    panels = [panel(image, outcome, workload.draw) for image, outcome in zip(images, examples, strict=True)]
    gap = blank(panels[0].shape[0], MARGIN_PX, WHITE)
    return np.hstack([part for one in panels for part in (gap, one)] + [gap])


def _title(name: str, caption: str) -> Image:
    """A bar over a row with the controller's name and caption."""
    bar = blank(_TITLE_HEIGHT_PX, COLUMNS * (PANEL_WIDTH_PX + MARGIN_PX) + MARGIN_PX)
    write(bar, name, (MARGIN_PX, 29), _TITLE_SIZE, WHITE)
    write(bar, caption, (MARGIN_PX + text_width(name, _TITLE_SIZE) + 20, 29), _TEXT_SIZE, FAINT)
    return bar
