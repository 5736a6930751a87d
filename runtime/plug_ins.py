"""What installed packages add to mecpilot by their entry points: workloads, decoders, codecs and engines.

mecpilot's own names win, and a line says which plug-in goes unused. Whatever else is wrong with a plug-in is one line
as well, once the plug-in is asked for, and the others work on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from controller.errors import FailureError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_LONGEST_REASON = 200


def warn(text: str) -> None:
    """Print a line on stderr."""
    print(f"mecpilot: {text}", file=sys.stderr)


def in_a_line(error: BaseException) -> str:
    """Type and text of an error, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]


class PlugIns:
    """The plug-ins of one kind. What is installed is looked up with each call, which takes about 10 ms."""

    def __init__(
        self,
        group: str,
        kind: str,
        installed: Callable[[], Iterable[EntryPoint]] | None = None,
        warn: Callable[[str], None] = warn,
    ) -> None:
        """``group`` of entry points; ``kind`` for messages, such as "decoder"; ``installed``: instead of packages."""
        self._kind = kind
        self._installed = installed or (lambda: _of_packages(group))
        self._warn = warn
        self._compared = False

    def names(self) -> tuple[str, ...]:
        """Of all plug-ins, also of broken ones."""
        return tuple(sorted({entry.name for entry in self._installed()}))

    def load(self, name: str) -> Any | None:
        """What the plug-in of that name provides, a class or function; None where no package has one.

        FailureError when it cannot be imported, or when two packages have one.
        """
        values = self._values(name)
        if not values:
            return None
        if len(values) > 1:
            raise FailureError(
                f"{len(values)} installed packages have a {self._kind} {name!r}: {' and '.join(values)}; expected one; "
                "uninstall the others"
            )
        with self.told(name):
            return next(iter(values.values())).load()

    @contextmanager
    def told(self, name: str) -> Iterator[None]:
        """Around code of the plug-in: FailureError in one line for whatever it raises.

        A UsageError is left in the plug-in's own words, such as what to install.
        """
        try:
            yield
        except (UsageError, FailureError):
            raise
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            raise FailureError(f"{self._called(name)} fails: {in_a_line(error)}") from None

    def check(self, name: str, made: object, *, expected: str, fits: bool) -> None:
        """FailureError unless what the plug-in made fits."""
        if not fits:
            raise FailureError(f"{self._called(name)} gave {type(made).__name__}; expected {expected}")

    def check_name(self, name: str, own: str) -> None:
        """FailureError unless the entry point has the name that its part has: files name parts by it."""
        if own != name:
            raise FailureError(f"{self._called(name)} has the name {own!r}; expected equal names")

    def warn_if_unused(self, names: Iterable[str]) -> None:
        """One line, once, for each plug-in that has one of these names, which are mecpilot's own."""
        if self._compared:
            return
        self._compared = True
        for name in sorted(frozenset(names).intersection(self.names())):
            self._warn(f"{self._called(name)} is not used: mecpilot has a {self._kind} of that name")

    def _values(self, name: str) -> dict[str, EntryPoint]:
        """A package that the search path shows twice has one plug-in."""
        return {entry.value: entry for entry in self._installed() if entry.name == name}

    def _called(self, name: str) -> str:
        return f"the plug-in of {self._kind} {name!r} ({' and '.join(self._values(name))})"


def _of_packages(group: str) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # imported here because it takes 10 ms

    return entry_points(group=group)
