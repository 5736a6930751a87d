"""The results of an evaluation, as numbers and as JSON.

All figures come from the ``Frames`` of each controller over the same episodes. A controller that exists several times
(a policy per training seed) is averaged over its copies; its intervals then cover both seeds and episodes.

Some episodes nobody can serve: no controller, the bound included where it runs, computes one frame in time. Their
share is reported, and the figures with and without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from controller.controllers.registry import BOUND, LEARNED
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
)
from controller.records import Bools, Floats, Ints
from runtime.files.provenance import Provenance

#: What the learned policy is compared with: everything but itself and the bound.
UTILITY = "utility"
#: Metrics of a frame that not every episode has: frames that reuse an answer, frames run in time.
PARTIAL = ("slo_attainment", "accuracy", "reused_accuracy")
#: What is reported again without the episodes that nobody can serve.
AGAIN = (UTILITY, "slo_attainment", STREAMING)
#: The "hard" example is at the 5th percentile (1 in 20).
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
    provenance: Provenance | None = None
    own: tuple[str, ...] = ()  # the user's controllers: neither classical, nor ``ppo``, nor the bound

    @property
    def episodes(self) -> int:
        return len(self.families)

    @cached_property
    def sums(self) -> dict[str, dict[str, Floats]]:
        """Per controller: the sums behind every metric (copies, episodes)."""
        return {name: _stacked([episode_sums(frames) for frames in copies]) for name, copies in self.runs.items()}

    @cached_property
    def metrics(self) -> dict[str, dict[str, Floats]]:
        """Per controller and metric (copies, episodes); NaN where an episode has none."""
        return {name: _without_absent(ratios(sums)) for name, sums in self.sums.items()}

    def utility(self, name: str) -> Floats:
        """(copies, episodes)."""
        return self.metrics[name][UTILITY]

    @cached_property
    def servable(self) -> Bools:
        """(episodes,) whether any controller computed at least one frame in time."""
        return np.asarray(np.any([(sums["in_time"] > 0).any(axis=0) for sums in self.sums.values()], axis=0))

    @property
    def classical(self) -> list[str]:
        """Controllers that neither learn nor know the future, the best first."""
        return self.classical_by(UTILITY)

    def classical_by(self, metric: str) -> list[str]:
        """The same, by another metric."""
        others = [name for name in self.runs if name not in (LEARNED, BOUND, *self.own)]
        return sorted(others, key=lambda name: -float(self.metrics[name][metric].mean()))

    @cached_property
    def is_stream(self) -> bool:
        """Whether there is a streaming accuracy."""
        return all(STREAMING in metrics for metrics in self.metrics.values())

    @property
    def ranking_metrics(self) -> tuple[str, ...]:
        """By which controllers are ranked here."""
        return (UTILITY, STREAMING) if self.is_stream else (UTILITY,)

    def interval(self, name: str, metric: str, episodes: Bools | None = None) -> Interval:
        """A metric's mean over all frames that it is about, of all episodes or of some."""
        return _interval(self.metrics[name][metric], self.sums[name][METRICS[metric][1]], episodes)

    def difference(self, name: str, reference: str, metric: str = UTILITY, episodes: Bools | None = None) -> Interval:
        """Paired difference of a metric's mean over the same episodes, or over some of them."""
        values = self.metrics[name][metric] - self.metrics[reference][metric]
        return _interval(values, np.ones(values.shape), episodes)

    def of_family(self, family: str) -> Bools:
        """Which episodes were played on traces of the family."""
        return np.asarray(np.array(self.families) == family)

    @property
    def gap(self) -> Interval | None:
        """Share of the gap between the best classical controller and hindsight that the learned policy closes.

        None where hindsight is not ahead, and where the interval is wider than the whole gap: too few episodes.
        """
        if LEARNED not in self.runs or BOUND not in self.runs or not self.classical:
            return None
        mean = {name: self.utility(name).mean(axis=0) for name in (LEARNED, self.classical[0], BOUND)}
        if mean[BOUND].mean() <= mean[self.classical[0]].mean():
            return None
        share = gap_closed(mean[LEARNED], mean[self.classical[0]], mean[BOUND])
        return share if self.episodes > 1 and share.high - share.low < 1.0 else None

    def by_family(self) -> dict[str, dict[str, float]]:
        """Mean utility per trace family and controller."""
        return {
            family: {name: float(self.utility(name)[:, self.of_family(family)].mean()) for name in self.runs}
            for family in sorted(set(self.families))
        }


def example_episodes(comparison: Comparison) -> dict[str, int]:
    """Numbers of two example episodes: servable ones in which controllers differ (the bound left out).

    They differ by what the best of them earns more than the median one. Of the half of the episodes with the larger
    differences, "typical" is the one with the median difference, "hard" one in which even the best earns little.
    """
    names = [name for name in comparison.runs if name != BOUND] or list(comparison.runs)
    utility = np.stack([comparison.utility(name).mean(axis=0) for name in names])  # (controllers, episodes)
    best = utility.max(axis=0)
    servable = np.flatnonzero(comparison.servable) if comparison.servable.any() else np.arange(comparison.episodes)
    ranked = _sorted_by(best - np.median(utility, axis=0), servable)
    differing = ranked[len(ranked) // 2 :]
    hard = _sorted_by(best, differing)
    return {"typical": int(differing[len(differing) // 2]), "hard": int(hard[len(hard) // HARD_SHARE])}


def _sorted_by(figure: Floats, episodes: Ints) -> Ints:
    return np.asarray(episodes[np.argsort(figure[episodes], kind="stable")])


def _stacked(copies: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {metric: np.stack([copy[metric] for copy in copies]) for metric in copies[0]}


def _without_absent(metrics: dict[str, Floats]) -> dict[str, Floats]:
    """Streaming accuracy is a metric only where every frame is one of a stream."""
    return {name: values for name, values in metrics.items() if name != STREAMING or np.isfinite(values).all()}


def _interval(values: Floats, weights: Floats, episodes: Bools | None) -> Interval:
    """Mean over (copies, episodes), copies being a sample only when there are several.

    Episodes that are left out have no weight: resampling all of them needs no weights of its own for each subset.
    """
    weights = weights if episodes is None else weights * episodes
    return bootstrap(values, weights=weights) if len(values) > 1 else bootstrap(values[0], weights=weights[0])


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The contract's form, with paired differences, the gap and families beside it."""
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
    summary["answered_on"] = answered_on(comparison.sums[name])
    summary["latency_ms"] = _latency([latency_percentiles_ms(frames) for frames in comparison.runs[name]])
    return summary


def _latency(copies: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Means over the copies that answered at all."""
    found = {at: [copy[at] for copy in copies if copy[at] is not None] for at in copies[0]}
    return {at: float(np.mean(values)) if values else None for at, values in found.items()}  # type: ignore[arg-type]


def _servable(comparison: Comparison) -> dict[str, Any]:
    """How many episodes somebody can serve, and what was found on these."""
    some = comparison.servable
    found: dict[str, Any] = {"episodes": int(some.sum()), "unservable_frac": float(1 - some.mean())}
    if not some.any():
        return found
    metrics = [metric for metric in AGAIN if metric != STREAMING or comparison.is_stream]
    found["controllers"] = {
        name: {metric: comparison.interval(name, metric, some).as_json() for metric in metrics}
        for name in comparison.runs
    }
    if LEARNED in comparison.runs:
        found["ppo_minus"] = _margins(comparison, UTILITY, some)
    return found


def verdict(comparison: Comparison) -> str:
    """A sentence about the learned policy against its best opponent, and one by streaming accuracy if there is any."""
    if LEARNED not in comparison.runs or not comparison.classical:
        return ""
    text = _verdict_by(comparison, UTILITY)
    if (share := comparison.gap) is not None:
        text += f"; {100 * share.mean:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}] of its gap to hindsight"
    return f"{text}\nstreaming accuracy: {_verdict_by(comparison, STREAMING)}" if comparison.is_stream else text


def _verdict_by(comparison: Comparison, metric: str) -> str:
    best = comparison.classical_by(metric)[0]
    gain = comparison.difference(LEARNED, best, metric)
    text = f"ppo minus {best} (best classical): {gain.mean:+.4f}"
    if not gain.is_known:
        return f"{text} in a single episode; compare more episodes with --seeds"
    sure = "the interval excludes zero" if gain.excludes_zero else "the interval includes zero"
    text = f"{text} [{gain.low:+.4f}, {gain.high:+.4f}], {sure}"
    if comparison.servable.all() or not comparison.servable.any():
        return text
    return f"{text}; {comparison.difference(LEARNED, best, metric, comparison.servable).mean:+.4f} in servable episodes"
