"""Read scenario ranges: a workload's default range with the fields that a JSON file or a mapping overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import msgspec

from controller.errors import UsageError
from controller.scenario import ScenarioRange
from controller.utility import Utility


def read_range(path: Path, default: ScenarioRange) -> ScenarioRange:
    """The default range with the fields that a JSON file overrides; UsageError for an unknown field or a bad value."""
    return range_from(_read_object(path), str(path), default)


def range_from(overrides: Mapping[str, Any], source: str, default: ScenarioRange) -> ScenarioRange:
    """The default range with some fields replaced. Bounds are [low, high], or one number for both.

    ``source`` names the origin of the overrides in error messages.
    """
    known = [field.name for field in fields(ScenarioRange)]
    _check_names(overrides, known, source)
    values = asdict(default) | dict(overrides)
    if isinstance(weights := overrides.get("utility"), dict):
        _check_names(weights, [field.name for field in fields(Utility)], f"{source}: utility")
        values["utility"] = asdict(default.utility) | weights
    pairs = [name for name in known if isinstance(getattr(default, name), tuple)]
    single = {n: [v, v] for n, v in overrides.items() if n in pairs and isinstance(v, int | float)}
    try:
        return msgspec.convert(values | single, ScenarioRange)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {_what_is_wrong(str(error), overrides, default)}") from None
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def _what_is_wrong(error: str, overrides: Mapping[str, Any], default: ScenarioRange) -> str:
    """The field of a validation error, what it got, and what it takes."""
    name = next((name for name in overrides if re.search(rf"\$\.{name}\b", error)), None)
    if name is None:
        return error
    match getattr(default, name):
        case tuple():
            expected = "bounds [low, high], or one number for both"
        case Utility():
            expected = f"an object with numbers for some of: {', '.join(field.name for field in fields(Utility))}"
        case bool():
            expected = "true or false"
        case _:
            expected = "a whole number"
    return f"{name}: got {overrides[name]!r}; expected {expected}"


def _check_names(values: Mapping[str, Any], known: list[str], source: str) -> None:
    for name in values:
        if name not in known:
            raise UsageError(f"{source}: unknown field {name!r}; expected some of: {', '.join(known)}")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise UsageError(f"scenario file {path}: {error.strerror}; expected a JSON object") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"scenario file {path}: {error}; expected a JSON object of ScenarioRange fields") from None
