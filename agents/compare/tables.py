"""Builds the tables of an evaluation, at most 80 columns wide, with a legend.

Intervals have a separate table. With ``wide`` they stand beside the means, and the family table has all controllers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from agents.compare.report import KNOWING, UTILITY, Comparison
from controller.controllers.registry import LEARNED, ORACLE
from controller.metrics import ANSWERERS, EARLY_EXIT, STREAMING
from controller.records import KINDS, Bools
from runtime.observe.summary import ABSENT, number, percent
from runtime.observe.tables import TABLE_COLUMNS

#: Longest name that is not wrapped: more would not fit 80 columns.
NAME_COLUMNS = 14
#: Most classical controllers in the family table, besides ppo and greedy-oracle.
FAMILY_OTHERS = 3

LEGEND = (
    "utility: mean over all frames of the answer's score if it is in time (1 is perfect; a reused answer has its "
    "score on the frame that it stands for), minus weighted energy and a penalty for dropped frames. deadline met: "
    "share of frames answered in time, of those that were run or dropped. reused (not run, an earlier answer stands), "
    "late, dropped: shares of all frames; the rest is in time. accuracy: mean score of the frames in time."
)
STREAMING_LEGEND = (
    " streaming: mean score, against the frame just captured, of the newest answer that a viewer has at that time."
)
KNOWS_LEGEND = (
    " greedy-oracle and the bounds know the future. greedy-oracle takes the best frame one by one; bound maximises "
    "utility over the whole episode, bound-expected without knowing which answers will be right, and bound-streaming "
    "the sum of utility and streaming."
)
RUN_LEGEND = (
    "run: share of all frames that were run, whatever became of them. Of these: shares of device-only decisions, of "
    "splits (the device computes up to a cut inside the network) and of offloads (the device sends the image), as they "
    "were carried out."
)
ANSWERED_LEGEND = (
    "Shares of the frames that were run and answered: by the device alone, by device and MEC (split), by the MEC, or "
    "by the device in place of a MEC that did not answer or could not be asked (fallback). p50, p95: median and 95th "
    "percentile of the latency from capture to answer. kB/frame: mean payload of all frames."
)


def tables(comparison: Comparison, report: dict[str, Any], wide: bool = False) -> list[Table]:
    """All tables of an evaluation."""
    shown = [ranking_table(comparison, report, wide), run_table(report), answered_table(report)]
    if not comparison.servable.all() and comparison.servable.any():
        shown.append(servable_table(comparison, report))
    if LEARNED in comparison.runs and len(comparison.runs) > 1 and not wide:
        shown.append(against_table(comparison, report))
    if len(set(comparison.families)) > 1:
        shown.append(family_table(comparison, wide))
    return shown


def _table(title: str, headings: Sequence[str], legend: str = "") -> Table:
    """An empty table; its first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.min_width = len(title)
    table.padding, table.pad_edge, table.show_edge = (0, 0, 0, 1), False, False
    table.caption, table.caption_justify, table.caption_style = legend or None, "left", ""
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if column else "left", overflow="fold", vertical="top")
    return table


def _add_controllers(table: Table, rows: Mapping[str, Sequence[str]]) -> None:
    for name, cells in rows.items():
        table.add_row(_wrapped(name), *cells, style="bold" if name == LEARNED else None)


def _wrapped(name: str) -> str:
    """A name in lines that fit its column, each broken after a separator where there is one."""
    lines = []
    while len(name) > NAME_COLUMNS:
        at = max(name.rfind(mark, 0, NAME_COLUMNS) for mark in "-_. ") + 1 or NAME_COLUMNS
        lines.append(name[:at])
        name = name[at:]
    return "\n".join((*lines, name))


def _ranked(controllers: Mapping[str, Any]) -> list[str]:
    """Controllers, the best utility first."""
    return sorted(controllers, key=lambda name: -(controllers[name][UTILITY]["mean"] or 0.0))


def ranking_table(comparison: Comparison, report: dict[str, Any], wide: bool = False) -> Table:
    """Controllers, the best utility first, with the shares of frames skipped, late and dropped."""
    stream = comparison.is_stream
    headings = ["controller", "utility", "deadline\nmet", "reused", "late", "dropped", "accuracy"]
    if wide:
        headings[1:2] = ["utility [95 %]", *(["ppo minus it [95 %]"] if LEARNED in comparison.runs else [])]
    subject = comparison.subject or comparison.workload
    title = f"{subject}, {comparison.backend}: {comparison.episodes} paired episodes"
    knows = not set(KNOWING).isdisjoint(report["controllers"])
    legend = LEGEND + (STREAMING_LEGEND if stream else "") + (KNOWS_LEGEND if knows else "")
    table = _table(title, headings + (["streaming"] if stream else []), legend)
    _add_controllers(table, {n: _ranking_cells(report, n, stream, wide) for n in _ranked(report["controllers"])})
    return table


def _ranking_cells(report: dict[str, Any], name: str, stream: bool, wide: bool) -> list[str]:
    row = report["controllers"][name]
    shares = (f"{metric}_frac" for metric in ("reused", "late", "dropped"))
    utility = [_bracketed(row[UTILITY]) if wide else number(row[UTILITY]["mean"], ".4f")]
    if wide and "ppo_minus" in report:
        utility.append(_bracketed(report["ppo_minus"].get(name), signed=True))
    return [
        *utility,
        percent(row["slo_attainment"]["mean"]),
        *(percent(row[share]["mean"]) for share in shares),
        number(row["accuracy"]["mean"], ".4f"),
        *([number(row[STREAMING]["mean"], ".4f")] if stream else []),
    ]


def run_table(report: dict[str, Any]) -> Table:
    """With which kind of decision each controller ran its frames."""
    table = _table("how frames were run", ["controller", "run", *KINDS], RUN_LEGEND)
    controllers = report["controllers"]
    _add_controllers(table, {name: _run_cells(controllers[name]) for name in _ranked(controllers)})
    return table


def _run_cells(row: dict[str, Any]) -> list[str]:
    shares = row["run_as"] or dict.fromkeys(KINDS)
    run = sum(row[f"{part}_frac"]["mean"] or 0.0 for part in ("in_time", "late"))
    return [percent(run), *(percent(shares[kind]) for kind in KINDS)]


def answered_table(report: dict[str, Any]) -> Table:
    """Where the frames of each controller were answered, the latency, and the bytes sent."""
    controllers = report["controllers"]
    gated = any(EARLY_EXIT in (row["answered_on"] or ()) for row in controllers.values())
    names = [name for name in ANSWERERS if gated or name != EARLY_EXIT]
    headings = ["controller", *names, "p50 ms", "p95 ms", "kB/frame"]
    table = _table("where frames were answered", headings, ANSWERED_LEGEND)
    _add_controllers(table, {name: _answered_cells(controllers[name], names) for name in _ranked(controllers)})
    return table


def _answered_cells(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    shares = row["answered_on"]
    return [
        *(percent(shares and shares.get(name, 0.0)) for name in names),
        *(number(row["latency_ms"][at], ".1f") for at in ("p50", "p95")),
        number(row["payload_kbytes"]["mean"], ".2f"),
    ]


def servable_table(comparison: Comparison, report: dict[str, Any]) -> Table:
    """The main figures without the episodes in which no controller computes a frame in time."""
    servable = report["servable"]
    controllers = servable["controllers"]
    title = f"the {servable['episodes']} servable episodes ({percent(1 - servable['unservable_frac'])} of all)"
    metrics = list(next(iter(controllers.values())))
    names = {"slo_attainment": "deadline\nmet", STREAMING: "streaming"}
    legend = (
        "Only episodes in which at least one of these controllers computes at least one frame in time. The other "
        "episodes are in the tables above, but not in this one."
    )
    table = _table(title, ["controller", *(names.get(metric, metric) for metric in metrics)], legend)
    _add_controllers(
        table,
        {
            name: [_plain(metric, controllers[name][metric]["mean"]) for metric in metrics]
            for name in _ranked(controllers)
        },
    )
    return table


def _plain(metric: str, mean: float | None) -> str:
    return percent(mean) if metric == "slo_attainment" else number(mean, ".4f")


def against_table(comparison: Comparison, report: dict[str, Any]) -> Table:
    """Paired differences of the learned policy to each other controller."""
    stream = comparison.is_stream
    headings = ["controller", UTILITY, *(["streaming"] if stream else [])]
    table = _table("ppo minus each controller [95 % interval]", headings)
    columns = [report["ppo_minus"], *([report["ppo_minus_streaming"]] if stream else [])]
    names = [name for name in _ranked(report["controllers"]) if name != LEARNED]
    _add_controllers(table, {name: [_bracketed(column[name], signed=True) for column in columns] for name in names})
    return table


def family_table(comparison: Comparison, wide: bool = False) -> Table:
    """Mean utility per trace family: of ppo, the best classical controllers and the oracle, or of all controllers."""
    names = sorted(comparison.runs, key=lambda name: -float(comparison.utility(name).mean()))
    if not wide:
        others = comparison.classical[: _classical_that_fit(comparison)]
        names = [name for name in names if name in (LEARNED, ORACLE, *comparison.own, *others)]
    table = _table("mean utility per trace family", ["trace family", "episodes", *map(_narrow, names)])
    for family, means in comparison.by_family().items():
        best = max((means[name] for name in names if name not in KNOWING), default=np.nan)
        cells = [f"[bold]{means[n]:.4f}[/bold]" if means[n] == best else f"{means[n]:.4f}" for n in names]
        table.add_row(family, str(int(comparison.of_family(family).sum())), *cells)
    return table


def _narrow(name: str) -> str:
    """A heading that is broken after every hyphen."""
    return name.replace("-", "-\n")


def _classical_that_fit(comparison: Comparison) -> int:
    """Number of classical controllers that fit beside the names of the families, which are never cut."""

    def width(name: str) -> int:
        return max(len("-0.0000"), *map(len, _narrow(name).split("\n"))) + 2

    taken = max(map(len, comparison.families)) + width("episodes") + width(LEARNED) + width(ORACLE)
    taken += sum(map(width, comparison.own))
    widths = np.cumsum([width(name) for name in comparison.classical[:FAMILY_OTHERS]])
    return max(int(np.searchsorted(widths, TABLE_COLUMNS - taken, side="right")), 1)


def margin_table(
    comparison: Comparison,
    references: Sequence[str],
    what: str = "trace family",
    groups: Mapping[str, Bools] | None = None,
) -> Table:
    """Paired differences of the learned policy to each reference, per group of episodes; default: per trace family."""
    metrics = comparison.ranking_metrics
    headings = [f"{metric.split('_')[0]}: {name}" for metric in metrics for name in references]
    table = _table(f"{LEARNED} minus a reference per {what} [95 %]", [what, "episodes", *headings])
    if groups is None:
        groups = {family: comparison.of_family(family) for family in sorted(set(comparison.families))}
    for group, some in (*groups.items(), ("all", np.ones(comparison.episodes, bool))):
        if not some.any():
            continue
        gains = [comparison.difference(LEARNED, name, metric, some) for metric in metrics for name in references]
        table.add_row(group, str(some.sum()), *(_bracketed(gain.as_json(), signed=True) for gain in gains))
    return table


def _bracketed(interval: dict[str, Any] | None, signed: bool = False) -> str:
    if interval is None or interval["mean"] is None:
        return "" if interval is None else ABSENT
    form = "+.4f" if signed else ".4f"
    if interval["ci95"] is None:  # a single episode has no interval
        return f"{interval['mean']:{form}}"
    low, high = interval["ci95"]
    return f"{interval['mean']:{form}} [{low:{form}}, {high:{form}}]"
