"""What a soak found: figures per fault, figures per daemon, and what must not happen but did."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.testbed.soak.account import Window
from runtime.testbed.soak.daemon import Daemon
from runtime.testbed.soak.fleet import Fleet, Settings
from runtime.testbed.soak.resources import leaks, trends
from runtime.testbed.soak.trend import Trend


@dataclass(frozen=True)
class FaultFigures:
    """All faults of one kind, and the frames that were captured from their beginning to 3 s after their end."""

    fault: str
    count: int
    frames: int
    without_outcome: int
    twice: int
    in_time_frac: float | None  # answered in time or reused; None without frames
    back_s: float | None  # median time from the end of the fault to the next answer of the MEC; None without one
    most_back_s: float | None
    not_back: int  # faults after which a device had no answer of its MEC before the next one

    @property
    def is_whole(self) -> bool:
        return not self.without_outcome and not self.twice


@dataclass(frozen=True)
class DaemonFigures:
    """One daemon over all its lives; the trends are those of the longest one."""

    name: str
    lives: int
    longest_life_s: float
    silence_s: float  # longest time without a ping of the watchdog, while it was not stopped
    trends: Mapping[str, Trend]


@dataclass(frozen=True)
class Findings:
    """Everything. ``broken`` is empty where the soak was survived."""

    settings: Settings
    lasted_s: float
    disk: str  # how it was filled
    rotations: int
    requests: int  # lines in the logs of the MECs
    torn_lines: int  # half a line, left by a process that was killed
    faults: Sequence[FaultFigures]
    daemons: Sequence[DaemonFigures]
    broken: Sequence[str]


def findings_of(fleet: Fleet, lasted_s: float) -> Findings:
    """The findings when all daemons have ended."""
    windows = fleet.account.all
    faults = [_fault_figures([one for one in windows if one.fault == name]) for name in _names(windows)]
    daemons = [_daemon_figures(daemon) for daemon in fleet.daemons()]
    return Findings(
        fleet.settings,
        lasted_s,
        fleet.disk.what,
        fleet.rotations,
        fleet.requests,
        fleet.account.torn,
        faults,
        daemons,
        [*_broken_frames(faults), *_broken_lines(fleet), *fleet.broken, *_leaking(daemons)],
    )


def _names(windows: Sequence[Window]) -> list[str]:
    return list(dict.fromkeys(window.fault for window in windows))


def _fault_figures(windows: Sequence[Window]) -> FaultFigures:
    frames = sum(window.frames for window in windows)
    back = [duration for window in windows for duration in window.back_s.values()]
    return FaultFigures(
        windows[0].fault,
        len(windows),
        frames,
        sum(window.without_outcome for window in windows),
        sum(window.twice for window in windows),
        sum(window.in_time for window in windows) / frames if frames else None,
        statistics.median(back) if back else None,
        max(back, default=None),
        sum(len(window.concerns) for window in windows) - len(back),
    )


def _daemon_figures(daemon: Daemon) -> DaemonFigures:
    longest = max(daemon.lives, key=lambda life: len(life.samples))
    times = [one.at_s for one in longest.samples]
    return DaemonFigures(
        daemon.name,
        len(daemon.lives),
        times[-1] - times[0] if times else 0.0,
        max(life.silence_s for life in daemon.lives),
        trends(longest.samples),
    )


def _broken_frames(faults: Sequence[FaultFigures]) -> list[str]:
    return [
        f"{one.fault}: {one.without_outcome} frames without an outcome, {one.twice} with two"
        for one in faults
        if not one.is_whole
    ]


def _broken_lines(fleet: Fleet) -> list[str]:
    killed = sum(life.was_killed for daemon in fleet.daemons() for life in daemon.lives)
    torn = fleet.account.torn
    return [f"{torn} half lines in the logs, of {killed} processes that were killed"] if torn > killed else []


def _leaking(daemons: Sequence[DaemonFigures]) -> list[str]:
    return [
        f"{daemon.name}: {name} grows by {found.per_hour:.2f} an hour (95 %: {found.low:.2f} to {found.high:.2f})"
        for daemon in daemons
        for name in leaks(dict(daemon.trends))
        for found in (daemon.trends[name],)
    ]
