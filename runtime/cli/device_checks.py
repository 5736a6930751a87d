"""What ``mecpilot device`` checks before it begins: the paths that its configuration names."""

from __future__ import annotations

import difflib
from pathlib import Path

from controller.controllers.registry import CONTROLLER_NAMES
from controller.errors import UsageError
from runtime.config.tree import Config
from runtime.files.atomic import STDOUT, check_apart, check_writable


def check_shadow(given: str | None) -> None:
    """UsageError for a --shadow that is neither the name of a controller nor a file."""
    if given is None or given in CONTROLLER_NAMES or Path(given).exists() or len(Path(given).parts) > 1:
        return
    if Path(given).suffix:
        return  # meant as a file, whose reader says what it lacks
    close = difflib.get_close_matches(given, CONTROLLER_NAMES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"--shadow {given}; {hint}expected a policy file, or one of: {', '.join(CONTROLLER_NAMES)}")


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
