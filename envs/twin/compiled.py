"""Compiles the twin with numba, keeps what it compiled, and says in one line what is in the way.

The twin is plain Python on one environment. ``rules`` names the modules whose functions compiled code may call; nothing
in them knows of it. ``compiled`` makes the few functions with the loop over environments, which Python calls, and keeps
the plain one as ``plain``: the tests run the same source uncompiled.

numba looks only at the file of a function to see whether what it kept is still valid. So the folder is named after all
sources that may enter.
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
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import controller.controllers.scalar
import controller.fallback
import controller.features.scalar
import controller.loads
import controller.packets
import controller.timeline
import controller.waiting
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
            f"the twin needs numba {wanted} or newer, which cannot be imported ({error}); "
            "install it with: pip install 'PATH_OF_THE_CHECKOUT[train]'"
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
        for function in list(vars(module).values()):
            if inspect.isfunction(function) and function.__module__ == module.__name__ and function not in _inlined:
                rule(function)


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


class compiled:
    """A function that Python calls and that runs compiled, without holding the interpreter's lock."""

    def __init__(self, plain: Callable[..., None]) -> None:
        self.plain, self.__doc__ = plain, plain.__doc__
        self._dispatcher: Any = None
        self._entry: Callable[..., None] = plain
        self._tables: Any = None

    def __call__(self, tables: Any, *arguments: Any) -> None:
        """``tables`` are those of a twin, whose arguments have the same types in every call.

        So their types are looked at once, which would take 4 us of every call.
        """
        if tables is not self._tables:
            with _preparing:
                self._prepare(tables, *arguments)
        self._entry(tables, *arguments)

    def _prepare(self, *arguments: Any) -> None:
        """Compile, or load what was compiled before."""
        types = tuple(map(numba.typeof, arguments))
        if self._dispatcher is None:
            with _kept_in(_folder()):
                self._dispatcher = numba.njit(cache=True, nogil=True, **_OPTIONS)(self.plain)
        if types not in self._dispatcher.overloads:
            with nullcontext() if self._is_kept() else _once():
                self._dispatcher.compile(types)
        self._entry, self._tables = self._dispatcher.overloads[types].entry_point, arguments[0]

    def _is_kept(self) -> bool:
        """Whether it was compiled before: to load that takes a moment only."""
        return any(_folder().rglob(f"*.{self.plain.__name__}-*.nbi"))


@contextmanager
def _once() -> Iterator[None]:
    """One of several processes compiles; the others wait, and then load what it kept."""
    with (_folder() / ".lock").open("w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        with _announced():
            yield


@contextmanager
def _announced() -> Iterator[None]:
    """Say once that something is compiled, if it takes long."""
    timer = threading.Timer(_PATIENCE_S, _announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@cache
def _announce() -> None:
    """Once in a process."""
    print("compiling the twin, once, about 20 s", file=sys.stderr, flush=True)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Let numba keep compiled code in this folder."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


@cache
def _folder() -> Path:
    """Where compiled code is kept: below NUMBA_CACHE_DIR or the user's cache, or else until the process ends."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folder = (Path(chosen) if chosen else cache_dir() / "compiled") / _digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or error
        print(f"cannot keep compiled code in {folder.parent} ({reason}); it is compiled in every run", file=sys.stderr)
        folder = Path(tempfile.mkdtemp(prefix="mecpilot-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _digest() -> str:
    """Of every source file whose functions or constants are compiled in."""
    found = hashlib.sha256()
    envs = Path(__file__).parent.parent
    for room in (Path(controller.timeline.__file__).parent, envs / "twin", envs / "search"):
        for file in sorted(room.rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


rules(
    controller.packets,
    controller.timeline,
    controller.fallback,
    controller.features.scalar,
    controller.controllers.scalar,
    controller.loads,
    controller.waiting,
)
