"""The receivers of all connections of a MEC, for the streams of the shipped bundle of campus."""

from __future__ import annotations

from controller.errors import RemoteProtocolError
from runtime.bundles.bundle import open_bundle
from runtime.codecs.streams import MOST_STREAMS, stream_key
from runtime.mec.receivers import Receivers
from runtime.protocol import wire
from tests.fuzz.targets.cut import Cut, sized

_BUNDLE = open_bundle("campus")
#: One decision of each of the smaller streams, and one without references.
_DECISIONS = [
    *{stream_key(d): d for d in _BUNDLE.space.decisions if d.resolution_px <= 384 and d.payload != "none"}.values()
][:16]
_PEERS = (b"a", b"b", b"c")
#: Room for few receivers, so that they are dropped.
_MOST_BYTES = 8 << 20
_MOST_REQUESTS = 16

SEEDS = [
    b"".join(bytes([n % 3, n, 1, 0, 0, 0, 0, 0]) + sized(b"payload") for n in range(len(_DECISIONS))),
    b"".join(bytes([0, 1, n, 1, 0, 0, 0, 0]) + sized(b"\0" * 60) for n in range(1, 6)) + bytes([3, 4]),
]


def run(data: bytes) -> None:
    cut, receivers = Cut(data), Receivers(_BUNDLE, _MOST_BYTES)
    for _ in range(_MOST_REQUESTS):
        if not cut:
            break
        who, which = cut.byte(), cut.byte()
        peer, decision = _PEERS[who % 3], _DECISIONS[which % len(_DECISIONS)]
        if who & 64:
            receivers.drop(peer)
        if who & 128:
            receivers.keep_only({b"a"})
        request = wire.InferRequest(cut.byte() + 1, 0, 100, cut.byte(), cut.number(4))
        payload = cut.sized()
        try:
            decode_as = receivers.decode_as(peer, request, decision)
            if decode_as is not None:
                decode_as(payload)
        except RemoteProtocolError:
            pass
        assert receivers.kept_bytes <= _MOST_BYTES
        assert len(receivers) <= MOST_STREAMS * len(_PEERS)
