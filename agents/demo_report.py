"""The table and the picture at the end of the demo."""

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

#: What each controller does, in a few words.
PLAIN_NAMES = {
    "device-only": "never asks the server",
    "jpeg-offload": "always sends a JPEG",
    "neurosurgeon": "quickest cut",
    "edgent": "most accurate that fits",
    "greedy": "best by last bandwidth",
    "ppo": "the learned policy",
}
#: Moments that the picture shows, spread evenly over the run.
MOMENTS = 3
_TITLE_HEIGHT_PX = 44
_TITLE_SIZE, _TEXT_SIZE = 0.8, 0.58

Figures = Mapping[str, Mapping[str, Any]]  # by controller: what ``mecpilot device --json`` writes


def demo_table(figures: Figures, scenario: Scenario) -> Table:
    """At most 80 columns wide."""
    deadline_ms, fps = scenario.deadline_s * 1e3, scenario.fps
    table = Table(
        title=f"{scenario.frames} frames at {fps:g} per second, each to be answered within {deadline_ms:.0f} ms",
        caption=(
            "answered in time: computed for this frame, before its deadline. reused: not\n"
            "computed, the last answer stands. answers right: agreement of the answers in\n"
            "time with the reference. on screen: the same for what a viewer sees at each\n"
            "capture, old answers included. This is one short run on one uplink; the\n"
            "comparison in the twin above is over many episodes."
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
        "answers\nright",
        "on\nscreen",
        "sent per\nframe",
    ):
        table.add_column(heading, justify="right")
    for name in sorted(figures, key=lambda name: -_on_screen(figures[name])):
        found = figures[name]
        table.add_row(
            f"{name}\n  {PLAIN_NAMES[name]}" if name in PLAIN_NAMES else name,
            percent(found["in_time_frac"]),
            percent(found["reused_frac"]),
            percent(found["late_frac"] + found["dropped_frac"]),
            percent(found["accuracy"]),
            percent(found.get("streaming_accuracy")),
            number(found["payload_kbytes"], ".2f") + " kB",
            style="bold" if name == "ppo" else None,
        )
    return table


def _on_screen(found: Mapping[str, Any]) -> float:
    """What the rows are sorted by: what a viewer sees, or the utility where samples are no stream."""
    return float(found.get("streaming_accuracy") or found["utility"])


def captions(figures: Figures) -> dict[str, str]:
    """How each controller did, for the picture."""
    return {
        name: f"{percent(found['in_time_frac'])} answered in time, {percent(found['reused_frac'])} reused, "
        f"{percent(found['late_frac'] + found['dropped_frac'])} late or dropped"
        for name, found in figures.items()
    }


def draw_moments(
    workload: str, outcomes: Mapping[str, Sequence[Outcome]], captions: Mapping[str, str], path: Path
) -> None:
    """One PNG: a row per controller, a column per moment of the run."""
    rows = [np.vstack((_title(name, captions[name]), _moments(workload, run))) for name, run in outcomes.items()]
    write_png(path, np.vstack(rows))


def _moments(workload: str, outcomes: Sequence[Outcome]) -> Image:
    work = get_workload(workload)
    ordered = sorted(outcomes, key=lambda outcome: outcome.frame)
    shown = [ordered[(2 * place + 1) * len(ordered) // (2 * MOMENTS)] for place in range(MOMENTS)]
    images = Samples(work).replay([outcome.source_index for outcome in shown])
    panels = [panel(image, outcome, work.draw) for image, outcome in zip(images, shown, strict=True)]
    gap = blank(panels[0].shape[0], MARGIN_PX, WHITE)
    return np.hstack([part for one in panels for part in (gap, one)] + [gap])


def _title(name: str, caption: str) -> Image:
    """A bar over a row: who decided, and how it went."""
    bar = blank(_TITLE_HEIGHT_PX, MOMENTS * (PANEL_WIDTH_PX + MARGIN_PX) + MARGIN_PX)
    write(bar, name, (MARGIN_PX, 29), _TITLE_SIZE, WHITE)
    write(bar, caption, (MARGIN_PX + text_width(name, _TITLE_SIZE) + 20, 29), _TEXT_SIZE, FAINT)
    return bar
