"""What each technique of edge inference is worth: one controller with all of them, without each, each alone, none.

Each variation is a setup without some techniques (``controller.techniques``), in which the same controller plays the
same episodes. A policy scores whatever candidates there are, so it is not trained again; a rule keeps its tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from agents.compare.evaluation import Entrants, Player, Progress, compare_in_twin, played_here
from agents.compare.plots import save_figure
from agents.compare.report import UTILITY, Comparison, as_json
from controller.metrics import STREAMING
from envs.setup import Setup
from runtime.observe.summary import number, percent
from runtime.observe.tables import new_table

ALL, NONE = "all techniques", "no technique"
#: Figures of the report, beside utility and accuracy: the key in a controller's summary, heading, and how it is shown.
_COLUMNS: Sequence[tuple[str, str, Callable[[float | None], str]]] = (
    ("slo_attainment", "in\ntime", percent),
    ("payload_kbytes", "kB/\nframe", lambda mean: number(mean, ".2f")),
    ("energy_j", "mJ/\nframe", lambda mean: number(None if mean is None else 1e3 * mean, ".0f")),
)
LEGEND = (
    "Each row is the same controller on the same episodes, with some techniques left out of its decisions; where one "
    "model or one resolution is left, it is the one that does best under the usual conditions. less all: paired "
    "difference of utility to the first row. score: of a stream its streaming accuracy, else the mean score of the "
    "frames in time. in time: share of the frames that were run or dropped."
)


@dataclass(frozen=True)
class Variation:
    """A system with some techniques left out."""

    name: str
    without: tuple[str, ...]


def variations(techniques: Collection[str]) -> list[Variation]:
    """All, without each, each alone, none."""
    names = tuple(techniques)
    less = [Variation(f"without {name}", (name,)) for name in names]
    alone = [Variation(f"{name} alone", tuple(other for other in names if other != name)) for name in names]
    return [Variation(ALL, ()), *less, *alone, Variation(NONE, names)]


def compare_techniques(
    setup: Setup,
    techniques: Collection[str],
    entrants: Entrants,
    sources: Sequence[str],
    seeds: int,
    progress: Progress = lambda _: None,
    play_all: Player = played_here,
) -> Comparison:
    """Play the one controller of ``entrants`` in every variation. The runs have the names of the variations."""
    (name,) = entrants.names
    found: dict[str, Comparison] = {}
    for variation in variations(techniques):
        part = setup.less(variation.without)
        found[variation.name] = compare_in_twin(part, entrants, sources, seeds, progress, play_all)
    runs = {variation: comparison.runs[name] for variation, comparison in found.items()}
    return replace(found[ALL], runs=runs, own=tuple(found))


def report_of(comparison: Comparison, controller: str) -> dict[str, Any]:
    """The report as JSON: the figures of every variation, and its paired differences to all techniques."""
    report = as_json(comparison)
    report["controller"], report["variations"] = controller, report.pop("controllers")
    metrics = comparison.ranking_metrics
    report["less_all"] = {
        name: {metric: comparison.difference(name, ALL, metric).as_json() for metric in metrics}
        for name in comparison.runs
    }
    return report


def table_of(report: Mapping[str, Any]) -> Table:
    """One row for each variation, in the order in which they were played."""
    first = report["variations"][ALL]
    accuracy = STREAMING if STREAMING in first else "accuracy"
    more = [heading for _, heading, _ in _COLUMNS]
    headings = ["variation", UTILITY, "less all\n[95 %]", "score", *more, "p95\nms"]
    title = f"{report['workload']}, {report['controller']}: {report['episodes']} paired episodes"
    table = new_table(title, headings, text=("variation",))
    for column in (0, 2):
        table.columns[column].no_wrap = True
    table.caption, table.caption_justify, table.caption_style = LEGEND, "left", ""
    for name, row in report["variations"].items():
        table.add_row(
            name,
            number(row[UTILITY]["mean"], ".4f"),
            "" if name == ALL else _interval(report["less_all"][name][UTILITY]),
            number(row[accuracy]["mean"], ".4f"),
            *(shown(row[key]["mean"]) for key, _, shown in _COLUMNS),
            number(row["latency_ms"]["p95"], ".0f"),
        )
    return table


def _interval(found: dict[str, Any]) -> str:
    if found["ci95"] is None:  # a single episode has no interval
        return number(found["mean"], "+.4f")
    low, high = found["ci95"]
    return f"{found['mean']:+.4f}\n[{low:+.3f}, {high:+.3f}]"


def draw_techniques(report: Mapping[str, Any], path: Path) -> None:
    """A bar for each variation: the paired difference of utility to all techniques, with its interval."""
    from matplotlib.figure import Figure

    less = {name: found[UTILITY] for name, found in report["less_all"].items() if name != ALL}
    figure = Figure((8, 1.2 + 0.32 * len(less)), layout="constrained")
    axis = figure.subplots()
    for place, (name, found) in enumerate(less.items()):
        colour = "tab:orange" if name.startswith("without") else "tab:blue" if name != NONE else "tab:gray"
        low, high = found["ci95"] or (found["mean"], found["mean"])
        errors = [[found["mean"] - low], [high - found["mean"]]]
        axis.barh(place, found["mean"], xerr=errors, color=colour, ecolor="black", capsize=2)
    axis.set_yticks(range(len(less)), list(less))
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xlabel(f"utility less that of {ALL} ({report['variations'][ALL][UTILITY]['mean']:.4f})")
    axis.set_title(f"{report['workload']}, {report['controller']}: {report['episodes']} paired episodes")
    save_figure(figure, path)
