"""Read and write tuning files: the tunables of the classical controllers that `mecpilot tune` found.

mecpilot ships one file per workload, tuned on the built-in training traces. Names and types are checked when a file is
read; ``controller.controllers.registry`` interprets the values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from controller.controllers.registry import CONTROLLER_NAMES, TUNABLE_KEYS
from controller.costs import CostTable
from controller.errors import UsageError, unknown_name
from controller.records import Decision
from runtime.files.atomic import write_whole
from runtime.files.provenance import GIVEN, SHIPPED, Used, used
from runtime.files.reading import read_bounded
from runtime.files.shipped import shipped_dir

SHIPPED_DIR = shipped_dir("profiles")

Tunings = dict[str, dict[str, Any]]


class TuningFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a tuning file."""

    workload: str
    traces: tuple[str, ...]  # that the controllers were tuned on
    episodes: int
    default_utility: dict[str, float]  # mean utility of each controller on them, untuned
    utility: dict[str, float]  # mean utility with these tunables
    controllers: Tunings
    made_with: dict[str, Any] = {}  # profile, bundle and revision; empty in files of older versions


class _Tunables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Types of all tunables; ``controller.controllers.registry`` says which controller has which."""

    kind: str = ""
    window: int = 1
    margin: float = 1.0
    recovery_s: float | None = None
    headroom_frac: float = 0.0
    keep_pace: bool = True
    penalty: float = 0.0
    hazard: float = 0.0
    threshold: float = 0.0
    latency_weight: float = 0.0
    states: dict[str, Any] | None = None
    device_margin: float = 1.0
    horizon: int = 0
    predictor: dict[str, Any] | None = None
    decision: Decision | None = None
    base: str = ""
    estimate: str = ""
    map: dict[str, dict[str, Any]] | None = None
    alpha: float = 0.0
    memory: float | None = None
    ridge: float = 1.0
    noise: float = 1.0


#: Tunables of earlier versions that are gone, and the value at which they did nothing.
_GONE: dict[str, dict[str, Any]] = {"linucb": {"forced": None}}
#: The name of greedy-oracle in files of earlier versions.
_OLD_ORACLE = "hindsight"


def shipped_path(workload: str) -> Path:
    """Path of the tuning file that mecpilot ships for a workload; the file may not exist."""
    return SHIPPED_DIR / f"{workload}_tuning.json"


def load_tunings(workload: str, path: Path | None = None) -> Tunings:
    """Tunables by controller, from the given file or else the shipped one; {} without a file: the defaults apply.

    UsageError when the given file cannot be read or belongs to another workload.
    """
    chosen = path or shipped_path(workload)
    if path is None and not os.path.isfile(chosen):
        return {}
    try:
        found = msgspec.json.decode(read_bounded(chosen), type=TuningFile)
        for name, tuning in found.controllers.items():
            _take_out_gone(name, tuning)
            _check(name, tuning)
    except OSError as error:
        raise UsageError(f"tuning file {chosen}: {error.strerror}; `mecpilot tune --out FILE` makes one") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, UsageError) as error:
        raise UsageError(f"tuning file {chosen}: {error}; expected what `mecpilot tune --out FILE` writes") from None
    if found.workload != workload:
        raise UsageError(f"tuning file {chosen} is for {found.workload!r}; expected one for {workload!r}")
    return found.controllers


def used_tuning(workload: str, path: Path | None = None) -> Used | None:
    """Provenance of the tuning that ``load_tunings`` would read; None without a file."""
    if path is not None:
        return used(path, GIVEN)
    shipped = shipped_path(workload)
    return used(shipped, SHIPPED) if shipped.is_file() else None


def _take_out_gone(name: str, tuning: dict[str, Any]) -> None:
    """Take tunables out of a file of an earlier version that did nothing. UsageError for one that did something."""
    for key, without in _GONE.get(name, {}).items():
        if (value := tuning.pop(key, without)) != without:
            raise UsageError(f"got {key} {value} for {name}, which this version does not have: tune it again")


def _check(name: str, tuning: dict[str, Any]) -> None:
    if name == _OLD_ORACLE:
        raise UsageError(f"got controller {name}; expected its new name, greedy-oracle: rename the key")
    if name not in CONTROLLER_NAMES:
        raise unknown_name("controller", name, CONTROLLER_NAMES)
    for key in tuning:
        if key not in TUNABLE_KEYS[name]:
            raise unknown_name(f"tunable of {name}", key, TUNABLE_KEYS[name])
    msgspec.convert(tuning, _Tunables)


def save_tunings(path: Path, tunings: TuningFile) -> None:
    """Write a tuning file atomically, indented for people and diffs; FailureError when that is not possible."""
    data = msgspec.json.format(msgspec.json.encode(tunings), indent=1) + b"\n"
    write_whole(path, data, "tuning file", "choose another --out", make_folder=True)


def tuning_of(name: str, tunings: Mapping[str, Mapping[str, Any]], costs: CostTable) -> Mapping[str, Any]:
    """The tunables of one controller; {} when the table lacks the decision that they name.

    The decision of ``static-best`` may not be among the candidates of another profile; its default then applies.
    """
    tuning = tunings.get(name, {})
    if "decision" in tuning and msgspec.convert(tuning["decision"], Decision) not in costs.space.decisions:
        return {}
    return tuning
