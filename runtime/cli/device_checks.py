"""What ``mecpilot device`` checks before it begins: the paths of its configuration, and whether it can be in time."""

from __future__ import annotations

from controller.costs import CostTable
from controller.scenario import Scenario
from runtime.config.tree import Config
from runtime.files.atomic import STDOUT, check_apart, check_writable
from runtime.workloads.datasets import check_data_dir


def check_paths(config: Config) -> None:
    """UsageError for an output that cannot be written or that is also an input, before anything is touched."""
    check_data_dir(config.source.data)
    outputs = {"--outcomes": config.outputs.outcomes, "--json": config.outputs.json, "--video": config.outputs.video}
    for option, path in outputs.items():
        check_writable(path, option)
    inputs = {
        "--policy": config.controller.policy,
        "--tuning": config.controller.tuning,
        "--uplink": config.emulation.uplink,
        "--profile": config.workload.profile,
        "--source": None if config.source.input == STDOUT else config.source.input,
    }
    check_apart(outputs, inputs)


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
