"""The list of those whom a MEC admits: one text file, which operators edit while MECs read it.

A line is a name, a public key in Z85 and roles, such as ``camera-1 KEY device,operator``. Lines that begin with # are
comments. A name may have several keys, so that a device can change its key without a gap; all of them have the same
roles. Everybody who is listed may send requests; an operator may also deploy models and policies.

``AllowList`` is what a running MEC asks. It looks at the file at most every quarter of a second, and reads it when it
has changed. A file that cannot be read any more, or not be understood, leaves the last good list in force: a slip of an
editor locks nobody out, and admits nobody either.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from controller.errors import FailureError, UsageError
from runtime.security.key_files import PUBLIC_MODE, read_file, write_file
from runtime.security.keys import checked_name, is_key

Role = Literal["device", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
#: The list stands beside the key of its MEC, unless another file is named.
DEFAULT_NAME = "allowed.txt"
LOOK_EVERY_S = 0.25
_HEAD = "# Who may talk to this MEC: name, public key, roles. Edit it with `mecpilot keys allow` and `revoke`.\n"


@dataclass(frozen=True)
class Entry:
    """A line of the list."""

    name: str
    key: str
    roles: tuple[Role, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.key} {','.join(self.roles)}"


@dataclass(frozen=True)
class Listed:
    """What a list says: entries by key, and roles by name."""

    by_key: dict[str, Entry]
    roles: dict[str, tuple[Role, ...]]


def parse(text: str) -> Listed:
    """The list in a text; UsageError names the first line that makes no sense."""
    by_key: dict[str, Entry] = {}
    roles: dict[str, tuple[Role, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (entry := _entry(line, number)) is None:
            continue
        if entry.key in by_key:
            raise UsageError(f"line {number}: the key of {by_key[entry.key].name} again; expected each key once")
        if roles.setdefault(entry.name, entry.roles) != entry.roles:
            raise UsageError(f"line {number}: {entry.name} has other roles above; expected the same for all its keys")
        by_key[entry.key] = entry
    return Listed(by_key, roles)


def read_list(path: Path) -> Listed:
    """What a file says; UsageError if it cannot be read, or makes no sense."""
    return _parsed(path, read_file(path, "list"))


def _parsed(path: Path, text: str) -> Listed:
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"list {path}, {error}") from None


def _entry(line: str, number: int) -> Entry | None:
    """The entry in a line; None for a comment or an empty line."""
    if not line.strip() or line.startswith("#"):
        return None
    words = line.split()
    if len(words) != 3 or not is_key(words[1]):
        raise UsageError(f"line {number}: expected a name, a public key of 40 characters, and roles")
    try:
        return Entry(checked_name(words[0]), words[1], roles_of(words[2]))
    except UsageError as error:
        raise UsageError(f"line {number}: {error}") from None


def roles_of(text: str) -> tuple[Role, ...]:
    """Roles that are separated by commas; UsageError for a word that is none."""
    words = text.split(",")
    for word in words:
        if word not in ROLES:
            raise UsageError(f"role {word!r}; expected {' or '.join(ROLES)}")
    return tuple(role for role in ROLES if role in words)


# Editing -----------------------------------------------------------------------------------------------------


def allow(path: Path, name: str, key: str, roles: tuple[Role, ...] | None) -> Entry:
    """Add a key. ``roles`` hold for all keys of the name; None: those that it has, at first ``device``. UsageError if
    the key has another name."""
    with _editing(path) as lines:
        listed = _parsed(path, "".join(lines))
        found = listed.by_key.get(key)
        if found is not None and found.name != name:
            raise UsageError(f"this key is listed as {found.name}; expected that name, or revoke it first")
        entry = Entry(checked_name(name), key, roles or listed.roles.get(name, ("device",)))
        for index, line in enumerate(lines):
            own = _entry(line, index + 1)
            if own is not None and own.name == name:
                lines[index] = f"{Entry(name, own.key, entry.roles)}\n"
        if found is None:
            lines.append(f"{entry}\n")
    return entry


def revoke(path: Path, name: str, key: str | None = None) -> list[Entry]:
    """Remove the keys of a name, or one of them. UsageError if there is none."""
    gone: list[Entry] = []
    with _editing(path) as lines:
        _parsed(path, "".join(lines))
        kept = []
        for index, line in enumerate(lines):
            entry = _entry(line, index + 1)
            if entry is not None and entry.name == name and key in (None, entry.key):
                gone.append(entry)
            else:
                kept.append(line)
        if not gone:
            raise UsageError(f"{path} lists no {'such ' if key else ''}key of {name}; see `mecpilot keys show`")
        lines[:] = kept
    return gone


@contextmanager
def _editing(path: Path) -> Iterator[list[str]]:
    """The lines of the file, written back atomically at the end of the block; one editor at a time."""
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The list itself is replaced at every edit, so the lock needs a file of its own.
        with open(path.with_name(f".{path.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = read_file(path, "list") if path.exists() else _HEAD
            lines = [line + "\n" for line in text.splitlines()]
            yield lines
            write_file(path, "".join(lines), PUBLIC_MODE, overwrite=True)
    except OSError as error:
        raise FailureError(f"cannot edit {path}: {error.strerror or error}; choose another --allow") from error


# Asking ------------------------------------------------------------------------------------------------------


class AllowList:
    """The list as it is now. Owns the last good one; safe in several threads.

    UsageError when the file is not valid at the beginning. If there is no file yet, nobody is admitted until there is.
    """

    def __init__(self, path: Path, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._log, self._clock = log, clock
        self._lock = threading.Lock()
        self._seen = _signature(path)
        self._listed = Listed({}, {}) if self._seen is None else read_list(path)
        self._look_s = clock() + LOOK_EVERY_S

    def __len__(self) -> int:
        return len(self._listed.by_key)

    def name_of(self, key: str) -> str:
        """The name of a key; empty if it is not listed."""
        self.look()
        entry = self._listed.by_key.get(key)
        return "" if entry is None else entry.name

    def may(self, name: str, role: Role) -> bool:
        """Whether the owner of a name has a role."""
        self.look()
        return role in self._listed.roles.get(name, ())

    def look_now(self) -> None:
        """Read the file if it has changed since the last look."""
        with self._lock:
            self._look_s = self._clock() + LOOK_EVERY_S
            seen = _signature(self.path)
            if seen == self._seen:
                return
            self._seen = seen
            try:
                self._listed = read_list(self.path)
            except UsageError as error:
                self._log(f"{error}; the last good list ({_keys(len(self))}) stays in force")
            else:
                self._log(f"{self.path} has changed: {_keys(len(self))} {'is' if len(self) == 1 else 'are'} admitted")

    def look(self) -> None:
        """Read the file if it is time to look at it, and it has changed."""
        if self._clock() >= self._look_s:
            self.look_now()


def _keys(count: int) -> str:
    return "1 key" if count == 1 else f"{count} keys"


def _signature(path: Path) -> tuple[int, ...] | None:
    """What differs between two versions of a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode
