"""An operator's connection to a MEC: status, push, rollback; and a device's, to fetch what was deployed.

One message is on its way at a time. What is not answered within ``RESEND_S`` is sent once more: every message may come
twice, because a chunk says where it belongs, and a proposal what it is. So a push goes on through a link that breaks
and a MEC that restarts, from the byte up to which the MEC has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from controller.errors import FailureError, RemoteProtocolError
from runtime.deploy.phase import Phase
from runtime.deploy.release import ReleaseFile, digest_of
from runtime.deploy.store import Store
from runtime.link.background import Background
from runtime.link.dealer import Dealer
from runtime.link.lookup import ZEROMQ_LISTENS
from runtime.protocol import wire
from runtime.protocol.operator_messages import (
    MAX_CHUNK_BYTES,
    Ask,
    Chunk,
    Fetch,
    OperatorMessage,
    Propose,
    Report,
    Rollback,
)

RESEND_S = 2.0
#: How long a MEC may say nothing before the operator gives up.
PATIENCE_S = 15.0
#: After this time without any answer the operator looks why there is none.
_ASK_WHY_S = 1.0
#: Interval between questions how far a MEC is.
_ASK_EVERY_S = 0.1
#: Rate at which files cross, so that they crowd out no requests and stay below what a MEC takes of one peer.
_BYTES_PER_S = 20e6
_BUSY = tuple(phase.value for phase in Phase if phase.is_busy)
#: Chunks that a MEC may refuse, each after a new look at its status.
_MOST_REFUSALS = 3

_REPLACED = "another push or rollback took the place of this one; look at `mecpilot status`, then repeat it"

Status = dict[str, Any]
#: Called with the bytes of a file that have arrived, and its length.
OnProgress = Callable[[int, int], None]


class _RefusedError(FailureError):
    """The MEC does not do what it was asked for."""


class MecClient:
    """Owns one connection. FailureError when the MEC does not answer, or refuses.

    ``why`` finds out why nobody answers; it may block, and must not raise. A MEC that has never answered is given up as
    soon as there is a reason.
    """

    def __init__(
        self, dealer: Dealer, endpoint: str, patience_s: float = PATIENCE_S, why: Callable[[], str] = lambda: ""
    ) -> None:
        self._dealer, self._endpoint, self._patience_s = dealer, endpoint, patience_s
        self._why = Background(why)
        self._was_heard = False
        self._last_id = 0

    def close(self) -> None:
        """Disconnect; may be called twice."""
        self._dealer.close()

    def status(self) -> Status:
        """What the MEC says about itself."""
        return self._status(Ask(self._next_id()))

    def rollback(self, name: str) -> Status:
        """Make the previous release of a name current again; the status afterwards."""
        self._status(Rollback(self._next_id(), name))
        status = self._settled()
        if status["deploy"]["proposal"] or status["deploy"]["name"] != name:
            raise FailureError(f"{self._endpoint}: {_REPLACED}")
        return status

    def push(self, proposal: bytes, paths: dict[str, Path], on_progress: OnProgress = lambda *_: None) -> Status:
        """Bring a release to the MEC; ``paths`` are its files by SHA-256. Returns the status when the MEC has committed
        it. FailureError, with the reason, if it was refused or reverted."""
        refusals = 0
        while True:
            self._status(Propose(self._next_id()), proposal)
            while (status := self._settled_on(proposal))["deploy"]["phase"] == Phase.RECEIVING.value:
                deploy = status["deploy"]
                try:
                    for sha256, (held, length) in deploy["missing"].items():
                        self._send_file(sha256, paths[sha256], held, length, on_progress)
                except _RefusedError:  # the MEC was restarted, or has reverted; its status says which
                    refusals += 1
                    if refusals > _MOST_REFUSALS:
                        raise
            deploy = status["deploy"]
            if deploy["phase"] == Phase.COMMITTED.value:
                return status
            if deploy["phase"] != Phase.IDLE.value:
                raise FailureError(f"the MEC has {deploy['phase']} the release: {deploy['reason']}")
            # The MEC was restarted meanwhile; it has kept what had arrived.

    def proposal(self, name: str) -> bytes:
        """The signed metadata and the release of what is deployed under a name."""
        return bytes(self._ask(Fetch(self._next_id(), name))[1])

    def download(self, name: str, file: ReleaseFile, store: Store) -> None:
        """Bring a file of a release into a store, from where it ended the last time."""
        held = store.held_bytes(file)
        while held < file.length:
            _, data = self._ask(Fetch(self._next_id(), name, file.sha256, held))
            if not len(data):
                raise FailureError(f"{self._endpoint} has {held} of {file.length} bytes of {file.name}; fetch again")
            _pace(len(data))
            held = store.append(file, held, data)

    def _send_file(self, sha256: str, path: Path, held: int, length: int, on_progress: OnProgress) -> None:
        with path.open("rb") as stream:
            while held < length:
                stream.seek(held)
                report, _ = self._ask(Chunk(self._next_id(), sha256, held), stream.read(MAX_CHUNK_BYTES))
                _pace(report.held_bytes - held)
                held = report.held_bytes
                on_progress(held, length)

    def _settled(self) -> Status:
        """The status as soon as the MEC is not at work any more."""
        while (status := self.status())["deploy"] is not None and status["deploy"]["phase"] in _BUSY:
            time.sleep(_ASK_EVERY_S)
        return status

    def _settled_on(self, proposal: bytes) -> Status:
        """The same, of this proposal; FailureError if the MEC has turned to another one."""
        status = self._settled()
        deploy = status["deploy"]
        if deploy["phase"] != Phase.IDLE.value and deploy["proposal"] != digest_of(proposal):
            raise FailureError(f"{self._endpoint}: {_REPLACED}")
        return status

    def _status(self, message: OperatorMessage, buffer: wire.Buffer = b"") -> Status:
        _, data = self._ask(message, buffer)
        try:
            return msgspec.json.decode(data, type=Status)
        except msgspec.MsgspecError as error:
            raise FailureError(f"{self._endpoint} sent a status that cannot be read ({error})") from None

    def _ask(self, message: OperatorMessage, buffer: wire.Buffer = b"") -> tuple[Report, memoryview]:
        """The report that answers a message."""
        began_s = time.monotonic()
        give_up_s = began_s + self._patience_s
        resend_s = 0.0
        while (now_s := time.monotonic()) < give_up_s:
            if now_s >= resend_s and self._dealer.connected and self._dealer.send(wire.encode(message, buffer)):
                resend_s = now_s + RESEND_S
            self._dealer.wait(0.02 if not resend_s else min(resend_s - now_s, 0.1))
            for parts in self._dealer.receive():
                if (found := self._answer(message, parts)) is not None:
                    return found
            if not self._was_heard and now_s > began_s + _ASK_WHY_S:
                self._look_why()
        raise FailureError(
            f"no answer from {self._endpoint}; expected a MEC there, of this version of mecpilot, that admits this key"
        )

    def _look_why(self) -> None:
        """FailureError when it was found out why this MEC does not answer."""
        if (reason := self._why.take()) is None:
            self._why.ask()
        elif reason and reason != ZEROMQ_LISTENS:
            raise FailureError(f"no answer from {self._endpoint}: {reason}")

    def _answer(self, message: OperatorMessage, parts: list[wire.Buffer]) -> tuple[Report, memoryview] | None:
        try:
            got, data = wire.decode(parts)
        except RemoteProtocolError as error:
            raise FailureError(f"{self._endpoint}: {error}") from None
        self._was_heard = True
        if isinstance(got, Report) and got.message_id == message.message_id:
            return got, data
        if isinstance(got, wire.Reject) and got.request_id == message.message_id:
            raise _RefusedError(f"{self._endpoint} refuses: {got.text}")
        return None

    def _next_id(self) -> int:
        self._last_id = wire.next_id(self._last_id)
        return self._last_id


def _pace(sent_bytes: int) -> None:
    time.sleep(max(sent_bytes, 0) / _BYTES_PER_S)
