"""The summary of a run: the metrics of one device's outcomes, as a table and as JSON, in constant memory.

The metrics are those of ``controller.metrics``. Outcomes are added to sums in small groups; percentiles come from a
histogram, with an error of at most 0.5 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table

from controller.histogram import LogHistogram
from controller.metrics import (
    PERCENTILES,
    STREAMING,
    SUMS,
    Frames,
    answered_on,
    episode_sums,
    known,
    ratios,
    run_as,
)
from controller.records import STATUSES, Outcome
from controller.reuse import REASONS
from controller.streaming import Stream

#: Number of outcomes that are added to the sums together. One by one would take ten times as long.
CHUNK = 64
ABSENT = "-"
NO_NOTES: Mapping[str, Mapping[str, float | None]] = MappingProxyType({})
NO_TEXTS: Mapping[str, str] = MappingProxyType({})


class RunSummary:
    """A sink that owns the sums of a run. Outcomes arrive in the order in which frames end.

    ``stream`` computes streaming accuracy; None leaves that metric out. ``interval_s`` is the capture period; if
    None, the camera time is measured from the first to the last capture."""

    def __init__(
        self,
        stream: Stream | None = None,
        interval_s: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._stream, self._interval_s, self._clock = stream, interval_s, clock
        self._waiting: list[Outcome] = []  # not yet in the sums
        self._seen: list[float] = []  # their streaming scores
        self._sums = dict.fromkeys(SUMS, 0.0)
        self._message_bytes = 0  # of requests, with everything around their payloads
        self._status = np.zeros(len(STATUSES), np.int64)
        self._latency_s = LogHistogram()
        self._first_s, self._last_s = math.inf, -math.inf  # captures

    def add(self, outcome: Outcome) -> None:
        captured_s = self._clock() - outcome.latency_ms / 1e3
        self._first_s, self._last_s = min(self._first_s, captured_s), max(self._last_s, captured_s)
        seen = None if self._stream is None else self._stream.add(outcome)
        self._seen.append(math.nan if seen is None else seen)
        self._message_bytes += outcome.uplink_bytes
        self._waiting.append(outcome)
        if len(self._waiting) == CHUNK:
            self._fold()

    def close(self) -> None:
        """Nothing to do: the figures stay available."""

    def _fold(self) -> None:
        if not self._waiting:
            return
        frames = replace(
            Frames.from_outcomes(self._waiting, self._interval_s or 0.0), streaming=np.array(self._seen, dtype=float)
        )
        for name, total in episode_sums(frames).items():
            self._sums[name] += float(total[0])
        self._status += np.bincount(frames.status, minlength=len(STATUSES))
        self._latency_s.add(frames.latency_s[frames.answered])
        self._waiting, self._seen = [], []

    @property
    def frames(self) -> int:
        return int(self._status.sum()) + len(self._waiting)

    def figures(self) -> dict[str, Any]:
        """JSON-able metrics, with the keys of ``controller.metrics``. None: no such frame, or no ground truth."""
        self._fold()
        sums = {name: np.asarray(total) for name, total in self._sums.items()}
        sums["camera_s"] = np.asarray(self._camera_s())
        counted = zip(STATUSES, self._status.tolist(), strict=True)
        metrics = {name: known(float(figure)) for name, figure in ratios(sums).items()}
        if self._stream is None:
            del metrics[STREAMING]
        return {
            "frames": self.frames,
            "status": {status.value: count for status, count in counted if count},
            **metrics,
            "run_as": run_as(sums),
            "answered_on": answered_on(sums),
            "latency_ms": {name: _ms(self._latency_s.percentile(at)) for name, at in PERCENTILES.items()},
        }

    def _camera_s(self) -> float:
        if self._interval_s is not None:
            return self.frames * self._interval_s
        if self.frames < 2:
            return 0.0
        return (self._last_s - self._first_s) * self.frames / (self.frames - 1)  # the last frame's interval too

    def table(
        self,
        title: str,
        link: str = "",
        source: str = "",
        shortcuts: Mapping[str, Mapping[str, float | None]] = NO_NOTES,
        oversight: Mapping[str, str] = NO_TEXTS,
    ) -> Table:
        """The figures for people. ``link``, ``source``, each of the shortcuts and of the texts of ``oversight`` are
        rows of the table unless they are empty."""
        table = Table(title=title, title_justify="left", show_header=False)
        for name, text in _rows(self.figures(), self._message_bytes, link, source).items():
            table.add_row(name, text)
        for name, notes in shortcuts.items():
            table.add_row(name, ", ".join(note_text(note, figure) for note, figure in notes.items()))
        for name, text in oversight.items():
            table.add_row(name, text)
        return table


def _rows(figures: dict[str, Any], message_bytes: int, link: str, source: str) -> dict[str, str]:
    if not figures["frames"]:
        rows = {"frames": "no frame was captured", "link": link, "source": source}
        return {name: text for name, text in rows.items() if text}
    latency = figures["latency_ms"]
    parts = ("in time", *(reason.value for reason in REASONS), "late", "dropped")
    keys = {name: f"{name.replace(' ', '_')}_frac" for name in parts}
    shares = {name: percent(figures[key]) for name, key in keys.items() if key in figures}
    rows = {
        "frames": f"{figures['frames']}: " + ", ".join(f"{share} {name}" for name, share in shares.items()),
        "deadline met": f"{percent(figures['slo_attainment'])} of the frames that were run or dropped",
        "answered by": answered_text(figures["answered_on"]),
        "link": link,
        "source": source,
        "latency p50 / p95 / p99": " / ".join(number(latency[p], ".1f") for p in PERCENTILES)
        + " ms, capture to answer",
        "goodput": number(figures["goodput_fps"], ".2f") + " frames in time per second",
        "accuracy in time": percent(figures["accuracy"]),
        "accuracy of reused answers": percent(figures["reused_accuracy"]),
        "payload per frame": _payload_text(figures, message_bytes),
        "energy per frame": number(figures["energy_j"], ".4f") + " J (modelled)",
        "utility per frame": number(figures["utility"], ".4f"),
    }
    if figures.get(STREAMING) is not None:
        rows["streaming accuracy"] = percent(figures[STREAMING]) + ", what a viewer sees at each capture"
    return {name: text for name, text in rows.items() if text and text != ABSENT}


def _payload_text(figures: dict[str, Any], message_bytes: int) -> str:
    """Mean bytes per frame, of payloads and of the whole messages that carry them."""
    if figures["payload_kbytes"] is None:
        return ABSENT
    payload = bytes_text(1e3 * figures["payload_kbytes"])
    whole = f", {bytes_text(message_bytes / figures['frames'])} with the rest of the message" if message_bytes else ""
    return payload + whole


def bytes_text(count: float) -> str:
    """Bytes for people: whole ones below 1 kB (1000 bytes)."""
    return f"{count:.0f} B" if round(count) < 1000 else f"{count / 1e3:.2f} kB"


def answered_text(shares: Mapping[str, float] | None) -> str:
    """Shares of the answers in one line, the largest first."""
    if shares is None:
        return "no frame was answered"
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {percent(share)}" for name, share in ordered if share)


def link_text(counts: Mapping[str, Any], endpoint: str, *, any_frame: bool = True) -> str:
    """One line about the link to the MEC over the run; of several MECs, with what each answered and how long it was up.
    Counts that are not known may be missing. ``any_frame``: a frame was captured."""
    if refused := counts.get("refused"):
        return f"refused by {endpoint}: {refused}"
    trouble = counts.get("trouble")
    if counts.get("welcomed") is False:
        why = f" ({trouble})" if trouble else ""
        return f"no MEC was met at {endpoint}{why}" + (": every frame was answered on the device" if any_frame else "")
    parts = _link_parts(counts)
    if mecs := counts.get("mecs"):
        if switches := counts.get("switches"):
            parts.append(f"changed between MECs {_times(switches)}")
        parts += [_mec_text(mec) for mec in mecs]
    elif trouble:
        parts.append(f"not there at the end: {trouble}")
    return ", ".join(parts)


def _link_parts(counts: Mapping[str, Any]) -> list[str]:
    """How long a link was up, and how often it was lost."""
    up, lost, faults = counts.get("up_frac"), counts.get("link_downs", 0), counts.get("peer_faults", 0)
    parts = [] if up is None else [f"up {percent(up)} of the time"]
    if lost or counts.get("welcomed"):
        parts.append(f"lost {_times(lost)}" if lost else "never lost")
    return parts + ([f"{faults} protocol errors"] if faults else [])


def _mec_text(mec: Mapping[str, Any]) -> str:
    """One of several MECs: what it answered, and its link."""
    notes = _link_parts(mec) + [text for text in (mec.get("refused") or mec.get("trouble"),) if text]
    return f"{mec['mec']} answered {mec['answered']}" + (f" ({', '.join(notes)})" if notes else "")


#: Notes of shortcuts that are no plain numbers, and how they are shown.
_NOTES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("hits", "verified", "filtered", "not_looked_up"), "{:.0f} frames")
    | {"agreement": "{:.1%}", "kilobytes": "{:.0f} kB"}
)


def note_text(name: str, figure: float | None) -> str:
    """One note of a shortcut with its unit; a dash for what was not measured."""
    shown = "-" if figure is None else _NOTES.get(name, "{:.4g}").format(figure)
    return shown if shown.endswith("kB") else f"{name.replace('_', ' ')} {shown}"


def source_text(notes: Mapping[str, float]) -> str:
    """One line about problems of the source, from its counts (``Source.notes``); "" without problems."""
    unreadable, missing, losses = (int(notes.get(name, 0)) for name in ("unreadable", "missing", "losses"))
    parts = [f"unreadable pictures: {unreadable}"] if unreadable else []
    parts += [f"missing frames: {missing}"] if missing else []
    parts += [f"lost {_times(losses)}, for {notes.get('away_s', 0.0):.1f} s in all"] if losses else []
    return ", ".join(parts)


def percent(share: float | None, absent: str = ABSENT) -> str:
    """A share of 1 as per cent, or ``absent`` for None."""
    return absent if share is None else f"{100 * share:.1f} %"


def number(figure: float | None, form: str, absent: str = ABSENT) -> str:
    """A figure in a format such as ".2f", or ``absent`` for None."""
    return absent if figure is None else f"{figure:{form}}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
