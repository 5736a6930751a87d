"""Computes the results of an evaluation, and writes them as JSON.

All figures come from the ``Frames`` of each controller over the same episodes. A controller with several copies (a
policy per training seed) is averaged over them; its intervals then cover both seeds and episodes.

In some episodes no controller, not even one that knows the future if it runs, computes a single frame in time. The
report gives the share of these unservable episodes, and the main figures with and without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from agents.compare.bound import AIMS, BOUND
from controller.controllers.registry import LEARNED, ORACLE
from controller.metrics import (
    METRICS,
    STREAMING,
    Frames,
    Interval,
    answered_on,
    bootstrap,
    episode_sums,
    gap_closed,
    latency_percentiles_ms,
    ratios,
    run_as,
)
from controller.records import Bools, Floats, Ints
from runtime.files.provenance import Provenance

UTILITY = "utility"
#: What knows the future.
KNOWING = (ORACLE, *AIMS)
#: Metrics that an episode may lack, because it has no frame that was run, was in time, or reused an answer.
PARTIAL = ("slo_attainment", "accuracy", "reused_accuracy")
#: Metrics that are also reported over the servable episodes alone.
AGAIN = (UTILITY, "slo_attainment", STREAMING)
#: The "hard" example is at the 5th percentile (1 in 20).
HARD_SHARE = 20


@dataclass(frozen=True)
class Comparison:
    """Frames of every controller over the same episodes."""

    workload: str
    backend: str  # "twin" or "live"
    traces: tuple[str, ...]  # sources: files, folders, or the built-in traces
    seeds: int
    families: tuple[str, ...]  # family of each episode's trace
    runs: Mapping[str, tuple[Frames, ...]]  # by controller, one per copy
    provenance: Provenance | None = None
    own: tuple[str, ...] = ()  # the user's controllers: neither classical, nor ``ppo``, nor what knows the future
    subject: str = ""  # the workload in words, where its name is not that of the bundle

    @property
    def episodes(self) -> int:
        return len(self.families)

    @cached_property
    def sums(self) -> dict[str, dict[str, Floats]]:
        """Per controller, the sums behind every metric, (copies, episodes) each."""
        return {name: _stacked([episode_sums(frames) for frames in copies]) for name, copies in self.runs.items()}

    @cached_property
    def metrics(self) -> dict[str, dict[str, Floats]]:
        """Per controller and metric, values (copies, episodes); NaN where an episode lacks the metric."""
        return {name: _without_absent(ratios(sums)) for name, sums in self.sums.items()}

    def utility(self, name: str) -> Floats:
        """(copies, episodes) mean utility per frame."""
        return self.metrics[name][UTILITY]

    @cached_property
    def servable(self) -> Bools:
        """(episodes,) whether any controller computed at least one frame in time."""
        return np.asarray(np.any([(sums["in_time"] > 0).any(axis=0) for sums in self.sums.values()], axis=0))

    @property
    def classical(self) -> list[str]:
        """Controllers that neither learn nor know the future, the best by utility first."""
        return self.classical_by(UTILITY)

    def classical_by(self, metric: str) -> list[str]:
        """Classical controllers, the best by a metric first."""
        others = [name for name in self.runs if name not in (LEARNED, *KNOWING, *self.own)]
        return sorted(others, key=lambda name: -float(self.metrics[name][metric].mean()))

    @cached_property
    def is_stream(self) -> bool:
        """Whether samples are a stream, so that there is a streaming accuracy."""
        return all(STREAMING in metrics for metrics in self.metrics.values())

    @property
    def ranking_metrics(self) -> tuple[str, ...]:
        """Metrics that controllers are ranked by."""
        return (UTILITY, STREAMING) if self.is_stream else (UTILITY,)

    def interval(self, name: str, metric: str, episodes: Bools | None = None) -> Interval:
        """A metric's mean over the frames that it covers, with its interval; ``episodes``: mask of those to use."""
        return _interval(self.metrics[name][metric], self.sums[name][METRICS[metric][1]], episodes)

    def difference(self, name: str, reference: str, metric: str = UTILITY, episodes: Bools | None = None) -> Interval:
        """Mean paired difference of a metric over episodes; ``episodes``: mask of those to use."""
        values = self.metrics[name][metric] - self.metrics[reference][metric]
        return _interval(values, np.ones(values.shape), episodes)

    def of_family(self, family: str) -> Bools:
        """(episodes,) mask of those on traces of the family."""
        return np.asarray(np.array(self.families) == family)

    @property
    def gap(self) -> Interval | None:
        """Share of the gap between the best classical controller and the greedy oracle that the learned policy closes.

        None if the oracle is not ahead, or if there are too few episodes: the interval is wider than the whole gap.
        """
        if LEARNED not in self.runs or ORACLE not in self.runs or not self.classical:
            return None
        mean = {name: self.utility(name).mean(axis=0) for name in (LEARNED, self.classical[0], ORACLE)}
        if mean[ORACLE].mean() <= mean[self.classical[0]].mean():
            return None
        share = gap_closed(mean[LEARNED], mean[self.classical[0]], mean[ORACLE])
        return share if self.episodes > 1 and share.high - share.low < 1.0 else None

    @property
    def below_bound(self) -> Interval | None:
        """Utility of the bound minus that of the learned policy; None without them."""
        return self.difference(BOUND, LEARNED) if {BOUND, LEARNED} <= set(self.runs) else None

    def by_family(self) -> dict[str, dict[str, float]]:
        """Mean utility per trace family and controller."""
        return {
            family: {name: float(self.utility(name)[:, self.of_family(family)].mean()) for name in self.runs}
            for family in sorted(set(self.families))
        }


def example_episodes(comparison: Comparison) -> dict[str, int]:
    """Numbers of two example episodes, "typical" and "hard", among servable episodes in which controllers differ.

    The difference of an episode is the best controller's utility minus the median one's; those that know the future are
    left out. Of the half of the episodes with larger differences, "typical" has the median difference. "hard" is at the
    5th percentile of the best controller's utility.
    """
    names = [name for name in comparison.runs if name not in KNOWING] or list(comparison.runs)
    utility = np.stack([comparison.utility(name).mean(axis=0) for name in names])  # (controllers, episodes)
    best = utility.max(axis=0)
    servable = np.flatnonzero(comparison.servable) if comparison.servable.any() else np.arange(comparison.episodes)
    ranked = _sorted_by(best - np.median(utility, axis=0), servable)
    differing = ranked[len(ranked) // 2 :]
    by_best = _sorted_by(best, differing)
    return {"typical": int(differing[len(differing) // 2]), "hard": int(by_best[len(by_best) // HARD_SHARE])}


def _sorted_by(key: Floats, episodes: Ints) -> Ints:
    return np.asarray(episodes[np.argsort(key[episodes], kind="stable")])


def _stacked(copies: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {metric: np.stack([copy[metric] for copy in copies]) for metric in copies[0]}


def _without_absent(metrics: dict[str, Floats]) -> dict[str, Floats]:
    """Metrics without streaming accuracy, unless all frames belong to streams."""
    return {name: values for name, values in metrics.items() if name != STREAMING or np.isfinite(values).all()}


def _interval(values: Floats, weights: Floats, episodes: Bools | None) -> Interval:
    """Mean and interval of (copies, episodes); copies are resampled too if there are several.

    Episodes that are left out get weight 0, so that every subset uses the same resampling.
    """
    weights = weights if episodes is None else weights * episodes
    return bootstrap(values, weights=weights) if len(values) > 1 else bootstrap(values[0], weights=weights[0])


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The report that ``mecpilot evaluate --json`` writes: metrics, paired differences, gap, families, provenance."""
    report: dict[str, Any] = {
        "workload": comparison.workload,
        "backend": comparison.backend,
        "traces": list(comparison.traces),
        "seeds": comparison.seeds,
        "episodes": comparison.episodes,
        "controllers": {name: _summary(comparison, name) for name in comparison.runs},
        "servable": _servable(comparison),
        "families": comparison.by_family(),
    }
    if comparison.provenance is not None:
        report["provenance"] = comparison.provenance.as_json()
    if LEARNED in comparison.runs:
        report["ppo_minus"] = _margins(comparison, UTILITY)
        if comparison.is_stream:
            report["ppo_minus_streaming"] = _margins(comparison, STREAMING)
        report["ppo_per_policy"] = [float(mean) for mean in comparison.utility(LEARNED).mean(axis=1)]
    if (below := comparison.below_bound) is not None:
        report["below_bound"] = below.as_json()
    if comparison.gap is not None:
        report["gap_closed"] = {"reference": comparison.classical[0], **comparison.gap.as_json()}
    return report


def _margins(comparison: Comparison, metric: str, episodes: Bools | None = None) -> dict[str, Any]:
    others = [name for name in comparison.runs if name != LEARNED]
    return {name: comparison.difference(LEARNED, name, metric, episodes).as_json() for name in others}


def _summary(comparison: Comparison, name: str) -> dict[str, Any]:
    metrics = comparison.metrics[name]
    summary: dict[str, Any] = {metric: comparison.interval(name, metric).as_json() for metric in metrics}
    for metric in PARTIAL:
        summary[metric]["episodes_without"] = int(np.isnan(metrics[metric]).all(axis=0).sum())
    summary["run_as"] = run_as(comparison.sums[name])
    summary["answered_on"] = answered_on(comparison.sums[name])
    summary["latency_ms"] = _latency([latency_percentiles_ms(frames) for frames in comparison.runs[name]])
    return summary


def _latency(copies: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Percentiles, averaged over the copies that answered any frame; None if none did."""
    known = {at: [copy[at] for copy in copies if copy[at] is not None] for at in copies[0]}
    return {at: float(np.mean(values)) if values else None for at, values in known.items()}  # type: ignore[arg-type]


def _servable(comparison: Comparison) -> dict[str, Any]:
    """Number and share of servable episodes, and the main figures over these."""
    some = comparison.servable
    part: dict[str, Any] = {"episodes": int(some.sum()), "unservable_frac": float(1 - some.mean())}
    if not some.any():
        return part
    metrics = [metric for metric in AGAIN if metric != STREAMING or comparison.is_stream]
    part["controllers"] = {
        name: {metric: comparison.interval(name, metric, some).as_json() for metric in metrics}
        for name in comparison.runs
    }
    if LEARNED in comparison.runs:
        part["ppo_minus"] = _margins(comparison, UTILITY, some)
    return part


def verdict(comparison: Comparison) -> str:
    """The learned policy against the best classical controller: a line by utility, on a stream one by streaming
    accuracy too. Empty without these controllers."""
    if LEARNED not in comparison.runs or not comparison.classical:
        return ""
    text = _verdict_by(comparison, UTILITY)
    if (share := comparison.gap) is not None:
        text += f"; {100 * share.mean:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}] of its gap to {ORACLE}"
    if (below := comparison.below_bound) is not None:
        text += f"; {below.mean:.4f} below the {BOUND}"
    return f"{text}\nstreaming accuracy: {_verdict_by(comparison, STREAMING)}" if comparison.is_stream else text


def _verdict_by(comparison: Comparison, metric: str) -> str:
    best = comparison.classical_by(metric)[0]
    gain = comparison.difference(LEARNED, best, metric)
    text = f"ppo minus {best} (best classical): {gain.mean:+.4f}"
    if not gain.is_known:
        return f"{text} in a single episode; compare more episodes with --seeds"
    significance = "the interval excludes zero" if gain.excludes_zero else "the interval includes zero"
    text = f"{text} [{gain.low:+.4f}, {gain.high:+.4f}], {significance}"
    if comparison.servable.all() or not comparison.servable.any():
        return text
    return f"{text}; {comparison.difference(LEARNED, best, metric, comparison.servable).mean:+.4f} in servable episodes"
