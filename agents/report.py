"""What did an evaluation find? The comparison of controllers as JSON, as tables, and in one sentence.

All figures come from the ``Frames`` of each controller over the same episodes. A controller that exists several times
(a policy per training seed) is averaged over its copies; its intervals then cover both seeds and episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from controller.metrics import Frames, Interval, bootstrap, gap_closed, latency_percentiles_ms, per_episode
from controller.records import Bools, Floats

#: A narrower terminal wraps the tables rather than cutting figures off.
TABLE_COLUMNS = 136
#: What the learned policy is compared with: everything but itself and the bound.
LEARNED, BOUND = "ppo", "hindsight"
#: Metrics by which controllers are ranked.
UTILITY, STREAMING = "utility", "streaming_accuracy"
#: One of so many episodes is harder than the one that is shown as hard.
HARD_SHARE = 20


@dataclass(frozen=True)
class Comparison:
    """Frames of every controller over the same episodes."""

    workload: str
    backend: str  # "twin" or "live"
    traces: tuple[str, ...]  # where they came from
    seeds: int
    families: tuple[str, ...]  # of each episode's trace
    runs: Mapping[str, tuple[Frames, ...]]  # several where there are several policies

    @cached_property
    def metrics(self) -> dict[str, dict[str, Floats]]:
        """Per controller and metric (copies, episodes)."""
        return {name: _stacked([per_episode(frames) for frames in copies]) for name, copies in self.runs.items()}

    def utility(self, name: str) -> Floats:
        """(copies, episodes)."""
        return self.metrics[name][UTILITY]

    @property
    def classical(self) -> list[str]:
        """Controllers that neither learn nor know the future, the best first."""
        return self.classical_by(UTILITY)

    def classical_by(self, metric: str) -> list[str]:
        """The same, by another metric."""
        others = [name for name in self.runs if name not in (LEARNED, BOUND)]
        return sorted(others, key=lambda name: -float(self.metrics[name][metric].mean()))

    @cached_property
    def is_stream(self) -> bool:
        """Whether there is a streaming accuracy."""
        return all(STREAMING in metrics for metrics in self.metrics.values())

    @property
    def ranking_metrics(self) -> tuple[str, ...]:
        """By which controllers are ranked here."""
        return (UTILITY, STREAMING) if self.is_stream else (UTILITY,)

    def difference(self, name: str, reference: str, metric: str = UTILITY, episodes: Bools | None = None) -> Interval:
        """Paired difference of a metric's mean over the same episodes, or over some of them."""
        values = self.metrics[name][metric] - self.metrics[reference][metric]
        return _interval(values if episodes is None else values[:, episodes])

    def of_family(self, family: str) -> Bools:
        """Which episodes were played on traces of the family."""
        return np.asarray(np.array(self.families) == family)

    @property
    def gap(self) -> Interval | None:
        """Share of the way from the best classical controller to hindsight that the learned policy goes."""
        if LEARNED not in self.runs or BOUND not in self.runs or not self.classical:
            return None
        mean = {name: self.utility(name).mean(axis=0) for name in (LEARNED, self.classical[0], BOUND)}
        return gap_closed(mean[LEARNED], mean[self.classical[0]], mean[BOUND])

    def by_family(self) -> dict[str, dict[str, float]]:
        """Mean utility per trace family and controller."""
        return {
            family: {name: float(self.utility(name)[:, self.of_family(family)].mean()) for name in self.runs}
            for family in sorted(set(self.families))
        }


def telling_episodes(comparison: Comparison) -> dict[str, int]:
    """Numbers of two episodes worth a look: the best classical controller does as in the median there, and badly."""
    name = comparison.classical[0] if comparison.classical else next(iter(comparison.runs))
    ranked = np.argsort(comparison.utility(name).mean(axis=0), kind="stable")
    return {"typical": int(ranked[len(ranked) // 2]), "hard": int(ranked[len(ranked) // HARD_SHARE])}


def _stacked(copies: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {metric: np.stack([copy[metric] for copy in copies]) for metric in copies[0]}


def _interval(values: Floats) -> Interval:
    """Mean over (copies, episodes), copies being a sample only when there are several."""
    return bootstrap(values[0] if len(values) == 1 else values)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The contract's form, with paired differences, the gap and families beside it."""
    report: dict[str, Any] = {
        "workload": comparison.workload,
        "backend": comparison.backend,
        "traces": list(comparison.traces),
        "seeds": comparison.seeds,
        "episodes": len(comparison.families),
        "controllers": {name: _summary(comparison, name) for name in comparison.runs},
        "families": comparison.by_family(),
    }
    if LEARNED in comparison.runs:
        others = [name for name in comparison.runs if name != LEARNED]
        report["ppo_minus"] = {name: comparison.difference(LEARNED, name).as_json() for name in others}
        if comparison.is_stream:
            report["ppo_minus_streaming"] = {
                name: comparison.difference(LEARNED, name, STREAMING).as_json() for name in others
            }
        report["ppo_per_policy"] = [float(mean) for mean in comparison.utility(LEARNED).mean(axis=1)]
    if comparison.gap is not None:
        report["gap_closed"] = {"reference": comparison.classical[0], **comparison.gap.as_json()}
    return report


def _summary(comparison: Comparison, name: str) -> dict[str, Any]:
    metrics = comparison.metrics[name]
    latency = [latency_percentiles_ms(frames) for frames in comparison.runs[name]]
    summary: dict[str, Any] = {metric: _interval(values).as_json() for metric, values in metrics.items()}
    summary["latency_ms"] = {at: float(np.mean([copy[at] for copy in latency])) for at in latency[0]}
    return summary


def table_console() -> Console:
    """Where tables are printed: wide enough for all columns, also into a pipe."""
    return Console(width=max(Console().width, TABLE_COLUMNS))


def ranking_table(comparison: Comparison, report: dict[str, Any]) -> Table:
    """Controllers from the best utility to the least."""
    table = Table(title=f"{comparison.workload}, {comparison.backend}: {len(comparison.families)} paired episodes")
    table.add_column("controller")
    for heading in ("utility [95 %]", "ppo minus it [95 %]", "deadline met", "accuracy", "goodput/s"):
        table.add_column(heading, justify="right")
    for heading in ("p50 ms", "p95 ms", "kB/frame"):
        table.add_column(heading, justify="right")
    found, stream = report["controllers"], comparison.is_stream
    if stream:
        table.add_column("streaming", justify="right")
        table.add_column("ppo minus it [95 %]", justify="right")
    for name in sorted(found, key=lambda name: -found[name]["utility"]["mean"]):
        row, latency = found[name], found[name]["latency_ms"]
        table.add_row(
            name,
            _bracketed(row["utility"]),
            _bracketed(report.get("ppo_minus", {}).get(name), signed=True),
            f"{100 * row['slo_attainment']['mean']:.2f} %",
            f"{row['accuracy']['mean']:.4f}",
            f"{row['goodput_fps']['mean']:.2f}",
            f"{latency['p50']:.1f}",
            f"{latency['p95']:.1f}",
            f"{row['payload_kbytes']['mean']:.2f}",
            *(_streaming_cells(report, name) if stream else []),
            style="bold" if name == LEARNED else None,
        )
    return table


def _streaming_cells(report: dict[str, Any], name: str) -> tuple[str, str]:
    mean = report["controllers"][name][STREAMING]["mean"]
    return f"{mean:.4f}", _bracketed(report.get("ppo_minus_streaming", {}).get(name), signed=True)


def family_table(comparison: Comparison) -> Table:
    """Mean utility per family of traces."""
    names = sorted(comparison.runs, key=lambda name: -float(comparison.utility(name).mean()))
    table = Table("trace family", *names, title="mean utility per trace family")
    for family, means in comparison.by_family().items():
        best = max(value for name, value in means.items() if name != BOUND)
        cells = [f"[bold]{means[n]:.4f}[/bold]" if means[n] == best else f"{means[n]:.4f}" for n in names]
        table.add_row(family, *cells)
    return table


def margin_table(
    comparison: Comparison,
    references: Sequence[str],
    what: str = "trace family",
    groups: Mapping[str, Bools] | None = None,
) -> Table:
    """By how much the learned policy is above each reference, per group of episodes: by default, family of traces."""
    metrics = comparison.ranking_metrics
    table = Table(title=f"{LEARNED} minus a reference per {what} [95 %]", title_justify="left")
    table.add_column(what)
    table.add_column("episodes", justify="right")
    for metric in metrics:
        for name in references:
            table.add_column(f"{metric.split('_')[0]}: {name}", justify="right")
    if groups is None:
        groups = {family: comparison.of_family(family) for family in sorted(set(comparison.families))}
    for group, some in (*groups.items(), ("all", np.ones(len(comparison.families), bool))):
        if not some.any():
            continue
        gains = [comparison.difference(LEARNED, name, metric, some) for metric in metrics for name in references]
        table.add_row(group, str(some.sum()), *(_bracketed(gain.as_json(), signed=True) for gain in gains))
    return table


def verdict(comparison: Comparison) -> str:
    """A sentence about the learned policy against its best opponent, and one by streaming accuracy if there is any."""
    if LEARNED not in comparison.runs or not comparison.classical:
        return ""
    text = _verdict_by(comparison, UTILITY)
    if comparison.gap is not None and len(comparison.families) > 1:
        share = comparison.gap
        text += f"; {100 * share.mean:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}] of its gap to hindsight"
    return f"{text}\nstreaming accuracy: {_verdict_by(comparison, STREAMING)}" if comparison.is_stream else text


def _verdict_by(comparison: Comparison, metric: str) -> str:
    best = comparison.classical_by(metric)[0]
    gain = comparison.difference(LEARNED, best, metric)
    text = f"ppo minus {best} (best classical): {gain.mean:+.4f}"
    if gain.low == gain.high:  # a single episode has no interval
        return f"{text} in a single episode, which tells nothing of others; --seeds asks for more"
    sure = "the interval excludes zero" if gain.excludes_zero else "the interval includes zero"
    return f"{text} [{gain.low:+.4f}, {gain.high:+.4f}], {sure}"


def _bracketed(interval: dict[str, Any] | None, signed: bool = False) -> str:
    if interval is None:
        return ""
    low, high = interval["ci95"]
    form = "+.4f" if signed else ".4f"
    if low == high == interval["mean"]:  # a single episode has no interval
        return f"{low:{form}}"
    return f"{interval['mean']:{form}} [{low:{form}}, {high:{form}}]"
