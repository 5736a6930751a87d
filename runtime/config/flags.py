"""Make the flags of a command from sections of the configuration tree, and put them on top of a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from controller.errors import UsageError
from runtime.config.load import load_config
from runtime.config.rules import check_rules
from runtime.config.sections.fields import MAX_FLOAT, MAX_INT
from runtime.config.settings import Setting, settings
from runtime.config.tree import Config

_CONFIG_HELP = (
    "TOML file with settings; flags override it. Without this option no file is read. "
    "`mecpilot config show` prints one."
)


#: Shown beside a flag; short, because it takes the room of the sentence.
_METAVARS = {bool: "", str: "TEXT", Path: "PATH", int: "COUNT", float: "NUMBER"}


def takes(
    *sections: str, notes: Mapping[str, str] | None = None
) -> Callable[[Callable[[Config], int]], Callable[..., int]]:
    """A command with ``--config`` and one flag per field of the sections, handed to a function of a Config.

    ``notes`` are further sentences of help, by flag: what only other rooms know, such as the names of workloads.
    """
    known = settings(*sections)
    more = notes or {}

    def command_of(function: Callable[[Config], int]) -> Callable[..., int]:
        def command(config: str | None = None, **given: Any) -> int:
            return function(effective(config, known, given))

        parameters = [_config_parameter(), *(_parameter(setting, more.get(setting.flag, "")) for setting in known)]
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return command_of


def effective(path: str | None, known: tuple[Setting, ...], given: Mapping[str, Any]) -> Config:
    """Defaults, then the file, then the flags; None is a flag that was not given."""
    config = Config() if path is None else load_config(Path(path))
    chosen = {setting.flag: value for setting in known if (value := _given(setting, given)) is not None}
    cleared = {other for flag, value in chosen.items() for other in _contradicted(flag, value)}
    for setting in known:
        if setting.flag in chosen:
            config = _with(config, setting, _converted(setting, chosen[setting.flag]))
        elif setting.flag in cleared:
            config = _with(config, setting, setting.default)
    check_rules(config)
    return config


def _given(setting: Setting, given: Mapping[str, Any]) -> Any:
    """The value of a flag, or None. A flag that may be repeated gives a list: one value stands for itself."""
    value = given.get(setting.parameter)
    if not setting.repeated or not isinstance(value, list | tuple):
        return value
    return (value[0] if len(value) == 1 else list(value)) if value else None


def _contradicted(flag: str, value: Any) -> tuple[str, ...]:
    """Flags whose values in the file make no sense beside a flag that was given."""
    if flag == "--decision":
        return "--controller", "--policy"
    if flag == "--controller":
        return ("--decision",) if value == "ppo" else ("--decision", "--policy")
    if flag == "--plain":
        return "--key", "--mec-key", "--allow"
    if flag in ("--key", "--mec-key", "--allow"):
        return ("--plain",)
    if (flag, value) in (("--cache", "0"), ("--filter", "off")):  # switched off: its other settings are in no use
        return tuple(setting.flag for setting in settings(flag.removeprefix("--")) if setting.flag != flag)
    return ()


def _with(config: Config, setting: Setting, value: Any) -> Config:
    """The configuration with another value of one setting."""
    section = msgspec.structs.replace(getattr(config, setting.section), **{setting.key: value})
    return msgspec.structs.replace(config, **{setting.section: section})


def _converted(setting: Setting, value: Any) -> Any:
    """The value of a flag in the type of its field; numbers arrive as text."""
    try:
        return setting.convert(_as_number(setting, value))
    except UsageError as error:
        raise UsageError(f"{setting.flag} {error}") from None


def _as_number(setting: Setting, value: Any) -> Any:
    """The text as the number that the field takes; any other value as it is."""
    if not isinstance(value, str) or setting.kind not in (int, float):
        return value
    try:
        return setting.kind(value)
    except ValueError:
        raise setting.refusal(value) from None


def _parameter(setting: Setting, note: str) -> inspect.Parameter:
    names = f"{setting.flag}/{setting.off}" if setting.off else setting.flag
    option = typer.Option(
        names,
        help=" ".join(filter(None, (setting.sentence, _default_text(setting), _range_text(setting), note))),
        metavar=_metavar(setting),
        rich_help_panel=setting.section,
        show_default=False,
    )
    kind: Any = bool if setting.kind is bool else list[str] if setting.repeated else str
    return _keyword(setting.parameter, Annotated[kind | None, option])


def _metavar(setting: Setting) -> str | None:
    if setting.choices:
        return "|".join(setting.choices)
    return _METAVARS[setting.kind]


def _range_text(setting: Setting) -> str:
    """The limits, where they are not those of a library."""
    if setting.least is None or setting.most in (None, MAX_INT, MAX_FLOAT):
        return ""
    return f"From {setting.least:g} to {setting.most:.12g}."


def _default_text(setting: Setting) -> str:
    if setting.default is None or setting.kind is bool:
        return ""
    shown = f"{setting.default:.12g}" if isinstance(setting.default, float) else setting.default
    return f"Default: {shown}."


def _config_parameter() -> inspect.Parameter:
    return _keyword("config", Annotated[str | None, typer.Option("--config", metavar="PATH", help=_CONFIG_HELP)])


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
