"""Compiles plain functions on numbers and arrays with numba, keeps what it compiled, and says what is in the way.

``rules`` names the modules whose functions compiled code may call; nothing in them knows of it. A `Compiled` function
is one that Python calls; it keeps the plain one as ``plain``: the tests run the same source uncompiled.

numba looks only at the file of a function to see whether what it kept is still valid. So the folder is named after all
sources that may enter (`Sources`).
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import inspect
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from controller.errors import UsageError
from runtime.files.fetch import cache_dir

OLDEST_NUMBA = (0, 68)
#: A compilation that takes longer is announced.
_PATIENCE_S = 1.0
_OPTIONS = {"error_model": "numpy", "_nrt": False}  # a division by zero gives infinity, and needs no check
_INNER = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "forceinline": True,
}  # nobody else calls the compiled form of a rule

F = TypeVar("F", bound=Callable[..., Any])


def _numba() -> ModuleType:
    """The compiler; UsageError where it is missing or too old."""
    wanted = ".".join(map(str, OLDEST_NUMBA))
    try:
        import numba
        import numba.extending
    except ImportError as error:
        raise UsageError(
            f"compiled code needs numba {wanted} or newer, which cannot be imported ({error}); "
            "install it with: pip install 'numba>=0.68'"
        ) from None
    if tuple(map(int, numba.__version__.split(".")[:2])) < OLDEST_NUMBA:
        raise UsageError(
            f"got numba {numba.__version__}; expected {wanted} or newer; "
            "install it with: pip install --upgrade 'numba>=0.68'"
        )
    return numba


numba = _numba()


def rules(*modules: ModuleType) -> None:
    """Let compiled code call the functions that these modules define. They stay plain functions for everybody else."""
    for module in modules:
        for function in _functions_of(module):
            if function not in _inlined:
                rule(function)


def sums_in(module: ModuleType) -> None:
    """The same for a module whose functions add up long rows; see ``sums``."""
    for function in _functions_of(module):
        sums(function)


def _functions_of(module: ModuleType) -> list[Callable[..., Any]]:
    found = vars(module).values()
    return [value for value in found if inspect.isfunction(value) and value.__module__ == module.__name__]


def rule(function: F) -> F:
    """The same for one function."""
    numba.extending.register_jitable(**_OPTIONS, **_INNER)(function)
    return function


def sums(function: F) -> F:
    """The same for one that adds up long rows: in any order, as vector instructions do."""
    numba.extending.register_jitable(fastmath={"reassoc", "nsz", "contract"}, **_OPTIONS, **_INNER)(function)
    return function


_inlined: set[Callable[..., Any]] = set()


def inlined(function: F) -> F:
    """The same, copied into its caller: a compiled function can return no tuple of records."""
    numba.extending.register_jitable(inline="always", **_OPTIONS, **_INNER)(function)
    _inlined.add(function)
    return function


_preparing = threading.Lock()  # several threads may meet a function that is not yet compiled


@dataclass(frozen=True)
class Sources:
    """What is compiled and kept together."""

    what: str  # in the line that announces a long compilation
    seconds: int  # that it takes, about
    rooms: tuple[Path, ...]  # every folder or file whose functions or constants are compiled in

    @cached_property
    def folder(self) -> Path:
        """Where compiled code is kept: below NUMBA_CACHE_DIR or the user's cache, or else until the process ends.

        numba insists on a folder that it can write to, so what a read-only one holds is copied.
        """
        chosen = os.environ.get("NUMBA_CACHE_DIR")
        folder = (Path(chosen) if chosen else cache_dir() / "compiled") / self._digest()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            return _folder_until_the_end(folder, str(error.strerror or error))
        return folder

    def _digest(self) -> str:
        found = hashlib.sha256()
        for room in (Path(__file__), *self.rooms):
            for file in sorted(room.rglob("*.py")) if room.is_dir() else [room]:
                found.update(file.read_bytes())
        return found.hexdigest()[:16]

    @cached_property
    def announce(self) -> Callable[[], None]:
        """Say once in a process that something is compiled."""
        text = f"compiling {self.what}, once, about {self.seconds} s"
        return cache(lambda: print(text, file=sys.stderr, flush=True))


def _folder_until_the_end(wanted: Path, reason: str) -> Path:
    """A folder that this process may write to, with what the wanted one holds."""
    folder = Path(tempfile.mkdtemp(prefix="mecpilot-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if any(wanted.rglob("*.nbi")):
        shutil.copytree(wanted, folder, dirs_exist_ok=True)
    else:
        _say_that_nothing_is_kept(wanted.parent, reason)
    return folder


@cache
def _say_that_nothing_is_kept(wanted: Path, reason: str) -> None:
    """Once for each folder."""
    print(f"cannot keep compiled code in {wanted} ({reason}); it is compiled in every run", file=sys.stderr)


class Compiled:
    """A function that Python calls and that runs compiled, without holding the interpreter's lock."""

    def __init__(self, sources: Sources, plain: Callable[..., Any]) -> None:
        self.plain, self.__doc__ = plain, plain.__doc__
        self._sources = sources
        self._dispatcher: Any = None
        self._entry: Callable[..., Any] = plain
        self._tables: Any = None

    def __call__(self, tables: Any, *arguments: Any) -> Any:
        """The types of all arguments must be the same in every call with the same ``tables``.

        So they are looked at only when the tables change, which would take 4 us of every call.
        """
        if tables is not self._tables:
            with _preparing:
                self._prepare(tables, *arguments)
        return self._entry(tables, *arguments)

    def _prepare(self, *arguments: Any) -> None:
        """Compile, or load what was compiled before."""
        types = tuple(map(numba.typeof, arguments))
        if self._dispatcher is None:
            with _kept_in(self._sources.folder):
                self._dispatcher = numba.njit(cache=True, nogil=True, **_OPTIONS)(self.plain)
        if types not in self._dispatcher.overloads:
            with nullcontext() if self._is_kept() else _once(self._sources):
                self._dispatcher.compile(types)
        self._entry, self._tables = self._dispatcher.overloads[types].entry_point, arguments[0]

    def always(self, *arguments: Any) -> Any:
        """Call it with arguments whose types are those of every other call; they are looked at once."""
        if self._entry is self.plain:
            with _preparing:
                self._prepare(*arguments)
        return self._entry(*arguments)

    def _is_kept(self) -> bool:
        """Whether it was compiled before: to load that takes a moment only."""
        return any(self._sources.folder.rglob(f"*.{self.plain.__name__}-*.nbi"))


@contextmanager
def _once(sources: Sources) -> Iterator[None]:
    """One of several processes compiles; the others wait, and then load what it kept."""
    with (sources.folder / ".lock").open("w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        with _announced(sources):
            yield


@contextmanager
def _announced(sources: Sources) -> Iterator[None]:
    """Say once that something is compiled, if it takes long."""
    timer = threading.Timer(_PATIENCE_S, sources.announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Let numba keep compiled code in this folder."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
