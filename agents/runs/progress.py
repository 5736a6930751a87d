"""How far a training was when it wrote a checkpoint: read from the file's header, without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from controller.errors import UsageError


@dataclass(frozen=True, slots=True)
class Reached:
    """Progress of a training."""

    steps: int = 0
    goal: int = 0  # number of steps at which it ends; 0 if unknown
    rounds_left: int = 0  # remaining rounds of the warm start

    @property
    def finished(self) -> bool:
        return self.steps >= self.goal


def reached(path: Path) -> Reached:
    """Progress of the training when it wrote this checkpoint. UsageError if the file cannot be used."""
    counters = counters_of(path)
    try:
        return Reached(*(int(counters.get(name, "0")) for name in ("steps", "goal", "rounds_left")))
    except ValueError as error:
        raise refused(path, str(error)) from error


def counters_of(path: Path) -> dict[str, str]:
    """The counters of a checkpoint. UsageError if the file cannot be used."""
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}; `mecpilot train` makes one")
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise refused(path, str(error)) from error


def refused(path: Path, why: str) -> UsageError:
    """The error for a checkpoint that cannot be used."""
    return UsageError(
        f"checkpoint {path}: {why}; expected one that this version's `mecpilot train` wrote; "
        "delete it to resume from the one before, or train again"
    )
