"""Tell systemd that a daemon is ready, reloads, ends, and is not stuck: the protocol of sd_notify(3).

A service of ``Type=notify`` has an address in ``$NOTIFY_SOCKET`` and, with ``WatchdogSec=``, a time limit in
``$WATCHDOG_USEC``. Elsewhere nothing is sent. Pings of the watchdog come from the loop that does the work, not from a
thread of their own: a loop that hangs sends none, and systemd restarts the service.

Nothing waits for a service manager, so that a signal handler may send too. What its full queue does not take is lost,
except READY=1, without which a start fails and a reload never ends: the loop sends that again. Before the daemon is
ready, a reload sends nothing: its READY=1 would end the start too early.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, MutableMapping

#: Pings in each time limit of the watchdog, so that one late turn of the loop is not taken for a hang.
PINGS = 4


class Notifier:
    """Speaks to the service manager, if there is one."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """``address``: a path, or @NAME for an abstract socket; "" for none. ``watchdog_s`` is the time limit of the
        watchdog, 0 without one."""
        kinds = {"@": "\0", "/": "/"}  # anything else is no kind of address that is known here
        self._address = kinds[address[0]] + address[1:] if address[:1] in kinds else ""
        self._every_s = watchdog_s / PINGS if self._address else 0.0
        self._next_s = 0.0
        self._status = ""
        self._serves = False  # from ready to stopping
        self._owes_ready = False

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Notifier:
        """The one that the service manager asks for. Its variables are removed, so that no child speaks for us."""
        address = environment.pop("NOTIFY_SOCKET", "")
        limit, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        is_ours = pid in ("", str(os.getpid()))
        return cls(address, int(limit) / 1e6 if is_ours and limit.isdigit() else 0.0)

    def ready(self, status: str) -> None:
        """The daemon serves from now on; from now on the watchdog expects pings."""
        self._status = status
        self._serves = self._owes_ready = True
        self._send_ready()

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._status = text
        self._send(f"STATUS={text}")

    @contextlib.contextmanager
    def reload(self) -> Iterator[None]:
        """For the time of a block the daemon reloads, and until the next turn of its loop. Safe in a signal handler."""
        if self._serves:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")
        try:
            yield
        finally:
            self._owes_ready = self._serves

    def stopping(self, takes_s: float = 0.0) -> None:
        """The daemon comes to its end. ``takes_s``: how long that may take, where it is longer than service managers
        wait, with or without pings."""
        self._serves = self._owes_ready = False
        longer = f"\nEXTEND_TIMEOUT_USEC={round(takes_s * 1e6)}" if takes_s else ""
        self._send(f"STOPPING=1\nSTATUS=stopping{longer}")

    def alive(self) -> None:
        """The loop made a turn. Call it often: it sends what is due, and otherwise costs a look at the clock."""
        if self._owes_ready:
            self._send_ready()
        if self._every_s and (now_s := time.monotonic()) >= self._next_s:
            self._next_s = now_s + self._every_s
            self._send("WATCHDOG=1")

    def _send_ready(self) -> None:
        self._owes_ready = False  # before it is sent: a signal in between may ask for it again
        try:
            self._send_now(f"READY=1\nSTATUS={self._status}")
        except BlockingIOError:  # its queue is full
            self._owes_ready = True
        except OSError:
            pass  # it is gone

    def _send(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._send_now(text)

    def _send_now(self, text: str) -> None:
        """Raises OSError where it cannot be sent at once."""
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_UNIX, kind) as stream:
            stream.sendto(text.encode(), self._address)
