"""Functions of the user's own, given as ``file.py:function`` on a command line: decoders and scorers.

A bundle never holds code. It states the name and the SHA-256 of the file, and a process that needs the function is
given the file by the user. Nothing is imported because a bundle says so.
"""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from controller.errors import UsageError
from runtime.decoders.base import Decoder, Floats, Size
from runtime.files.reading import read_bounded
from runtime.models.packing import Shapes
from runtime.plug_ins import in_a_line

_MOST_BYTES = 4 << 20


class Code(Protocol):
    """What a bundle states of a function that it does not hold."""

    @property
    def file(self) -> str:
        """Name of its file."""
        ...

    @property
    def function(self) -> str:
        """Its name."""
        ...

    @property
    def sha256(self) -> str:
        """Digest of its file."""
        ...


#: Functions that were given to this process, by digest of the file and name.
_given: dict[tuple[str, str], Callable[..., Any]] = {}
_references: dict[tuple[str, str], str] = {}


def give(reference: str) -> tuple[str, str, str]:
    """Import the function that the user names as ``file.py:function``; name of the file, of the function, digest.

    UsageError when there is no such file or function, or its code fails.
    """
    path, _, function = reference.rpartition(":")
    if not path.endswith(".py") or not function.isidentifier():
        raise UsageError(f"got {reference!r}; expected a Python file and a function in it, as file.py:function")
    try:
        source = read_bounded(Path(path), _MOST_BYTES)
    except OSError as error:
        raise UsageError(f"{reference}: {error.strerror or error}; expected a Python file that can be read") from None
    digest = hashlib.sha256(source).hexdigest()
    if (digest, function) not in _given:
        _given[digest, function] = _function(path, function)
        _references[digest, function] = f"{Path(path).resolve()}:{function}"
    return Path(path).name, function, digest


def give_all(*references: str | None) -> None:
    """Import what the user names, if anything; see `give`."""
    for reference in references:
        if reference is not None:
            give(reference)


def given(code: Code, option: str) -> Callable[..., Any]:
    """The function that a bundle states; UsageError, with the option that gives it, if it was not given here."""
    found = _given.get((code.sha256, code.function))
    if found is None:
        raise UsageError(
            f"the bundle needs the function {code.function} of {code.file} (sha256 {code.sha256[:12]}...), which a "
            f"bundle does not hold; give the file with {option} {code.file}:{code.function}"
        )
    return found


def given_references() -> tuple[str, ...]:
    """Everything that was given to this process, as another process on this machine can be given it."""
    return tuple(_references.values())


def given_options() -> list[str]:
    """The same as options of a command: it does not matter which option gives a function."""
    pairs = zip(("--decode", "--scorer"), _references.values(), strict=False)
    return [word for pair in pairs for word in pair]


def _function(path: str, name: str) -> Callable[..., Any]:
    try:
        found = runpy.run_path(path).get(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - any error of the user's file is reported in one line
        raise UsageError(f"{path} cannot be imported: {in_a_line(error)}") from None
    if not callable(found):
        raise UsageError(f"{path} has no function {name}; expected one with that name, as file.py:function")
    function: Callable[..., Any] = found
    return function


class GivenDecoder(Decoder):
    """A decoder that the user wrote: ``function(outputs, size)``, with the contract of `Decoder.decode`."""

    name: ClassVar[str] = "the given function"
    expected: ClassVar[str] = "what it was written for"

    def __init__(self, function: Callable[[Sequence[Floats], Size], Any], label: str) -> None:
        self._function, self._label = function, label

    def fits(self, shapes: Shapes) -> bool:
        return True

    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        found: Floats = self._function(outputs, size)
        return found

    def __str__(self) -> str:
        return self._label
