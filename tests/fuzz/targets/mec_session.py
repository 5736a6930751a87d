"""The MEC's session, its accounts and its queue: four devices say anything, and time passes."""

from __future__ import annotations

from controller.errors import RemoteProtocolError
from runtime.config.sections.admission import AdmissionSection
from runtime.link.router import Incoming
from runtime.mec.limits import Accounts, Verdict
from runtime.mec.queue import RequestQueue
from runtime.protocol import wire
from runtime.protocol.mec_session import MAX_REGISTERED, Admit, MecSession, SendTo
from tests.fuzz.targets.cut import Cut, sized
from tests.fuzz.targets.messages import HELD, OF_DEVICE, OLD, encoded

_MOST_STEPS = 200
_PEERS = (b"a", b"b", b"c", b"d")
_LIMITS = AdmissionSection(device_message_rate=50.0, device_queue_limit=3)
_QUEUE_LIMIT = 6

_ALL = b"".join(bytes([0]) + encoded(*each) for each in OF_DEVICE)
SEEDS = [
    _ALL,
    b"".join(bytes([peer]) + encoded(*OF_DEVICE[0]) + bytes([peer]) + encoded(*OF_DEVICE[2]) for peer in range(4)) * 3,
    *(bytes([1]) + sized(bytes(header)) + sized(b"") for header in OLD),
    _ALL + bytes([8]) * 5 + bytes([16, 255, 32]) + _ALL,
]


def run(data: bytes) -> None:
    cut, session, now_s = Cut(data), MecSession("mec-1", [HELD], 1.0), 0.0
    accounts, queue = Accounts(_LIMITS), RequestQueue(_QUEUE_LIMIT, _LIMITS)
    for _ in range(_MOST_STEPS):
        if not cut:
            return
        what = cut.byte()
        if what & 8 and queue:
            queue.take()
            queue.began(now_s)
            now_s += 0.01
            queue.ended(0.01)
        elif what & 16:
            now_s += cut.byte() / 4
            session.forget_silent(now_s)
            accounts.forget(now_s)
        elif what & 32:
            session.close()
        else:
            _hear(session, accounts, queue, Incoming(_PEERS[what % 4], [cut.sized(), cut.sized()]), now_s)
        assert len(session.registered) <= MAX_REGISTERED
        assert len(queue) <= _QUEUE_LIMIT
        assert len(accounts) <= len(_PEERS)


def _hear(session: MecSession, accounts: Accounts, queue: RequestQueue, arrived: Incoming, now_s: float) -> None:
    account = accounts.of(arrived, now_s)
    if account.judge(sum(map(len, arrived.parts)), now_s) is not Verdict.PASS:
        return
    try:
        message, buffer = wire.decode(arrived.parts if arrived.parts[1] else arrived.parts[:1])
    except RemoteProtocolError as error:
        account.fault()
        actions = session.malformed(arrived.peer, error)
    else:
        actions = session.receive(arrived.peer, message, buffer, now_s)
    for action in actions:
        if isinstance(action, SendTo):
            wire.encode(action.message)
        elif isinstance(action, Admit):
            queue.add(action, account, 0.01, now_s)
