"""Whether a device can be in time on its own, said before the first frame."""

from __future__ import annotations

from controller.costs import CostTable
from controller.scenario import Scenario


def deadline_warning(costs: CostTable, scenario: Scenario) -> str:
    """One line when no local decision can meet the deadline; nothing when one can. Times are those of the profile."""
    if not len(costs.local_frontier):
        return ""
    fastest = int(costs.local_frontier[0])
    head_s = float(costs.head_s[fastest]) * scenario.device_slowdown / (1.0 - scenario.device_load_frac)
    if head_s <= scenario.deadline_s:
        return ""
    d = costs.space.decisions[fastest]
    return (
        f"warning: no local decision can meet the deadline of {scenario.deadline_s * 1e3:g} ms; the fastest, {d.model} "
        f"at {d.resolution_px} px up to exit {d.exit_branch}, takes {head_s * 1e3:.3g} ms; only the MEC can be in time"
    )
