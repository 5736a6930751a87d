"""The bundles that a MEC serves at a time, and when one of them is dropped.

The bundle that the MEC was started with is always served. Of each name in the store, the current release and the one
before it are served, so that devices which hold either go on, and a rollback takes no time. A release that is neither
drains: it is served while a device holds it, and for ``DRAIN_S`` after the last one has left, because devices come
back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from runtime.deploy.store import Deployed
from runtime.mec.served import Served
from runtime.protocol.wire import Held

DRAIN_S = 60.0

BASE, CURRENT, PREVIOUS, DRAINING = "base", "current", "previous", "draining"


class Bundles:
    """Owns what is served. ``deployed`` says what the store holds, by name."""

    def __init__(
        self,
        base: Sequence[Served],
        deployed: Callable[[], dict[str, Deployed]] = dict,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._served = {served.held: served for served in base}
        self._base = frozenset(self._served)
        self._deployed, self._drain_s = deployed, drain_s
        self._held_of: dict[str, Held] = {}  # digest of a release -> what it serves
        self._used_s: dict[Held, float] = {}  # when a draining one was last in use

    def __iter__(self) -> Iterator[Served]:
        return iter(tuple(self._served.values()))

    @property
    def held(self) -> tuple[Held, ...]:
        """What a device may hold."""
        return tuple(self._served)

    @property
    def releases(self) -> set[str]:
        """Digests of the releases whose files are in use. Any thread may ask."""
        return set(self._held_of.copy())

    def get(self, held: Held) -> Served | None:
        """The bundle that devices with this one use; None if it is not served."""
        return self._served.get(held)

    def add(self, release: str, served: Served) -> None:
        """Serve a release from now on. One that is served already stays as it is: devices are using it."""
        self._served.setdefault(served.held, served)
        self._held_of[release] = served.held

    def releases_of(self, held: Held) -> list[str]:
        """Digests of the releases that brought a bundle."""
        return [release for release, other in self._held_of.items() if other == held]

    def drop_unused(self, in_use: Collection[Held], now_s: float) -> list[Held]:
        """Drop what has drained; returns it. ``in_use``: what devices hold."""
        gone = []
        for held in self.held:
            if held in in_use or self.role(held) != DRAINING:
                self._used_s[held] = now_s
            elif now_s - self._used_s.setdefault(held, now_s) > self._drain_s:
                gone.append(held)
                del self._served[held], self._used_s[held]
        self._held_of = {release: held for release, held in self._held_of.items() if held in self._served}
        return gone

    def role(self, held: Held) -> str:
        """Why a bundle is served."""
        if held in self._base:
            return BASE
        deployed = self._deployed().values()
        if held in (self._held_of.get(one.current) for one in deployed):
            return CURRENT
        return PREVIOUS if held in (self._held_of.get(one.previous or "") for one in deployed) else DRAINING
