"""Print a configuration as the TOML file that would load to it, with each field's sentence above its key."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.config.settings import Setting, section_sentence, settings
from runtime.config.tree import Config

_WIDTH = 100
_HEAD = (
    "Configuration of mecpilot: `mecpilot device --config FILE`, `mecpilot mec --config FILE`. Flags override it. "
    "Above each key stand what it means, its flag, and the values that it takes. A key that is commented out is not "
    "set; its text says what happens then."
)


def as_toml(config: Config) -> str:
    """The whole tree, commented. Reading it again gives the same tree."""
    lines = _comment(_HEAD)
    for section in Config.__struct_fields__:
        lines += ["", *_comment(section_sentence(section)), f"[{section}]"]
        for setting in settings(section):
            lines += ["", *_entry(setting, getattr(getattr(config, section), setting.key))]
    return "\n".join(lines) + "\n"


def _entry(setting: Setting, value: Any) -> Iterator[str]:
    yield from _comment(setting.sentence)
    yield from _comment(f"{setting.flag}: {setting.expected}")
    if value is None:
        yield f"#{setting.key} = {_literal(setting.show)}"
    else:
        yield f"{setting.key} = {_literal(value)}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _literal(value: Any) -> str:
    """A TOML value. Strings are JSON's, which TOML shares but for one control character."""
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(one) for one in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)
