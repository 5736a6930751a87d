"""The device's session: time passes, the device asks, connections come and go, and a MEC says anything."""

from __future__ import annotations

from controller.errors import RemoteProtocolError
from runtime.protocol import wire
from runtime.protocol.device_actions import LinkState
from runtime.protocol.device_session import DeviceSession
from tests.fuzz.targets.cut import Cut
from tests.fuzz.targets.messages import HELD, OF_MEC, OLD, encoded, sized

_MOST_STEPS = 200
_TICK, _MESSAGE, _REQUEST, _PROBE, _CONNECTED, _UNSENDABLE, _CLOSE = range(7)

_UP = bytes([_TICK, 0, _MESSAGE]) + encoded(*OF_MEC[0])
SEEDS = [
    _UP + bytes([_REQUEST, _PROBE]) + b"".join(bytes([_TICK, 9, _MESSAGE]) + encoded(*each) for each in OF_MEC),
    *(_UP + bytes([_REQUEST, _TICK, 5, _MESSAGE]) + encoded(*each) for each in OF_MEC),
    *(bytes([_TICK, 9, _MESSAGE]) + sized(bytes(header)) + sized(b"") for header in OLD),
    _UP + bytes([_REQUEST, _UNSENDABLE, _CONNECTED, _TICK, 255, _TICK, 255, _CLOSE, _TICK, 255]),
    _UP + bytes([_MESSAGE]) + (encoded(*OF_MEC[-2]) + bytes([_MESSAGE])) * 40,
]


def run(data: bytes) -> None:
    cut, session, now_s = Cut(data), DeviceSession("camera", HELD), 0.0
    for _ in range(_MOST_STEPS):
        if not cut:
            return
        match cut.byte() % 7:
            case 0:
                now_s += cut.byte() / 100
                session.tick(now_s)
            case 1:
                _hear(session, [cut.sized(), cut.sized()], now_s)
            case 2 if session.state is LinkState.UP:  # the connection does not ask otherwise
                session.request(wire.InferRequest(session.next_id(), 3, 100), (1, 10), now_s)
            case 3:
                session.probe(128, now_s)
            case 4:
                session.connected(now_s)
            case 5:
                session.unsendable(now_s)
            case 6:
                session.close()
        session.check()


def _hear(session: DeviceSession, parts: list[bytes], now_s: float) -> None:
    try:
        message, buffer = wire.decode(parts if parts[1] else parts[:1])
    except RemoteProtocolError as error:
        session.malformed(error, now_s)
    else:
        session.receive(message, buffer, now_s)
