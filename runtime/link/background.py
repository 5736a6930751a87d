"""Runs calls that may block for long, such as a name lookup, on separate threads."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_EVERY_S = 0.05
_ABANDON_WAIT_S = 0.7


class Background(Generic[T]):
    """Runs one call at a time without blocking its caller, who takes the result later. The call must not raise."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._answers: deque[T] = deque(maxlen=1)
        self._thread: threading.Thread | None = None

    @property
    def asked(self) -> bool:
        """Whether a call is running."""
        return self._thread is not None and self._thread.is_alive()

    def ask(self) -> None:
        """Start the call, unless it is running."""
        if self.asked:
            return
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> T | None:
        """The newest result, once; None if there is no new one."""
        return self._answers.popleft() if self._answers else None

    def _run(self) -> None:
        self._answers.append(self._call())


class Ahead:
    """Work that runs on a thread before its result is needed. ``wait`` raises its error."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, stopping: Callable[[], bool]) -> None:
        """Return when the work is done, or when ``stopping`` returns true."""
        while self._thread.is_alive() and not stopping():
            self._thread.join(_LOOK_EVERY_S)
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop the thread between two of its calls: a thread inside a C++ library would abort the process at its end.
        One that does not return from its call within ``_ABANDON_WAIT_S`` is left running."""
        ident = self._thread.ident
        if self._thread.is_alive() and ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit))
            self._thread.join(_ABANDON_WAIT_S)

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - raised by ``wait``
            self._error = error
