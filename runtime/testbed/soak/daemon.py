"""One daemon of a soak: a real process, started anew whenever it ended, and listened to as systemd does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.errors import FailureError
from runtime.testbed.soak.resources import Sample, sample

#: Time limit of the watchdog. Four pings come in this time.
WATCHDOG_S = 10.0
#: Longest time that a daemon may take to be ready, and to end after SIGTERM.
READY_WAIT_S, STOP_WAIT_S = 120.0, 15.0
#: A daemon that has ended by itself so often will not do better at the next start.
MOST_ENDS = 5
_TRACEBACK = b"Traceback (most recent call last)"


@dataclass
class Life:
    """One process of a daemon, from its start to its end."""

    process: subprocess.Popen[bytes]
    began_s: float  # of the monotonic clock, as all times here
    ready_s: float | None = None  # when it said that it is ready; None before
    heard_s: float = 0.0  # when it last pinged, was found stopped, or said that it is ready
    silence_s: float = 0.0  # longest time between two pings, while it was not stopped
    held_s: float = 0.0  # how long it was stopped (SIGSTOP) since it was ready
    end_s: float | None = None  # when it was told to end, or was found to have ended; None before
    was_killed: bool = False
    is_over: bool = False  # it ended, and was waited for
    samples: list[Sample] = field(default_factory=list)


class Daemon:
    """Owns the processes of one daemon, one at a time, and the socket on which they speak to their service manager.

    ``broken`` receives a line for each thing that must not happen.
    """

    def __init__(self, name: str, folder: Path, command: Callable[[], Sequence[str]], broken: list[str]) -> None:
        """``command`` gives the words after ``mecpilot`` for the next start."""
        self.name, self.lives = name, list[Life]()
        self._command, self._broken = command, broken
        self._address = folder / f"{name.replace(' ', '-')}.notify"
        self._errors = folder / f"{name.replace(' ', '-')}.err"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self._address))
        self._stands_still = False
        self._held_at_s = 0.0
        self._ends = 0  # by itself
        self._said_before = 0  # bytes of messages of earlier lives

    @property
    def life(self) -> Life:
        return self.lives[-1]

    @property
    def is_ready(self) -> bool:
        return self.life.ready_s is not None

    @property
    def worked_s(self) -> float:
        """How long the process worked since it was ready, without the time in which it was stopped."""
        life = self.life
        end_s = time.monotonic() if life.end_s is None else life.end_s
        return 0.0 if life.ready_s is None else end_s - life.ready_s - life.held_s

    def start(self) -> None:
        """Start the next process. It has no terminal, as a service has none."""
        self._drain()
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "NOTIFY_SOCKET": str(self._address),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        }
        with self._errors.open("ab") as errors:
            self._said_before = errors.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "mecpilot", *self._command()],
                env=environment,
                stdin=subprocess.PIPE,  # a MEC ends when this is closed: with the soak, however that ends
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        self._stands_still = False
        self.lives.append(Life(process, time.monotonic()))

    def kill(self) -> None:
        """``kill -9``."""
        self.life.was_killed = True
        self._note_end()
        self.life.process.kill()
        self._wait()

    def stop(self) -> None:
        """SIGTERM. The process must end in time, with exit code 0."""
        process = self.life.process
        self._note_end()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if code := process.wait(STOP_WAIT_S):
                self._broken.append(f"{self.name} ended with exit code {code} after SIGTERM; expected 0")
        if process.returncode is None:
            self._broken.append(f"{self.name} did not end within {STOP_WAIT_S:g} s after SIGTERM")
            self.kill()
        self._wait()

    def hold(self) -> None:
        """SIGSTOP."""
        self._stands_still, self._held_at_s = True, time.monotonic()
        self.life.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._end_hold()
        self.life.process.send_signal(signal.SIGCONT)

    def hang_up(self) -> None:
        """SIGHUP: reload."""
        with contextlib.suppress(ProcessLookupError):
            self.life.process.send_signal(signal.SIGHUP)

    def tick(self, now_s: float) -> bool:
        """Listen to the process. False if it has ended by itself, which must not happen. FailureError if it never
        became ready, or when it has ended by itself for the fifth time."""
        code = self.life.process.poll()
        self._listen(now_s)
        if code is not None:
            self._ended_by_itself(code)
            return False
        if not self.is_ready and now_s - self.life.began_s > READY_WAIT_S:
            raise FailureError(
                f"{self.name} was not ready within {READY_WAIT_S:g} s; start it alone to see why: "
                f"mecpilot {' '.join(self._command())}"
            )
        return True

    def take_sample(self, now_s: float) -> None:
        if self.is_ready and (found := sample(self.life.process.pid, now_s)) is not None:
            self.life.samples.append(found)

    def close(self) -> None:
        """End the process, whatever state it is in; may be called twice."""
        if self.lives and not self.life.is_over:
            self.life.process.kill()
            self._wait()
        self._socket.close()

    def check_messages(self) -> None:
        """No process may have printed a traceback."""
        if self._errors.exists() and (count := self._errors.read_bytes().count(_TRACEBACK)):
            self._broken.append(f"{self.name} printed {count} tracebacks")

    def _ended_by_itself(self, code: int) -> None:
        self._note_end()
        self._wait()
        self._ends += 1
        if not self.is_ready:
            raise FailureError(f"{self.name} ended before it was ready, with exit code {code}: {self._last_words()}")
        if self._ends >= MOST_ENDS:
            raise FailureError(
                f"{self.name} ended by itself {self._ends} times, now with exit code {code}: {self._last_words()}"
            )
        self._broken.append(f"{self.name} ended by itself, with exit code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        """The last line that the process of this life has printed."""
        with self._errors.open("rb") as errors:
            errors.seek(self._said_before)
            lines = errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def _note_end(self) -> None:
        if self.life.end_s is None:
            if self._stands_still:
                self._end_hold()
            self.life.end_s = time.monotonic()

    def _end_hold(self) -> None:
        self._stands_still = False
        if self.is_ready:
            self.life.held_s += time.monotonic() - self._held_at_s

    def _listen(self, now_s: float) -> None:
        life = self.life
        for message in self._drain():
            if life.ready_s is None and b"READY=1" in message:
                life.ready_s = life.heard_s = now_s
            if b"WATCHDOG=1" in message:
                life.heard_s = now_s
        if self._stands_still:
            life.heard_s = now_s
        silence_s = 0.0 if life.ready_s is None else now_s - life.heard_s
        if silence_s > WATCHDOG_S >= life.silence_s:
            self._broken.append(f"{self.name} sent no ping for {WATCHDOG_S:g} s; systemd would have killed it")
        life.silence_s = max(life.silence_s, silence_s)

    def _drain(self) -> list[bytes]:
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self._socket.recv(4096))
        return messages

    def _wait(self) -> None:
        process = self.life.process
        process.wait()
        self.life.is_over = True
        if process.stdin is not None:
            process.stdin.close()
