"""How did a run go? Counts and percentiles over the outcomes of one device, as a table and as JSON."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import numpy as np
from rich.table import Table

from controller.records import ON_TIME, Outcome, Status
from controller.streaming import Stream


class RunSummary:
    """Owns what is needed of each outcome, in the order in which frames end; ``stream`` judges what a viewer sees."""

    def __init__(self, stream: Stream | None = None) -> None:
        self._stream = stream
        self._seen: list[float] = []
        self._status: Counter[Status] = Counter()
        self._latency_ms: list[float] = []
        self._score: list[float] = []
        self._earned: list[float] = []
        self._utility: list[float] = []
        self._payload_bytes: list[float] = []
        self._energy_j: list[float] = []
        self._began_s = math.inf

    def add(self, outcome: Outcome) -> None:
        self._began_s = min(self._began_s, time.perf_counter() - outcome.latency_ms / 1e3)
        self._status[outcome.status] += 1
        self._payload_bytes.append(outcome.payload_bytes)
        self._energy_j.append(outcome.energy_j)
        if self._stream is not None and (seen := self._stream.add(outcome)) is not None:
            self._seen.append(seen)
        if outcome.prediction is not None and outcome.status is not Status.SKIPPED:
            self._latency_ms.append(outcome.latency_ms)
        if outcome.utility is not None and outcome.score is not None:
            self._utility.append(outcome.utility)
            self._earned.append(outcome.score if outcome.status in ON_TIME else 0.0)
            if outcome.prediction is not None:
                self._score.append(outcome.score)

    @property
    def frames(self) -> int:
        return self._status.total()

    def figures(self) -> dict[str, Any]:
        """JSON-able; accuracy is over answered frames, latency over those that were run, the rest over all.

        None: no truth is known.
        """
        frames, judged = max(self.frames, 1), bool(self._utility) or not self.frames
        lasted_s = time.perf_counter() - min(self._began_s, time.perf_counter() - 1e-3)
        on_time = sum(self._status[status] for status in ON_TIME)
        p50, p95, p99 = np.percentile(self._latency_ms or [0.0], [50, 95, 99])
        return {
            "frames": self.frames,
            "status": {status.value: self._status[status] for status in Status if self._status[status]},
            "slo_attainment": on_time / frames,
            "goodput_fps": sum(self._earned) / lasted_s if judged else None,
            "accuracy": float(np.mean(self._score or [0.0])) if judged else None,
            "utility": float(np.mean(self._utility or [0.0])) if judged else None,
            **({"streaming_accuracy": float(np.mean(self._seen))} if self._seen else {}),
            "latency_ms": {"p50": float(p50), "p95": float(p95), "p99": float(p99)},
            "payload_kbytes": float(np.mean(self._payload_bytes or [0.0])) / 1e3,
            "energy_j": float(np.mean(self._energy_j or [0.0])),
        }

    def table(self, title: str) -> Table:
        """The figures for people."""
        figures = self.figures()
        table = Table(title=title, title_justify="left", show_header=False)
        latency = figures["latency_ms"]
        rows = {
            "frames": f"{figures['frames']}",
            "status": ", ".join(f"{count} {name}" for name, count in figures["status"].items()),
            "deadline met": f"{figures['slo_attainment']:.1%}",
            "latency p50 / p95 / p99": " / ".join(f"{latency[p]:.1f}" for p in ("p50", "p95", "p99")) + " ms",
            "accuracy of answers": _known(figures["accuracy"], "{:.1%}"),
            **self._seen_row(figures),
            "right answers on time": _known(figures["goodput_fps"], "{:.2f} per second"),
            "payload per frame": f"{figures['payload_kbytes'] * 1e3:.0f} bytes",
            "energy per frame": f"{figures['energy_j'] * 1e3:.1f} mJ (modelled)",
            "utility per frame": _known(figures["utility"], "{:.4f}"),
        }
        for name, text in rows.items():
            table.add_row(name, text)
        return table

    def _seen_row(self, figures: dict[str, Any]) -> dict[str, str]:
        return {"streaming accuracy": f"{figures['streaming_accuracy']:.1%}"} if self._seen else {}


def _known(figure: float | None, form: str) -> str:
    return "not known: these frames have no truth" if figure is None else form.format(figure)
