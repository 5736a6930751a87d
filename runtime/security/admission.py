"""Decides at a MEC's socket who is admitted: at the handshake, and again for every message.

Theory of operation. ZeroMQ asks about a key once, at the handshake (ZAP, RFC 27). A connection that stays open would
survive the revocation of its key. So each message is asked about too: ZeroMQ attaches the key that was proved in the
handshake to it, as ``User-Id``, where the peer cannot change it. A message whose key is not listed any more is dropped,
and the peer's connection gets nothing any more. The honest device behind it notices that nobody answers, connects anew
and is refused in the handshake.

Replies go to a routing id, which a peer may choose. ZeroMQ keeps an id for the connection that has it; when that has
ended, another one may take it. So devices choose ids that nobody can guess (``runtime.security.curve``), and an id
belongs to the first key that used it: messages under it from another key are dropped.

The authenticator answers ZeroMQ in a thread of its own, and owns nothing that the MEC's loop changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import zmq
from zmq.auth.thread import ThreadAuthenticator

from runtime.security.curve import ZAP_DOMAIN, MecKeys
from runtime.security.keys import fingerprint

#: Connections whose key is remembered. A MEC registers a quarter of them at most; the one silent longest is forgotten.
_MOST_PEERS = 4096


@dataclass
class TurnedAway:
    """What a MEC did not admit."""

    handshakes: int = 0  # of keys that are not listed
    messages: int = 0  # of keys that were revoked while connected, or under another connection's id


class Admission:
    """Owns the authenticator of one ZeroMQ context, and the key behind each connection."""

    def __init__(self, keys: MecKeys, log: Callable[[str], None]) -> None:
        self._allowed, self._log = keys.allowed, log
        self._keys: OrderedDict[bytes, str] = OrderedDict()  # routing id -> key, the one silent longest first
        self._authenticator: ThreadAuthenticator | None = None
        self.turned_away = TurnedAway()

    def start(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Answer the handshakes of all sockets of a context from now on. Call it before one is bound."""
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.configure_curve_callback(ZAP_DOMAIN, self)
        self._authenticator.start()

    def stop(self) -> None:
        """End the thread; may be called twice. The context cannot be terminated before."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None

    def callback(self, _domain: str, key: bytes) -> bool:
        """Whether a key, in Z85, is admitted; the authenticator calls this in its thread. An error refuses the key,
        because one that was raised here would end the thread."""
        try:
            self._allowed.look_now()
            if self._allowed.name_of(key.decode()):
                return True
            self.turned_away.handshakes += 1
            self._log(
                f"refused a device whose key is not on the list (fingerprint {fingerprint(key.decode())}); "
                "to admit it: `mecpilot keys allow NAME NAME.pub`"
            )
        except Exception as error:  # noqa: BLE001 - see above
            self._log(f"cannot check a key: {type(error).__name__}: {error}")
        return False

    def look(self) -> None:
        """Look whether the list has changed, if it is time to. Also a MEC to which nobody talks does."""
        self._allowed.look()

    def user_of(self, peer: bytes, frame: zmq.Frame) -> str:
        """The name behind a message of a peer; empty if it must be dropped. ``frame``: any part of the message."""
        key = str(frame.get("User-Id"))
        owner = self._keys.setdefault(peer, key)
        self._keys.move_to_end(peer)
        if len(self._keys) > _MOST_PEERS:
            self._keys.popitem(last=False)
        if owner != key:
            self._drop(f"dropped a message under the connection of another device (fingerprint {fingerprint(key)})")
            return ""
        if not (name := self._allowed.name_of(key)):
            self._drop(f"dropped a message of a device whose key was revoked (fingerprint {fingerprint(key)})")
        return name

    def may_send(self, peer: bytes) -> bool:
        """Whether the device behind a connection is still admitted."""
        key = self._keys.get(peer)
        return key is not None and bool(self._allowed.name_of(key))

    def fingerprint_of(self, peer: bytes) -> str:
        """Of the key behind a connection; empty if it is not known."""
        key = self._keys.get(peer)
        return "" if key is None else fingerprint(key)

    def forget_all(self) -> None:
        """Every connection was closed."""
        self._keys.clear()

    def _drop(self, text: str) -> None:
        self.turned_away.messages += 1
        self._log(text)
