"""Where do the tunables of the classical controllers come from? A JSON file that `mecpilot tune` writes.

One is shipped per workload, tuned on the built-in training traces. It only holds plain values: what they mean and
which are legal is known to ``controller.registry``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from controller.costs import CostTable
from controller.errors import FailureError, UsageError
from controller.records import Decision

SHIPPED_DIR = Path(__file__).parent / "profiles"


class TuningFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    workload: str
    traces: tuple[str, ...]  # what it was tuned on
    episodes: int
    utility: dict[str, float]  # mean that each controller reached there
    controllers: dict[str, dict[str, Any]]  # tunables by controller


def shipped_path(workload: str) -> Path:
    """The tuning that comes with mecpilot."""
    return SHIPPED_DIR / f"{workload}_tuning.json"


def load_tunings(workload: str, path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Tunables by controller: of the given file, else of the shipped one, else none (then defaults hold)."""
    if path is None and not shipped_path(workload).is_file():
        return {}
    chosen = path or shipped_path(workload)
    try:
        found = msgspec.json.decode(chosen.read_bytes(), type=TuningFile)
    except OSError as error:
        raise UsageError(f"tuning file {chosen}: {error.strerror}; `mecpilot tune --out FILE` makes one") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"tuning file {chosen}: {error}; expected what `mecpilot tune --out FILE` writes") from None
    if found.workload != workload:
        raise UsageError(f"tuning file {chosen} is for {found.workload!r}; expected one for {workload!r}")
    return found.controllers


def save_tunings(path: Path, tunings: TuningFile) -> None:
    """Write the file, indented for people and diffs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(tunings), indent=1) + b"\n")
    except OSError as error:
        raise FailureError(f"cannot write tuning file {path}: {error.strerror}; choose another --out") from error


def tuning_of(name: str, tunings: Mapping[str, Mapping[str, Any]], costs: CostTable) -> Mapping[str, Any]:
    """A controller's tunables, as far as they fit the table.

    The one decision of ``static-best`` may be missing from the candidates of another profile; its default then holds.
    """
    tuning = tunings.get(name, {})
    if "decision" in tuning and msgspec.convert(tuning["decision"], Decision) not in costs.space.decisions:
        return {}
    return tuning
