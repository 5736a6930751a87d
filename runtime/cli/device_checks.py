"""What ``mecpilot device`` checks before it begins: the paths that its configuration names."""

from __future__ import annotations

from runtime.config.tree import Config
from runtime.files.atomic import STDOUT, check_apart, check_writable


def check_paths(config: Config) -> None:
    """UsageError for an output that cannot be written or that is also an input, before anything is touched."""
    outputs = {"--outcomes": config.outputs.outcomes, "--json": config.outputs.json, "--video": config.outputs.video}
    for option, path in outputs.items():
        check_writable(path, option)
    inputs = {
        "--policy": config.controller.policy,
        "--tuning": config.controller.tuning,
        "--uplink": config.emulation.uplink,
        "--profile": config.workload.profile,
        "--filter-empty": config.filter.empty,
        "--source": None if config.source.input == STDOUT else config.source.input,
    }
    check_apart(outputs, inputs)
