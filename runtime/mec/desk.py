"""Answers operators at a MEC: status, releases and rollbacks; and devices that fetch what was deployed.

Theory of operation. An operator's message needs no session; who may be one is decided for each message anew. On an
authenticated connection it is the user's role that decides. A plain connection proves nothing, so operators are only
served on it where the MEC is bound to this machine. Beside that, a release must be signed by the key that the MEC
trusts, whoever brings it: being an operator is not enough to deploy, and a stolen signing key is not enough either.

Everything that takes long is the installer's (``runtime.deploy.installer``); here a message costs one write or one read
of at most 256 kB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from controller.errors import FailureError
from runtime.mec.served import Served
from runtime.protocol import wire
from runtime.protocol.mec_session import SendTo
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
from runtime.protocol.wire import Buffer

if TYPE_CHECKING:  # needs the packages of the extra "deploy"
    from runtime.deploy.installer import Change, Installer

_NO_STORE = "this MEC takes no releases; start it with --store FOLDER --trust ROOT.json"

_WORDS: dict[type[OperatorMessage], str] = {
    Ask: "status",
    Propose: "push",
    Chunk: "push",
    Rollback: "rollback",
    Fetch: "fetch",
}


class Desk:
    """Answers each message with one other. ``installer``: None where the MEC has no store.

    ``is_operator`` says whether a user is one; "" is the user of a plain connection. ``log`` takes a line for each push
    and rollback, and for those that are refused; ``fingerprint_of`` is that of the key behind a connection.
    """

    def __init__(
        self,
        installer: Installer[Served | None] | None,
        is_operator: Callable[[str], bool],
        log: Callable[[str], None] = lambda _: None,
        fingerprint_of: Callable[[bytes], str] = lambda _: "",
    ) -> None:
        self._installer, self._is_operator = installer, is_operator
        self._log, self._fingerprint_of = log, fingerprint_of

    def answer(
        self, peer: bytes, user: str, message: OperatorMessage, buffer: Buffer, status: Callable[[], dict[str, Any]]
    ) -> SendTo:
        """The answer to a message. ``status`` is what the loop knows."""
        if not isinstance(message, Fetch) and not self._is_operator(user):
            self._log(f"refused a {_WORDS[type(message)]} by {self._who(peer, user)}: not an operator")
            return self._denied(peer, message, _not_an_operator(user))
        before = self._proposal
        try:
            held_bytes, data = self._carry_out(message, buffer)
        except FailureError as error:
            if isinstance(message, Propose | Rollback):
                self._log(f"refused a {_WORDS[type(message)]} by {self._who(peer, user)}: {error}")
            return self._denied(peer, message, str(error))
        if isinstance(message, Rollback):
            self._log(f"rollback of {message.name!r} by {self._who(peer, user)}")
        elif isinstance(message, Propose) and self._proposal != before:  # no repetition
            self._log(f"a release is pushed by {self._who(peer, user)}")
        if data is None:
            about = self._installer.status() if self._installer is not None else None
            data = msgspec.json.encode(status() | {"deploy": about})
        return SendTo(peer, Report(message.message_id, held_bytes), data)

    def changes(self) -> list[Change[Served | None]]:
        """The releases that were committed since the last call."""
        return [] if self._installer is None else self._installer.changes()

    @property
    def _proposal(self) -> str:
        """Digest of the last proposal."""
        return "" if self._installer is None else self._installer.progress.proposal

    def _who(self, peer: bytes, user: str) -> str:
        if not user:
            return "somebody on a plain connection"
        return f"{user} (fingerprint {self._fingerprint_of(peer)})"

    def _carry_out(self, message: OperatorMessage, buffer: Buffer) -> tuple[int, bytes | None]:
        """Bytes held, and what the answer carries; None: the status."""
        if isinstance(message, Ask):
            return 0, None
        if self._installer is None:
            raise FailureError(_NO_STORE)
        match message:
            case Propose():
                self._installer.propose(bytes(buffer))
            case Chunk():
                return self._installer.chunk(message.sha256, message.offset, buffer), b""
            case Rollback():
                self._installer.rollback(message.name)
            case Fetch():
                return 0, self._fetched(self._installer, message)
        return 0, None

    def _fetched(self, installer: Installer[Served | None], message: Fetch) -> bytes:
        if message.sha256 is None:
            return installer.proposal(message.name)
        return installer.store.read(message.name, message.sha256, message.offset, MAX_CHUNK_BYTES)

    def _denied(self, peer: bytes, message: OperatorMessage, why: str) -> SendTo:
        return SendTo(peer, wire.Reject(message.message_id, wire.RejectReason.DENIED, wire.plain(why)))


def _not_an_operator(user: str) -> str:
    if user:
        return (
            f"{user} is not an operator; give an operator's --key. On the MEC, `mecpilot keys allow NAME NAME.pub "
            "--role operator --dir FOLDER` makes one"
        )
    return "operators need keys here: this MEC can be reached from other machines, and the connection is plain"
