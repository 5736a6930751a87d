"""Runs a soak from its first process to its verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from runtime.testbed.soak.faults import Step, plan
from runtime.testbed.soak.findings import Findings, findings_of
from runtime.testbed.soak.fleet import Fleet, Settings
from runtime.testbed.soak.resources import write_samples

#: Quiet time at the end, so that what the last fault left behind is seen.
_LAST_S = 5.0

#: Takes the share of the time that has passed, and what happens now.
Tell = Callable[[float, str], None]


def soak(settings: Settings, folder: Path, tell: Tell = lambda _, __: None) -> Findings:
    """Run the daemons in ``folder``, an empty one, under faults. Their messages stay there, and ``resources.csv``.
    FailureError when they cannot be started."""
    tell(0.0, "starting")
    with Fleet(settings, folder) as fleet:
        began_s, whole_s = time.monotonic(), settings.minutes * 60.0
        for step in plan(settings.seed):
            if time.monotonic() - began_s + step.pause_s + step.lasts_s > whole_s:
                break
            fleet.run_for(step.pause_s)
            tell((time.monotonic() - began_s) / whole_s, step.fault.name)
            _cause(fleet, step)
        fleet.run_for(max(_LAST_S, began_s + whole_s - time.monotonic()))
        tell(1.0, "ending")
        fleet.end()
        write_samples(
            folder / "resources.csv", {one.name: [life.samples for life in one.lives] for one in fleet.daemons()}
        )
        return findings_of(fleet, time.monotonic() - began_s)


def _cause(fleet: Fleet, step: Step) -> None:
    pair = fleet.pairs[step.number]
    window = fleet.account.begin(step.fault.name, step.fault.concerned(fleet, pair), time.time())
    step.fault.begin(fleet, pair)
    fleet.run_for(step.lasts_s)
    step.fault.end(fleet, pair)
    fleet.run_until_ready()
    window.end_s = time.time()
