"""Takes over releases: verify, receive, check, commit. A MEC and a device use the same steps.

Theory of operation. A proposal (signed metadata and a release) is verified before a single byte of its files is
accepted; from then on the release says which files may come, and how large they are. When all have arrived they are
verified and assembled, and the health check runs in a process of its own. Then ``load`` makes ready what is to serve.
Only then the store switches to the release. Whatever fails before that changes nothing: the release before it stays
current, and ``progress`` says why.

    IDLE -> VERIFYING -> RECEIVING -> CHECKING -> COMMITTED
                |            |           |
                v            +-----------+--> REVERTED      (a health check, a disk, a wrong file)
             REFUSED                                        (the metadata)

Two threads. The caller's accepts proposals and bytes; it never waits for the disk to sync. The worker's does everything
that takes long. They take turns: bytes are accepted only while the worker has nothing to do (RECEIVING), and what the
worker has committed is handed over through a queue (``changes``).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from controller.errors import FailureError, MecpilotError
from runtime.deploy.check import Verdict
from runtime.deploy.phase import Phase
from runtime.deploy.release import Release, ReleaseFile, digest_of
from runtime.deploy.store import Store
from runtime.deploy.trust import (
    Proposal,
    Verifier,
    decode_metadata,
    decode_proposal,
    encode_metadata,
    encode_proposal,
    signed_release,
)
from runtime.protocol.wire import Buffer

LoadedT = TypeVar("LoadedT")

#: Longest wait of ``close`` for the worker. One that loads models may take longer; the store is its own until then.
_JOIN_S = 5.0
_NO_VERDICT = Verdict()


@dataclass(frozen=True)
class Progress:
    """What became of the newest proposal so far."""

    phase: Phase = Phase.IDLE
    proposal: str = ""  # its digest
    name: str = ""
    release: str = ""  # its digest
    reason: str = ""  # why it was refused or reverted
    verdict: Verdict = _NO_VERDICT  # of the health check


@dataclass(frozen=True)
class Change(Generic[LoadedT]):
    """The store has switched: this release is now current under the name."""

    name: str
    release: str  # its digest
    loaded: LoadedT


class Installer(Generic[LoadedT]):
    """Owns the worker thread; the store and the verifier are its alone while it runs, and it closes the store.

    ``check`` gives the verdict of the health check on the release in a folder; ``load`` makes ready what is to serve
    it. Both run in the worker. ``stop_check`` ends a check that runs, from another thread. ``in_use`` are digests of
    releases whose files must stay.
    """

    def __init__(
        self,
        store: Store,
        verifier: Verifier,
        *,
        check: Callable[[Path], Verdict],
        load: Callable[[Path, Release], LoadedT],
        stop_check: Callable[[], None] = lambda: None,
        in_use: Callable[[], set[str]] = set,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store = store
        self.progress = Progress()
        self._verifier, self._check, self._load, self._in_use, self._log = verifier, check, load, in_use, log
        self._stop_check = stop_check
        self._release: Release | None = None
        self._document, self._metadata = b"", b""
        self._closing = False
        self._missing: dict[str, ReleaseFile] = {}  # files that are still to come
        self._changes: queue.SimpleQueue[Change[LoadedT]] = queue.SimpleQueue()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="installer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the worker, which then releases the store; may be called twice."""
        self._closing = True
        self._tasks.put(None)
        self._stop_check()
        self._thread.join(_JOIN_S)

    # Calls of the owner's thread ------------------------------------------------------------------------------

    def propose(self, data: bytes) -> None:
        """A proposal arrived; ``progress`` says what becomes of it. FailureError while another one is checked."""
        digest, now = digest_of(data), self.progress
        if now.proposal == digest and (now.phase.is_busy or now.phase is Phase.RECEIVING):
            return
        self._refuse_if_busy()
        self._missing = {}
        self.progress = Progress(Phase.VERIFYING, digest)
        self._tasks.put(lambda: self._begin(data))

    def chunk(self, sha256: str, offset: int, data: Buffer) -> int:
        """Bytes of a file arrived; returns how many of it are here. FailureError if none of it are expected."""
        file = self._missing.get(sha256)
        if self.progress.phase is not Phase.RECEIVING or file is None:
            raise FailureError("no bytes of this file are expected; propose its release first")
        try:
            held = self.store.append(file, offset, data)
        except OSError as error:
            self._revert(f"cannot write to the store: {error.strerror or error}")
            raise FailureError(self.progress.reason) from None
        if held == file.length:
            del self._missing[sha256]
        if not self._missing:
            self._install_soon()
        return held

    def rollback(self, name: str) -> None:
        """Make the previous release of a name current again; ``progress`` says what becomes of it. FailureError while
        another one is checked."""
        self._refuse_if_busy()
        self._missing = {}
        self.progress = Progress(Phase.CHECKING, name=name)
        self._tasks.put(lambda: self._roll_back(name))

    def proposal(self, name: str) -> bytes:
        """The proposal that leads a device to the current release of a name. FailureError if there is none: nothing
        was deployed, or it was rolled back, and what is current is not what is signed."""
        deployed = self.store.deployed_as(name)
        metadata = decode_metadata(self.store.metadata())
        if signed_release(metadata, name) != deployed.current:
            raise FailureError(f"{name!r} was rolled back here, so there is nothing newer to fetch")
        return encode_proposal(Proposal(name, metadata, self.store.document(deployed.current)))

    def changes(self) -> list[Change[LoadedT]]:
        """What the store has switched to since the last call."""
        found = []
        while not self._changes.empty():
            found.append(self._changes.get())
        return found

    @property
    def missing(self) -> dict[str, tuple[int, int]]:
        """SHA-256 of each file that is still to come -> bytes that are here, and its length."""
        return {sha: (self.store.held_bytes(file), file.length) for sha, file in list(self._missing.items())}

    def status(self) -> dict[str, Any]:
        """What an operator sees."""
        now = self.progress
        return {
            "phase": now.phase.value,
            "proposal": now.proposal,
            "name": now.name,
            "release": now.release,
            "reason": now.reason,
            "samples": now.verdict.samples,
            "largest_difference": now.verdict.largest_difference,
            "missing": {sha: list(sizes) for sha, sizes in self.missing.items()} if not now.phase.is_busy else {},
            "deployed": {name: msgspec.structs.asdict(one) for name, one in self.store.deployed.items()},
        }

    def _refuse_if_busy(self) -> None:
        now = self.progress
        if now.phase.is_busy:
            raise FailureError(f"the store is busy: {now.phase.value} {now.name or 'a proposal'}; try again")

    def _install_soon(self) -> None:
        self._step(Phase.CHECKING)
        self._tasks.put(self._install)

    # The worker -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._carry_out_tasks()
        finally:
            self.store.close()

    def _carry_out_tasks(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except MecpilotError as error:
                self._revert(str(error))
            except OSError as error:
                self._revert(f"cannot write to the store: {error.strerror or error}")
            except Exception as error:  # noqa: BLE001 - a release must not end the thread that takes over the next one
                self._revert(f"{type(error).__name__}: {error}")

    def _begin(self, data: bytes) -> None:
        proposal = decode_proposal(data)
        self._step(Phase.VERIFYING, name=proposal.name, release=digest_of(proposal.release))
        try:
            self._verifier.verify(proposal)
        except FailureError as error:
            self._step(Phase.REFUSED, reason=str(error))
            self._log(f"refused a release of {proposal.name!r}: {error}")
            return
        # Of what was proposed only what was verified is kept.
        self._document, self._metadata = proposal.release, encode_metadata(self._verifier.accepted())
        self._release = release = self.store.prepare(self._document, self._in_use())
        missing = {f.sha256: f for f in release.files if self.store.held_bytes(f) < f.length}
        if missing:
            self._missing = missing
            self._step(Phase.RECEIVING)
        else:
            self._step(Phase.CHECKING)
            self._install()

    def _install(self) -> None:
        try:
            self._check_and_commit()
        finally:
            if not self._closing:  # what has arrived is kept for the next start
                with contextlib.suppress(OSError):  # what is left is collected the next time
                    self.store.drop_pending()
                    self.store.collect(self._in_use())

    def _check_and_commit(self) -> None:
        release, digest = self._release, digest_of(self._document)
        assert release is not None
        folder = self.store.assemble(self._document)
        verdict = self._check(folder)
        self._step(Phase.CHECKING, verdict=verdict)
        if verdict.reason:
            self._revert(f"the health check failed: {verdict.reason}")
        else:
            loaded = self._load(folder, release)
            self.store.commit(release.name, digest, self._metadata)
            self._changes.put(Change(release.name, digest, loaded))
            self._step(Phase.COMMITTED)
            self._log(f"{release.name}: release {digest[:12]} is current ({verdict.samples} samples were equal)")

    def _roll_back(self, name: str) -> None:
        digest = self.store.previous(name)
        release = self.store.release(digest)
        loaded = self._load(self.store.path(digest), release)
        self.store.rollback(name)
        self._changes.put(Change(name, digest, loaded))
        self._step(Phase.COMMITTED, release=digest, reason="rolled back")
        self._log(f"{name}: rolled back to release {digest[:12]}")

    def _revert(self, reason: str) -> None:
        self._missing = {}
        self._step(Phase.REVERTED, reason=reason)
        self._log(f"{self.progress.name or 'a release'} was not taken over: {reason}")

    def _step(self, phase: Phase, **changed: Any) -> None:
        """The caller's thread reads ``progress``, so it is replaced as a whole."""
        self.progress = Progress(**(vars(self.progress) | changed | {"phase": phase}))
