"""The MEC's side of the protocol: registers peers and admits their requests. Events in, actions out, no I/O.

Theory of operation. A peer is a connection. A Hello registers it if the MEC serves the bundle that the device holds;
from then on its requests are admitted, each as one for that bundle. The loop keeps what their payloads may refer to
(``runtime.mec.receivers``). A registered peer that sends Bye, or nothing for ``FORGET_S``, is unregistered. A request
or ping of an unregistered peer is answered with NO_SESSION, so that a device notices at once that the MEC was
restarted. Bytes that cannot be decoded are counted. A registered peer gets a Reject for them; an unregistered one gets
nothing, so that the MEC cannot be used to reflect traffic. The exception is the hello of an older version, which gets
a Reject in its own format. At most ``MAX_REGISTERED`` peers are registered; the one that has been silent longest is
unregistered first.

A peer can cause only a few different log lines, so that repeated ones can be collapsed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.errors import RemoteProtocolError
from runtime.protocol import wire
from runtime.protocol.old_wire import old_reject
from runtime.protocol.wire import Buffer, RejectReason

FORGET_S = 30.0
MAX_REGISTERED = 1024


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send a message to a peer."""

    peer: bytes
    message: wire.Sendable
    buffer: Buffer = b""


@dataclass(frozen=True, slots=True)
class Admit:
    """Queue the request of a registered peer."""

    peer: bytes
    request: wire.InferRequest
    payload: Buffer
    arrived_s: float
    held: wire.Held  # what the sender holds: its row is one of that bundle


@dataclass(frozen=True, slots=True)
class Refused:
    """A device was refused; log the reason."""

    why: str


Action = SendTo | Admit | Refused
Actions = list[Action]


class MecSession:
    """Owns the set of registered peers. The server owns the queue of admitted requests.

    ``served`` is what the MEC serves, by what a device must hold: at least one.
    """

    def __init__(self, instance: str, served: Sequence[wire.Held], mec_slowdown: float) -> None:
        self.faults = 0
        self._served = tuple(served)
        self._instance, self._mec_slowdown = instance, mec_slowdown
        self._heard_s: dict[bytes, float] = {}  # registered peers, the longest silent one first
        self._held: dict[bytes, wire.Held] = {}  # what registered peers hold

    @property
    def registered(self) -> tuple[bytes, ...]:
        return tuple(self._heard_s)

    @property
    def held(self) -> Mapping[bytes, wire.Held]:
        """What each registered peer holds."""
        return self._held

    @property
    def heard_s(self) -> Mapping[bytes, float]:
        """When each registered peer was last heard."""
        return self._heard_s

    @property
    def instance(self) -> str:
        """The name of this start of the MEC."""
        return self._instance

    def serve(self, served: Sequence[wire.Held]) -> None:
        """The MEC serves these from now on: at least one. Peers that hold another one must say hello anew."""
        self._served = tuple(served)
        for peer in [peer for peer, held in self._held.items() if held not in self._served]:
            self._unregister(peer)

    def receive(self, peer: bytes, message: wire.AnyMessage, buffer: Buffer, now_s: float) -> Actions:
        """Handle one decoded message of a peer."""
        registered = peer in self._heard_s
        if registered:
            del self._heard_s[peer]  # to the end of the order
            self._heard_s[peer] = now_s
        handler = _TABLE.get((registered, type(message)))
        if handler is None:
            return self._fault(peer, f"got {type(message).__name__}; expected a message that a device sends")
        return handler(self, peer, message, buffer, now_s)

    def malformed(self, peer: bytes, error: RemoteProtocolError) -> Actions:
        """Bytes arrived that could not be decoded."""
        if isinstance(error, wire.OtherVersionError):
            return self._other_version(peer, error)
        self.faults += 1
        if peer not in self._heard_s:
            return []
        return [SendTo(peer, wire.Reject(0, RejectReason.ILLEGAL, wire.plain(str(error))))]

    def forget_silent(self, now_s: float) -> None:
        """Unregister peers that have been silent for ``FORGET_S``."""
        for peer in [peer for peer, heard_s in self._heard_s.items() if now_s - heard_s > FORGET_S]:
            self._unregister(peer)

    def close(self) -> Actions:
        """Say good-bye to every registered peer; may be called twice."""
        leaving, self._heard_s, self._held = self.registered, {}, {}
        return [SendTo(peer, wire.Bye()) for peer in leaving]

    def _other_version(self, peer: bytes, error: wire.OtherVersionError) -> Actions:
        if error.is_scout:
            return []  # the device also sends a hello of its own version
        if not error.is_hello or peer in self._heard_s:
            self.faults += 1
            return []
        why = f"this MEC speaks protocol {wire.VERSION}, the device {error.version}; install one version on both"
        return [SendTo(peer, wire.Foreign(old_reject(error.version, why))), Refused(why)]

    def _hello(self, peer: bytes, message: wire.Hello, _b: Buffer, now_s: float) -> Actions:
        if message.held not in self._served:
            self._unregister(peer)
            nearest = max(self._served, key=lambda held: _in_common(held, message.held))
            why = wire.difference(nearest, message.held)
            return [SendTo(peer, wire.Reject(0, RejectReason.DIGEST, why)), Refused(_sentence(nearest, message.held))]
        self._heard_s[peer], self._held[peer] = now_s, message.held
        if len(self._heard_s) > MAX_REGISTERED:
            self._unregister(next(iter(self._heard_s)))
        return [SendTo(peer, wire.Welcome(self._instance, message.held, self._mec_slowdown))]

    def _unregister(self, peer: bytes) -> None:
        self._heard_s.pop(peer, None)
        self._held.pop(peer, None)

    def _request(self, peer: bytes, message: wire.InferRequest, buffer: Buffer, now_s: float) -> Actions:
        return [Admit(peer, message, buffer, now_s, self._held[peer])]

    def _ping(self, peer: bytes, message: wire.Ping, _b: Buffer, _n: float) -> Actions:
        return [SendTo(peer, wire.Pong(message.ping_id))]

    def _bye(self, peer: bytes, _m: wire.Bye, _b: Buffer, _n: float) -> Actions:
        self._unregister(peer)
        return []

    def _unregistered(self, peer: bytes, message: wire.InferRequest | wire.Ping, _b: Buffer, _n: float) -> Actions:
        request_id = message.request_id if isinstance(message, wire.InferRequest) else 0
        return [SendTo(peer, wire.Reject(request_id, RejectReason.NO_SESSION, "say hello first"))]

    def _fault(self, peer: bytes, text: str) -> Actions:
        return self.malformed(peer, RemoteProtocolError(text))


def _in_common(mec: wire.Held, device: wire.Held) -> int:
    """How much of what both sides hold is equal, from the workload on."""
    if mec.workload != device.workload:
        return 0
    return 1 if mec.bundle_digest != device.bundle_digest else 2


def _sentence(mec: wire.Held, device: wire.Held) -> str:
    """The reason for a refusal, without any text that the peer chose."""
    if device.workload != mec.workload:
        return f"it holds another workload; this MEC serves {mec.workload}"
    if device.bundle_digest != mec.bundle_digest:
        return f"it holds another bundle of workload {mec.workload}"
    return "it numbers the decisions differently; install the same version of mecpilot on both"


_S = MecSession
#: (is registered, message) -> handler; a message that is missing here is the peer's fault.
_TABLE: dict[tuple[bool, type], Callable[..., Actions]] = {
    (False, wire.Hello): _S._hello,
    (False, wire.InferRequest): _S._unregistered,
    (False, wire.Ping): _S._unregistered,
    (False, wire.Bye): _S._bye,
    (True, wire.Hello): _S._hello,
    (True, wire.InferRequest): _S._request,
    (True, wire.Ping): _S._ping,
    (True, wire.Bye): _S._bye,
}
