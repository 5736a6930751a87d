"""Read a configuration file: TOML in, the tree out. A file that is not valid is refused in one line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from controller.errors import UsageError
from runtime.config.rules import check_rules
from runtime.config.settings import Setting, settings
from runtime.config.tree import Config

_MOST_BYTES = 1_000_000
_WAY_OUT = "`mecpilot config show` prints a valid one"


def load_config(path: Path) -> Config:
    """The tree with the values of a file; UsageError in one line when the file is not valid."""
    try:
        config = config_of(_read(path))
        check_rules(config)
    except UsageError as error:
        raise UsageError(f"config file {path}: {error}") from None
    return config


def config_of(tables: dict[str, Any]) -> Config:
    """The tree with the values of nested mappings; UsageError when one does not fit."""
    types = get_type_hints(Config)
    for name, table in tables.items():
        if name not in types:
            raise _unknown_section(name, table)
        if not isinstance(table, dict):
            raise UsageError(f"{name} = {table!r}; expected a section: [{name}] and its keys below")
    return Config(**{name: types[name](**_section_values(name, table)) for name, table in tables.items()})


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UsageError(f"larger than {_MOST_BYTES} bytes; {_WAY_OUT}")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"{error.strerror}; {_WAY_OUT}") from None
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise UsageError(f"not TOML ({error}); {_WAY_OUT}") from None


def _section_values(section: str, table: dict[str, Any]) -> dict[str, Any]:
    known = {setting.key: setting for setting in settings(section)}
    for key in table:
        if key not in known:
            raise UsageError(f"unknown key {key!r} in [{section}]; {_nearest(key, tuple(known))}")
    return {key: _value(known[key], value) for key, value in table.items()}


def _value(setting: Setting, value: Any) -> Any:
    try:
        return setting.convert(value)
    except UsageError as error:
        raise UsageError(f"[{setting.section}] {setting.key} = {error}") from None


def _unknown_section(name: str, value: Any) -> UsageError:
    if not isinstance(value, dict):
        homes = [f"[{setting.section}]" for setting in settings() if setting.key == name]
        hint = f"expected it in {' or '.join(homes)}" if homes else "expected keys in sections only"
        return UsageError(f"unknown key {name!r} outside of any section; {hint}")
    return UsageError(f"unknown section [{name}]; {_nearest(name, Config.__struct_fields__)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(known)}"
