"""The daemons of a soak, the links between them, and their logs.

Device 1 is never ended, so that what grows in a device shows; its MEC is killed and restarted. Device 2 is killed and
restarted; its MEC is never ended. Each device reaches its MEC through a proxy of its own.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

from runtime.link.endpoint import parse_endpoint
from runtime.testbed.proxy import Proxy
from runtime.testbed.soak.account import Account, Frames
from runtime.testbed.soak.daemon import Daemon
from runtime.testbed.soak.disk import disk_for_logs
from runtime.testbed.soak.rotated_log import RotatedLog

TICK_S = 0.05
SAMPLE_EVERY_S = 1.0
ROTATE_EVERY_S = 7.0
#: A MEC process computes this many times slower than its profile, so that a machine under load can keep up.
_MEC_SLOWDOWN = 2.0


@dataclass(frozen=True)
class Settings:
    """What is soaked, and for how long."""

    minutes: float = 60.0
    seed: int = 0
    workload: str = "garments"
    controller: str = "ppo"
    fps: float = 20.0
    deadline_ms: float = 200.0
    slowdown: float = 100.0  # of the emulated devices
    failover: bool = False  # each device knows both MECs


@dataclass
class Pair:
    """A device, its MEC, and the link between them."""

    device: Daemon
    device_log: RotatedLog
    mec: Daemon
    mec_log: RotatedLog
    link: Proxy
    frames: Frames

    @property
    def daemons(self) -> tuple[tuple[Daemon, RotatedLog], ...]:
        return (self.mec, self.mec_log), (self.device, self.device_log)


class Fleet:
    """Owns every process, proxy and log of a soak; a context manager. ``broken`` lists what must not happen."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.account = Account(settings.fps)
        self.broken: list[str] = []
        self.pairs: list[Pair] = []
        self.requests = 0  # lines in the logs of the MECs
        self._folder = folder
        self._began_s, self._ended_s = math.nan, math.nan  # Unix times
        self._stack = contextlib.ExitStack()
        self._sample_s = self._rotate_s = 0.0

    def __enter__(self) -> Fleet:
        logs = self._folder / "logs"
        logs.mkdir()
        self.disk = self._stack.enter_context(disk_for_logs(logs, lambda: self._pids()))
        try:
            for number in (1, 2):
                self._add_pair(number, logs)
            for pair in self.pairs:
                pair.mec.start()
            self.run_until_ready()
            for pair in self.pairs:
                pair.link.target = _address_in(self._ready_file(pair.mec))
                pair.device.start()
            self.run_until_ready()
            self._began_s = time.time()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def daemons(self) -> list[Daemon]:
        return [daemon for pair in self.pairs for daemon, _ in pair.daemons]

    @property
    def rotations(self) -> int:
        return sum(log.rotations for pair in self.pairs for _, log in pair.daemons)

    def pair_of(self, daemon: Daemon) -> Pair:
        return next(pair for pair in self.pairs if daemon in (pair.device, pair.mec))

    # Time passes -------------------------------------------------------------------------------------------

    def run_for(self, duration_s: float) -> None:
        """Let the daemons work for so long. They are listened to, sampled, and their logs rotated."""
        end_s = time.monotonic() + duration_s
        while (now_s := time.monotonic()) < end_s:
            self._tick(now_s)
            time.sleep(TICK_S)

    def run_until_ready(self) -> None:
        """Let time pass until every daemon that was started has said that it is ready."""
        while not all(daemon.is_ready for daemon in self.daemons() if daemon.lives):
            self._tick(time.monotonic())
            time.sleep(TICK_S)

    def _tick(self, now_s: float) -> None:
        running = [(pair, daemon) for pair in self.pairs for daemon, _ in pair.daemons if daemon.lives]
        for _, daemon in running:
            if not daemon.life.is_over and not daemon.tick(now_s):
                self._read_rest(daemon)
                daemon.start()
        if now_s >= self._sample_s and self.account.is_quiet(time.time()):  # in an outage sockets come and go
            self._sample_s = now_s + SAMPLE_EVERY_S
            for _, daemon in running:
                daemon.take_sample(now_s)
        if now_s >= self._rotate_s:
            self._rotate_s = now_s + ROTATE_EVERY_S
            for pair in self.pairs:
                self._rotate(pair)

    # What faults do ----------------------------------------------------------------------------------------

    def kill(self, daemon: Daemon) -> None:
        daemon.kill()
        self._read_rest(daemon)

    def stop(self, daemon: Daemon) -> None:
        daemon.stop()
        self._read_rest(daemon)

    def end(self) -> None:
        """Stop every daemon in order, devices first, and read all that they have written."""
        self._ended_s = time.time()
        for pair in self.pairs:
            self.stop(pair.device)
        for pair in self.pairs:
            self.stop(pair.mec)
        for daemon in self.daemons():
            daemon.check_messages()
        for name, wait_s in self.account.unanswered(self._began_s, self._ended_s).items():
            self.broken.append(f"{name} had no answer of a MEC for {wait_s:.0f} s in which no fault concerned it")

    # Logs --------------------------------------------------------------------------------------------------

    def _rotate(self, pair: Pair) -> None:
        for daemon, log in pair.daemons:
            if daemon.lives and daemon.is_ready:
                for line in log.rotate(daemon.hang_up):
                    self._count(pair, daemon, line)

    def _read_rest(self, daemon: Daemon) -> None:
        """The process has ended: read what it has written, and close its account."""
        pair = self.pair_of(daemon)
        log = next(log for one, log in pair.daemons if one is daemon)
        for line in log.rest():
            self._count(pair, daemon, line)
        if daemon is pair.device:
            self.account.close(pair.frames, was_killed=daemon.life.was_killed, worked_s=daemon.worked_s)
            pair.frames = Frames(daemon.name)

    def _count(self, pair: Pair, daemon: Daemon, line: bytes) -> None:
        if daemon is pair.device:
            self.account.add(pair.frames, line)
        else:
            self.requests += 1

    # The start ---------------------------------------------------------------------------------------------

    def _pids(self) -> list[int]:
        return [daemon.life.process.pid for daemon in self.daemons() if daemon.lives and not daemon.life.is_over]

    def _add_pair(self, number: int, logs: Path) -> None:
        link = self._stack.enter_context(Proxy(("127.0.0.1", 0)))
        mec_log, device_log = logs / f"requests-{number}.jsonl", logs / f"outcomes-{number}.jsonl"
        mec = Daemon(f"MEC {number}", self._folder, lambda: self._mec_command(mec, link, mec_log), self.broken)
        device = Daemon(
            f"device {number}", self._folder, lambda: self._device_command(link, device_log, number), self.broken
        )
        for daemon in (mec, device):
            self._stack.callback(daemon.close)
        self.pairs.append(Pair(device, RotatedLog(device_log), mec, RotatedLog(mec_log), link, Frames(device.name)))

    def _mec_command(self, mec: Daemon, link: Proxy, log: Path) -> list[str]:
        """The first start takes any port, later ones the same."""
        return self._command(
            "mec",
            bind=f"tcp://127.0.0.1:{link.target[1] or '*'}",
            slowdown=_MEC_SLOWDOWN,
            ready_file=self._ready_file(mec),
            requests=log,
            end_with_stdin=None,
        )

    def _device_command(self, link: Proxy, log: Path, number: int) -> list[str]:
        own = self.settings
        return self._command(
            "device",
            mec=[link.endpoint, *(pair.link.endpoint for pair in self.pairs if own.failover and pair.link is not link)],
            controller=own.controller,
            # A device that outlives the soak, because that was killed, ends when its frames are over.
            frames=int((own.minutes * 60.0 + 600.0) * own.fps),
            fps=own.fps,
            deadline_ms=own.deadline_ms,
            slowdown=own.slowdown,
            outcomes=log,
            seed=own.seed + number,
            quiet=None,
        )

    def _command(self, name: str, **options: object) -> list[str]:
        """The words of a command line; an option of None is a switch, one of a list is given several times."""
        words = [name, "--workload", self.settings.workload, "--profile", "shipped"]
        for option, value in options.items():
            for one in value if isinstance(value, list) else [value]:
                words += [f"--{option.replace('_', '-')}", *([] if one is None else [str(one)])]
        return words

    def _ready_file(self, mec: Daemon) -> Path:
        return self._folder / f"{mec.name}.ready"


def _address_in(ready_file: Path) -> tuple[str, int]:
    where = parse_endpoint(ready_file.read_text().strip())
    return where.host, where.port
