"""What no option of any command can mean: numbers that are not finite, negative counts, and empty text.

``typer`` accepts inf and nan where a float is expected, and integers of any size. Options state tighter limits
themselves; these hold for every number that reaches a command. The flags of the configuration are checked by their
fields instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from controller.errors import UsageError
from runtime.config.sections.fields import MAX_FLOAT, MAX_INT


def check_arguments(arguments: Sequence[str]) -> None:
    """UsageError for an empty value: an unset variable in a script or a unit file, not the current folder."""
    for before, value in zip(("", *arguments), arguments, strict=False):
        if value == "" or (value.startswith("--") and value.find("=") == len(value) - 1):
            option = before if value == "" and before.startswith("-") else value.removesuffix("=")
            raise UsageError(f'got {option or "an argument"} ""; expected a value, or leave it out')


def check_numbers(options: Mapping[str, object]) -> None:
    """UsageError for the first number, by parameter name, that no option can mean."""
    for name, value in options.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, bool):
                continue
            if isinstance(number, int) and not 0 <= number <= MAX_INT:
                raise _refused(name, number, f"a whole number from 0 to {MAX_INT}")
            if isinstance(number, float) and not (math.isfinite(number) and abs(number) <= MAX_FLOAT):
                raise _refused(name, number, f"a finite number up to {MAX_FLOAT:g}")


def _refused(name: str, number: float, expected: str) -> UsageError:
    return UsageError(f"--{name.removesuffix('_').replace('_', '-')} {number}; expected {expected}")


def number_refusal(error: Any) -> str:
    """What was got and what was expected, where ``typer`` refuses a number; "" for its other errors."""
    option, errors = getattr(error, "param", None), getattr(error.__cause__, "errors", None)
    if option is None or errors is None:
        return ""
    kind = option.display_type(error.ctx)
    nouns = [noun for word, noun in (("int", "a whole number"), ("float", "a number")) if word in kind]
    if not nouns:
        return ""
    least, most = getattr(option, "min", None), getattr(option, "max", None)
    limits = "" if least is None else f" of {least:g} or more" if most is None else f" from {least:g} to {most:g}"
    return f"{option.opts[-1]} {errors()[0]['input']}; expected {nouns[0]}{limits}"
