"""Reloads a device's controller when asked to, such as by a signal: files are read and checked on a thread of its
own.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

from controller.errors import MecpilotError


class Reloading:
    """Owns a thread that waits for ``ask``. What ``reload`` refuses is logged, and the old controller goes on."""

    def __init__(self, reload: Callable[[], None], log: Callable[[str], None]) -> None:
        self._reload, self._log = reload, log
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="reloading", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Reload soon. Safe in a signal handler: this queue takes entries wherever it was interrupted."""
        self._asked.put(True)

    def close(self) -> None:
        """End the thread after what was asked for; may be called twice."""
        self._asked.put(False)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more and self._asked.get():
            more = self._take_rest()
            try:
                self._reload()
            except MecpilotError as error:
                self._log(f"not reloaded, the controller stays as it is: {error}")
            except Exception as error:  # noqa: BLE001 - whatever a damaged file does, the device serves on
                self._log(f"not reloaded, the controller stays as it is: {type(error).__name__}: {error}")

    def _take_rest(self) -> bool:
        """Take what else was asked for by now, which one reload serves as well; whether more may come."""
        with contextlib.suppress(queue.Empty):
            while self._asked.get_nowait():
                pass
            return False
        return True
