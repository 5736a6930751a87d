"""How is something asked that may block for long, such as a name server? On a thread of its own, one at a time."""

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
    """Owns one question: whoever asks goes on at once and takes the answer later. The call must not raise."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._answers: deque[T] = deque(maxlen=1)
        self._thread: threading.Thread | None = None

    @property
    def asked(self) -> bool:
        """Whether an answer is still to come."""
        return self._thread is not None and self._thread.is_alive()

    def ask(self) -> None:
        """Begin, unless the last question still waits for its answer."""
        if self.asked:
            return
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> T | None:
        """The answer, once; None while there is none."""
        return self._answers.popleft() if self._answers else None

    def _run(self) -> None:
        self._answers.append(self._call())


class Ahead:
    """Work that is begun on a thread of its own before it is needed. An error reaches whoever waits for its end."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, stopping: Callable[[], bool]) -> None:
        """Return when it is done, or is not needed any more."""
        while self._thread.is_alive() and not stopping():
            self._thread.join(_LOOK_EVERY_S)
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """End it where it stands. A thread that is inside a library of C++ when the process ends takes it down with an
        abort, so it is stopped between two of its calls; one that does not come back from a call is left alone."""
        ident = self._thread.ident
        if self._thread.is_alive() and ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit))
            self._thread.join(_ABANDON_WAIT_S)

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._error = error
