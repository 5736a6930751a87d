"""The fields of the configuration tree as a list: where each stands, what it means, which values it takes."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from controller.errors import UsageError
from runtime.config.sections.fields import MAX_FLOAT, MOST_TEXTS
from runtime.config.tree import Config

_KINDS: dict[type, str] = {
    bool: "true or false",
    str: "text that is not empty",
    Path: "a path",
    int: "a whole number",
    float: "a number",
}


@dataclass(frozen=True)
class Setting:
    """One field of the tree. ``kind`` is its plain type: bool, int, float, str or Path."""

    section: str
    key: str
    type: Any
    kind: type
    default: Any
    sentence: str
    flag: str
    off: str  # flag that sets a switch to false; "" otherwise
    show: Any  # an example, for a field whose default is "not set"
    endless: bool  # infinity makes sense
    least: float | None
    most: float | None
    choices: tuple[str, ...]
    repeated: bool  # it takes one value or several: a list in a file, the flag more than once

    @property
    def parameter(self) -> str:
        """The name of the flag as a Python name."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def expected(self) -> str:
        """The values that make sense, in words."""
        if self.choices:
            return " or ".join(repr(choice) for choice in self.choices)
        return _KINDS[self.kind] + self._range + (f", or a list of up to {MOST_TEXTS}" if self.repeated else "")

    @property
    def _range(self) -> str:
        """The limits in words, with a leading space; nothing where there are none."""
        if self.least is None:
            return ""
        text = f" of {self.least:g} or more" if self.most is None else f" from {self.least:g} to {self.most:.12g}"
        return text + (", or inf" if self.endless else "")

    def convert(self, value: Any) -> Any:
        """The value in the type of the field; UsageError, which does not name the field, when it makes no sense."""
        try:
            found = msgspec.convert(value, self.type, dec_hook=as_path)
        except msgspec.ValidationError:
            raise self.refusal(value) from None
        if isinstance(found, float) and not self._makes_sense(found):
            raise self.refusal(value)
        return found

    def refusal(self, value: Any) -> UsageError:
        """What was got and what was expected."""
        return UsageError(f"{_shown(value)}; expected {self.expected}")

    def _makes_sense(self, value: float) -> bool:
        """msgspec lets NaN and infinity pass."""
        return (self.endless and value == math.inf) or (math.isfinite(value) and abs(value) <= MAX_FLOAT)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_path(wanted: type, value: Any) -> Path:
    if wanted is not Path or not isinstance(value, str | Path) or not str(value):
        raise ValueError("expected a path")
    return Path(value)


@cache
def settings(*sections: str) -> tuple[Setting, ...]:
    """The fields of the sections with these names, of all without; in the order of the tree."""
    types = get_type_hints(Config)
    return tuple(setting for name in sections or tuple(types) for setting in _of_section(name, types[name]))


def section_sentence(section: str) -> str:
    """What a section is about."""
    return inspect.getdoc(get_type_hints(Config)[section]) or ""


def _of_section(section: str, struct: type[msgspec.Struct]) -> list[Setting]:
    hints = get_type_hints(struct, include_extras=True)
    return [_setting(section, field.name, hints[field.name], field.default) for field in msgspec.structs.fields(struct)]


def _setting(section: str, key: str, hint: Any, default: Any) -> Setting:
    metas = _metas(hint)
    extra = {name: value for meta in metas for name, value in (meta.extra or {}).items()}
    plain = _plain(hint)
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    return Setting(
        section,
        key,
        hint,
        str if choices else plain,
        default,
        next(meta.description for meta in metas if meta.description),
        extra["flag"],
        extra.get("off", ""),
        extra.get("show", "FILE"),
        extra.get("endless", False),
        next((meta.ge for meta in metas if meta.ge is not None), None),
        next((meta.le for meta in metas if meta.le is not None), None),
        choices,
        _is_repeated(hint),
    )


def _metas(hint: Any) -> list[Meta]:
    """Every Meta of a type, also of the members of a union."""
    found = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    inner = hint.__origin__ if get_origin(hint) is Annotated else hint
    members = get_args(inner) if get_origin(inner) in (Union, UnionType) else ()
    return found + [meta for member in members for meta in _metas(member)]


def _is_repeated(hint: Any) -> bool:
    """Whether a type is a union with a tuple."""
    inner = hint.__origin__ if get_origin(hint) is Annotated else hint
    return get_origin(inner) in (Union, UnionType) and any(_is_tuple(member) for member in get_args(inner))


def _is_tuple(hint: Any) -> bool:
    return get_origin(hint.__origin__ if get_origin(hint) is Annotated else hint) is tuple


def _plain(hint: Any) -> Any:
    """A type without what annotates it, without None, and of one value where it takes several."""
    if get_origin(hint) is Annotated:
        return _plain(hint.__origin__)
    if get_origin(hint) in (Union, UnionType):
        (member,) = (member for member in get_args(hint) if member is not type(None) and not _is_tuple(member))
        return _plain(member)
    return hint
