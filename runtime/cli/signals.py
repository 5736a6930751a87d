"""What signals do to a command. Only the standard library is used, because this is loaded before everything else.

SIGTERM, SIGHUP and Ctrl-C end a command by an exception, so that every ``finally`` is run: processes that it started
end with it. In an import no exception may be raised (libraries swallow it, or print it with a traceback), so there the
process ends at once, or 20 ms later when it has children to end. Device and MEC replace this by ``stop_on_signal``:
the first signal asks for an orderly end, the next one ends the process. What follows within half a second repeats the
first: ``timeout``, a terminal that closes, and service managers send two.

SIGHUP has two meanings: "the terminal closed", which ends a command, and "reload", which is what service managers and
logrotate mean. It is a reload where no terminal was at the start, or where there is something to reload and the
terminal is still there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

TYPE_CHECKING = False  # instead of typing's, which takes milliseconds to import
if TYPE_CHECKING:
    from runtime.cli.notify import Notifier

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
#: Signals this soon after the first one repeat it.
SAME_WISH_S = 0.5
_AGAIN_S = 0.02
_IMPORTS = "importlib._bootstrap"


def end_on_signals() -> None:
    """From now on the signals that end a process end it quietly at any time. A signal that is ignored stays so."""
    for number in ENDING:
        if number is signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    sys.unraisablehook = _unraisable


def exit_at_once_on_signals(exit_code: int) -> None:
    """The command is over: a signal while the interpreter shuts down changes nothing but the wait."""
    for number in ENDING:
        signal.signal(number, lambda *_: os._exit(exit_code))


_asked = False


def _end(number: int, frame: FrameType | None) -> None:
    global _asked
    importing = _is_importing(frame)
    if _asked or (importing and not _has_children()):
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):
                os.write(2, b"mecpilot: interrupted\n")
        os._exit(128 + number)
    if importing:
        _deliver_again(number)
        return
    _asked = True
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if _IMPORTS in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _deliver_again(number: int) -> None:
    timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """An end that was raised where nothing can be raised (a destructor, a callback from C) is asked for again."""
    global _asked
    if isinstance(lost.exc_value, SystemExit | KeyboardInterrupt):
        _asked = False
        _deliver_again(signal.SIGINT if isinstance(lost.exc_value, KeyboardInterrupt) else signal.SIGTERM)
        return
    sys.__unraisablehook__(lost)


def next_signal_ends() -> None:
    """The first signal came. The next one ends the process at once, unless it only repeats the first."""
    first_s = time.monotonic()

    def end(number: int, _: FrameType | None) -> None:
        if time.monotonic() - first_s >= SAME_WISH_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


@contextmanager
def kept_through_hang_up(has_log: bool) -> Iterator[None]:
    """For the time of a block a command with a log ignores SIGHUP, until the log is open and can be reopened. When a
    terminal closes, the command still ends."""
    if not has_log or _is_terminal():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


class Stop:
    """Whether an orderly end was asked for, and what to do then."""

    def __init__(self, notifier: Notifier) -> None:
        self._asked = False
        self._then: Callable[[], None] = lambda: None
        self._reloads: list[Callable[[], None]] = []
        self._notifier = notifier
        self._had_terminal = _is_terminal()
        self._is_detached = not self._had_terminal and not _has_controlling_terminal()

    def asked(self) -> bool:
        return self._asked

    def then(self, callback: Callable[[], None]) -> None:
        """Do this when asked; at once when that was before."""
        self._then = callback
        if self._asked:
            callback()

    def on_reload(self, callback: Callable[[], None]) -> None:
        """From now on SIGHUP calls this too, even if it was ignored before. Callbacks run in the signal handler, in
        the order in which they were given: they set a flag, and leave the work to a loop or a thread."""
        self._reloads.append(callback)
        signal.signal(signal.SIGHUP, self.hang_up)

    def ask(self, number: int, _: FrameType | None = None) -> None:
        """A signal handler; the next signal ends the process."""
        self._asked = True
        next_signal_ends()
        self._notifier.stopping()
        self._then()

    def hang_up(self, number: int, _: FrameType | None = None) -> None:
        """SIGHUP: our terminal closed, which ends the command, or a reload is asked for (see the top of this file)."""
        terminal_closed = self._had_terminal and not _is_terminal()
        if terminal_closed or not (self._reloads or self._is_detached):
            self.ask(number)
            return
        with self._notifier.reload():
            for reload in self._reloads:
                reload()


def _is_terminal() -> bool:
    try:
        return os.isatty(2)
    except OSError:
        return False


def _has_controlling_terminal() -> bool:
    """Whether a terminal sends SIGHUP when it closes. Services and containers have none."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def stop_on_signal(notifier: Notifier | None = None) -> Iterator[Stop]:
    """For the time of a block SIGTERM and Ctrl-C ask for an orderly end, and SIGHUP for one or for a reload.
    ``nohup`` is respected: an ignored SIGHUP ends nothing. The ``notifier`` is told of both."""
    from runtime.cli.notify import Notifier

    stop, before = Stop(notifier or Notifier()), {number: signal.getsignal(number) for number in ENDING}
    handlers = {signal.SIGTERM: stop.ask, signal.SIGINT: stop.ask, signal.SIGHUP: stop.hang_up}
    for number, handler in handlers.items():
        if number is not signal.SIGHUP or before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield stop
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
