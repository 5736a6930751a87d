"""The two session machines: what is legal when, what gets lost, and that no frame's request is left open."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import RemoteProtocolError
from controller.timeline import HEARTBEAT_S, SILENCE_S
from runtime.protocol import wire
from runtime.protocol.conduct import FIRST_PAUSE_S, MOST_PAUSE_S, WRONG_REPLIES
from runtime.protocol.device_actions import (
    Action,
    Answered,
    Busy,
    Disconnect,
    Echoed,
    Expired,
    LinkChanged,
    LinkState,
    PeerFault,
    Reconnect,
    Transmit,
    Unanswered,
)
from runtime.protocol.device_session import REFUSED_RETRY_S, RETRY_S, DeviceSession
from runtime.protocol.mec_session import FORGET_S, MAX_REGISTERED, Admit, MecSession, Refused, SendTo

HELD = wire.Held("campus", "d1" * 32, "e1" * 32)
OTHERS = {
    "workload": msgspec.structs.replace(HELD, workload="garments"),
    "bundle": msgspec.structs.replace(HELD, bundle_digest="a7" * 32),
    "space": msgspec.structs.replace(HELD, space_digest="a7" * 32),
}
WELCOME = wire.Welcome("mec-1", HELD, 4.0)
OUTPUTS = (1, 10)


def request_of(request_id: int) -> wire.InferRequest:
    return wire.InferRequest(request_id, 3, 100)


def reply_to(request_id: int, **fields: object) -> wire.InferReply:
    return wire.InferReply(request_id, **{"queue_us": 0, "mec_us": 1000} | fields)  # type: ignore[arg-type]


def session_that_is_up() -> DeviceSession:
    session = DeviceSession("camera", HELD)
    assert session.tick(0.0) == [Transmit(wire.Hello("camera", HELD))]
    assert session.receive(WELCOME, b"", 0.0) == [LinkChanged(LinkState.UP, "the MEC accepted this device")]
    return session


def with_open_request(now_s: float = 0.0) -> tuple[DeviceSession, int]:
    session = session_that_is_up()
    request_id = session.next_id()
    session.request(request_of(request_id), OUTPUTS, now_s)
    return session, request_id


def silence(session: DeviceSession, from_s: float, to_s: float) -> list[Action]:
    """What a session that is looked at whenever it asks for it does while nothing is heard."""
    actions: list[Action] = []
    while max(from_s, session.next_tick_s) <= to_s:
        from_s = max(from_s, session.next_tick_s)
        actions += session.tick(from_s)
    return actions


class TestDevice:
    def test_says_hello_at_every_heartbeat_until_welcomed(self) -> None:
        session = DeviceSession("camera", HELD)
        hellos = [session.tick(step * HEARTBEAT_S / 2) for step in range(6)]
        assert [len(actions) for actions in hellos] == [1, 0, 1, 0, 1, 0]

    def test_learns_the_mecs_slowdown_from_its_welcome(self) -> None:
        assert session_that_is_up().mec_slowdown == 4.0

    def test_takes_replies_in_any_order(self) -> None:
        session, first = with_open_request()
        second = session.next_id()
        session.request(request_of(second), OUTPUTS, 0.0)
        for request_id in (second, first):
            reply = reply_to(request_id)
            assert session.receive(reply, bytes(40), 0.1) == [Answered(reply, bytes(40))]

    def test_ignores_a_second_reply_and_counts_it(self) -> None:
        session, request_id = with_open_request()
        session.receive(reply_to(request_id), bytes(40), 0.1)
        assert session.receive(reply_to(request_id), bytes(40), 0.1) == []
        assert (session.stale_replies, session.faults) == (1, 0)

    @pytest.mark.parametrize(
        ("wrong", "blamed"),
        [
            ({"outputs": bytes(36)}, True),
            ({"queue_us": 900_000, "mec_us": 900_000}, True),
            ({"request_id": 77}, False),
        ],
        ids=["outputs", "time", "id"],
    )
    def test_a_wrong_reply_is_a_fault_that_costs_only_its_request(self, wrong: dict[str, object], blamed: bool) -> None:
        session, request_id = with_open_request()
        fields = {"request_id": request_id, "outputs": bytes(40)} | wrong
        outputs = fields.pop("outputs")
        actions = session.receive(reply_to(fields.pop("request_id"), **fields), outputs, 0.1)  # type: ignore[arg-type]
        assert isinstance(actions[0], PeerFault)
        assert isinstance(actions[0].error, RemoteProtocolError)
        assert [a.request_ids for a in actions[1:] if isinstance(a, Unanswered)] == [(request_id,)] * blamed
        assert session.faults == 1
        assert session.state is LinkState.UP
        session.check()

    def test_silence_after_a_message_takes_the_link_down_and_loses_what_was_open(self) -> None:
        session, request_id = with_open_request(now_s=1.0)
        assert all(isinstance(action, Transmit) for action in silence(session, 1.0, 1.0 + SILENCE_S))
        down, lost, again, hello = silence(session, 1.0 + SILENCE_S, 1.1 + SILENCE_S + HEARTBEAT_S)
        assert isinstance(down, LinkChanged)
        assert down.state is LinkState.DOWN
        assert isinstance(lost, Unanswered)
        assert lost.request_ids == (request_id,)
        assert (again, hello) == (Reconnect(), Transmit(wire.Hello("camera", HELD)))
        session.check()

    def test_its_own_long_sleep_does_not_blame_the_mec(self) -> None:
        session = session_that_is_up()
        ping = session.tick(0.0)[0]
        assert isinstance(ping, Transmit)
        assert isinstance(ping.message, wire.Ping)
        assert isinstance(session.tick(60.0)[0], Transmit)
        assert session.state is LinkState.UP
        session.receive(wire.Pong(ping.message.ping_id), b"", 60.1)  # lay in the socket all the time
        assert session.state is LinkState.UP

    @pytest.mark.parametrize("message", [WELCOME, wire.Pong(1), reply_to(1)], ids=lambda m: type(m).__name__)
    def test_anything_heard_brings_a_silent_link_back_up(self, message: wire.AnyMessage) -> None:
        session, _ = with_open_request()
        silence(session, 0.0, SILENCE_S + HEARTBEAT_S)
        assert session.state is LinkState.DOWN
        actions = session.receive(message, bytes(40), 9.0)
        assert isinstance(actions[0], LinkChanged)
        assert session.state is LinkState.UP

    def test_no_connection_takes_the_link_down_once(self) -> None:
        session, _request_id = with_open_request()
        assert [type(action) for action in session.unsendable(0.1)] == [LinkChanged, Unanswered]
        assert session.unsendable(0.1) == []

    def test_a_restarted_mec_loses_what_the_old_one_had(self) -> None:
        session, request_id = with_open_request()
        assert session.receive(wire.Welcome("mec-2", HELD, 2.0), b"", 0.5) == [
            Unanswered((request_id,), "the MEC restarted")
        ]
        assert session.mec_slowdown == 2.0

    def test_a_mec_that_forgot_us_is_greeted_again_at_once(self) -> None:
        session, request_id = with_open_request()
        reject = wire.Reject(request_id, wire.RejectReason.NO_SESSION, "say hello first")
        changed, lost = session.receive(reject, b"", 0.5)
        assert isinstance(changed, LinkChanged)
        assert changed.state is LinkState.WAITING
        assert isinstance(lost, Unanswered)
        assert lost.request_ids == (request_id,)
        assert session.tick(0.5) == [Transmit(wire.Hello("camera", HELD))]

    @pytest.mark.parametrize("reason", [r for r in wire.RejectReason if r.name not in ("DIGEST", "NO_SESSION")])
    def test_a_rejection_ends_its_request(self, reason: wire.RejectReason) -> None:
        session, request_id = with_open_request()
        (action,) = session.receive(wire.Reject(request_id, reason, "no"), b"", 0.5)
        assert isinstance(action, Unanswered)
        assert action.request_ids == (request_id,)

    def test_an_expired_request_tells_how_long_it_waited_unless_that_cannot_be(self) -> None:
        session, request_id = with_open_request()
        expired = wire.Reject(request_id, wire.RejectReason.EXPIRED, "too late", 400_000)
        assert session.receive(expired, b"", 0.5) == [Expired((request_id,), "expired: too late", 0.4)]
        session, request_id = with_open_request()
        fault, blamed = session.receive(msgspec.structs.replace(expired, queue_us=4_000_000), b"", 0.5)
        assert isinstance(fault, PeerFault)
        assert type(blamed) is Unanswered

    def test_a_busy_mec_tells_how_long_a_request_would_have_waited_which_may_be_longer_than_it_has(self) -> None:
        session, request_id = with_open_request()
        busy = wire.Reject(request_id, wire.RejectReason.BUSY, "no room", 4_000_000)
        assert session.receive(busy, b"", 0.5) == [Busy((request_id,), "busy: no room", 4.0)]
        assert session.faults == 0

    @pytest.mark.parametrize(
        "message",
        [
            *(wire.Welcome("mec-1", other, 1.0) for other in OTHERS.values()),
            wire.Reject(0, wire.RejectReason.DIGEST, "the MEC serves workload other"),
        ],
        ids=[*OTHERS, "reject"],
    )
    def test_another_bundle_is_refused_and_asked_for_again_seldom(self, message: wire.AnyMessage) -> None:
        session = DeviceSession("camera", HELD)
        session.tick(0.0)
        (changed,) = session.receive(message, b"", 0.0)
        assert isinstance(changed, LinkChanged)
        assert "the MEC" in changed.why
        assert session.tick(HEARTBEAT_S) == []
        assert len(session.tick(REFUSED_RETRY_S)) == 1
        assert session.receive(message, b"", REFUSED_RETRY_S) == []  # said once
        session.receive(WELCOME, b"", 3.0)
        assert session.state is LinkState.UP

    @pytest.mark.parametrize("message", [wire.Hello("x", HELD), request_of(1), wire.Ping(1)])
    def test_a_message_that_only_devices_send_is_a_fault_and_changes_nothing(self, message: wire.AnyMessage) -> None:
        session, _ = with_open_request()
        (fault,) = session.receive(message, b"x", 0.1)
        assert isinstance(fault, PeerFault)
        assert session.state is LinkState.UP
        session.check()

    def test_a_link_that_is_not_up_gets_new_connections_for_as_long_as_nobody_speaks(self) -> None:
        session = session_that_is_up()
        silence(session, 0.0, 2.0)
        actions = silence(session, 2.0, 3602.0)
        assert actions.count(Reconnect()) == pytest.approx(3600 / RETRY_S, rel=0.01)
        assert not any(isinstance(action, LinkChanged | Disconnect) for action in actions)

    def test_what_still_comes_over_a_connection_that_was_given_up_is_not_heard(self) -> None:
        session, request_id = with_open_request()
        session.receive(wire.Bye(), b"", 2.0)
        assert session.receive(wire.Pong(1), b"", 2.0) == []
        assert session.receive(reply_to(request_id), bytes(40), 2.0) == []
        assert session.state is LinkState.DOWN
        assert session.tick(2.0) == [Reconnect(), Transmit(wire.Hello("camera", HELD))]

    def test_a_connection_is_greeted_as_soon_as_it_is_there(self) -> None:
        session = DeviceSession("camera", HELD)
        session.tick(0.0)
        session.connected(0.05)
        assert session.tick(0.05) == [Transmit(wire.Hello("camera", HELD))]

    @pytest.mark.parametrize("outputs", [np.nan, np.inf, -np.inf, 3e38], ids=str)
    def test_outputs_that_no_model_gives_are_the_mecs_fault(self, outputs: float) -> None:
        session, request_id = with_open_request()
        buffer = np.array([0.5] * 9 + [outputs], np.float32).tobytes()
        fault, unanswered = session.receive(reply_to(request_id), buffer, 0.1)
        assert isinstance(fault, PeerFault)
        assert isinstance(unanswered, Unanswered)

    def test_a_flood_of_messages_that_nobody_asked_for_is_cut_off_for_longer_each_time(self) -> None:
        session, now_s, pauses = session_that_is_up(), 1.0, []
        for _ in range(9):
            actions: list[Action] = []
            while Disconnect() not in actions:
                actions = session.receive(wire.Pong(1), b"", now_s)
            assert session.receive(WELCOME, b"", now_s) == []
            pauses.append(session.next_tick_s - now_s)
            now_s = session.next_tick_s
            assert session.tick(now_s)[0] == Reconnect()
            session.receive(WELCOME, b"", now_s)
        assert pauses == sorted(pauses)
        assert (pauses[0], pauses[-1]) == (FIRST_PAUSE_S, MOST_PAUSE_S)

    def test_a_fault_now_and_then_is_borne(self) -> None:
        session = session_that_is_up()
        for step in range(200):
            actions = session.malformed(RemoteProtocolError("got garbage; expected a message"), step / 4)
            assert [type(action) for action in actions] == [PeerFault]
            tick = session.tick(step / 4)
            for action in tick:
                assert isinstance(action, Transmit)
                assert isinstance(action.message, wire.Ping)
                session.receive(wire.Pong(action.message.ping_id), b"", step / 4)

    def test_a_mec_whose_every_answer_is_wrong_is_cut_off_and_then_after_the_first(self) -> None:
        session, now_s, asked = session_that_is_up(), 1.0, []
        for _ in range(3):
            asked.append(0)
            while session.state is LinkState.UP:
                asked[-1] += 1
                now_s += 0.1  # too seldom to be a flood of faults
                request_id = session.next_id()
                session.request(request_of(request_id), (1, 10), now_s)
                session.receive(reply_to(request_id), np.full(10, np.nan, np.float32).tobytes(), now_s)
            now_s = session.next_tick_s
            session.tick(now_s)
            session.receive(WELCOME, b"", now_s)
        assert asked == [WRONG_REPLIES, 1, 1]

    def test_a_mec_that_comes_and_goes_waits_longer_each_time_but_a_restart_does_not(self) -> None:
        session, now_s, pauses = DeviceSession("camera", HELD), 0.0, []
        for _ in range(8):
            session.tick(now_s)
            session.receive(WELCOME, b"", now_s)
            session.receive(wire.Bye(), b"", now_s)
            pauses.append(session.next_tick_s - now_s)
            now_s = session.next_tick_s
        assert pauses == [0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0]
        session.tick(now_s)
        session.receive(WELCOME, b"", now_s)
        session.receive(wire.Bye(), b"", now_s + 60.0)
        assert session.next_tick_s == now_s + 60.0

    def test_a_mec_that_welcomes_and_never_says_another_word_waits_longer_each_time(self) -> None:
        session, now_s, pauses = DeviceSession("camera", HELD), 0.0, []
        for _ in range(6):
            session.tick(now_s)
            session.receive(WELCOME, b"", now_s)
            while session.state is LinkState.UP:
                now_s = max(now_s + 0.01, session.next_tick_s)
                session.tick(now_s)
            pauses.append(round(session.next_tick_s - now_s, 6))
            now_s = session.next_tick_s
        assert pauses == [0.0, 0.0, 0.0, 0.5, 1.0, 2.0]

    def test_a_probe_measures_its_echo(self) -> None:
        session = session_that_is_up()
        (sent,) = session.probe(1000, 2.0)
        assert isinstance(sent, Transmit)
        assert len(sent.buffer) == 1000
        assert isinstance(sent.message, wire.Ping)
        assert session.receive(wire.Pong(sent.message.ping_id), b"", 2.5) == [Echoed(1000, 0.5)]

    def test_closing_twice_says_bye_once_and_nothing_is_open_any_more(self) -> None:
        session, _ = with_open_request()
        assert session.close() == [Transmit(wire.Bye())]
        assert session.close() == []
        assert session.tick(99.0) == []
        session.check()


class TestMec:
    def mec(self) -> MecSession:
        session = MecSession("mec-1", [HELD], 4.0)
        assert session.receive(b"a", wire.Hello("camera", HELD), b"", 0.0) == [SendTo(b"a", WELCOME)]
        return session

    def test_admits_a_registered_peers_request_with_its_arrival(self) -> None:
        assert self.mec().receive(b"a", request_of(1), b"x", 3.0) == [Admit(b"a", request_of(1), b"x", 3.0, HELD)]

    @pytest.mark.parametrize("message", [request_of(5), wire.Ping(5)])
    def test_asks_an_unregistered_peer_to_say_hello(self, message: wire.AnyMessage) -> None:
        (sent,) = self.mec().receive(b"b", message, b"x", 0.0)
        assert isinstance(sent, SendTo)
        assert sent.peer == b"b"
        assert isinstance(sent.message, wire.Reject)
        assert sent.message.reason is wire.RejectReason.NO_SESSION

    @pytest.mark.parametrize(
        ("other", "named"),
        [
            ("workload", "the MEC serves workload campus, this device garments"),
            ("bundle", "the MEC's is d1d1d1d1d1d1, this device's a7a7a7a7a7a7"),
            ("space", "install the same version"),
        ],
    )
    def test_turns_away_who_holds_something_else_and_says_what(self, other: str, named: str) -> None:
        sent, refused = self.mec().receive(b"b", wire.Hello("x", OTHERS[other]), b"", 0.0)
        assert isinstance(sent, SendTo)
        assert isinstance(sent.message, wire.Reject)
        assert named in sent.message.text
        assert isinstance(refused, Refused)

    def test_what_an_unregistered_peer_says_of_itself_is_not_logged(self) -> None:
        for other in ("\n" * 60, "zebras"):
            held = msgspec.structs.replace(HELD, workload=other)
            _, refused = self.mec().receive(b"b", wire.Hello("x", held), b"", 0.0)
            assert refused == Refused("it holds another workload; this MEC serves campus")

    def test_answers_a_ping(self) -> None:
        assert self.mec().receive(b"a", wire.Ping(4), b"", 0.0) == [SendTo(b"a", wire.Pong(4))]

    @pytest.mark.parametrize("message", [WELCOME, reply_to(1), wire.Pong(1)])
    def test_counts_what_only_a_mec_sends_and_tells_only_registered_peers(self, message: wire.AnyMessage) -> None:
        session = self.mec()
        assert session.receive(b"unregistered", message, b"", 0.0) == []
        assert len(session.receive(b"a", message, b"", 0.0)) == 1
        assert session.faults == 2

    def test_a_registered_peer_that_says_bye_or_is_silent_is_unregistered(self) -> None:
        session = self.mec()
        session.receive(b"b", wire.Hello("x", HELD), b"", 0.0)
        session.receive(b"b", wire.Bye(), b"", 0.0)
        assert session.registered == (b"a",)
        session.forget_silent(FORGET_S + 1)
        assert session.registered == ()

    def test_the_longest_silent_peer_leaves_when_there_are_too_many(self) -> None:
        session = MecSession("mec-1", [HELD], 1.0)
        for number in range(MAX_REGISTERED):
            session.receive(b"%d" % number, wire.Hello("x", HELD), b"", number)
        session.receive(b"0", wire.Ping(1), b"", 5000.0)
        session.receive(b"new", wire.Hello("x", HELD), b"", 5001.0)
        assert b"0" in session.registered
        assert b"1" not in session.registered
        assert len(session.registered) == MAX_REGISTERED

    def test_says_bye_to_each_registered_peer_once(self) -> None:
        session = self.mec()
        assert session.close() == [SendTo(b"a", wire.Bye())]
        assert session.close() == []


@dataclass
class LossyPair:
    """A device and a MEC over a link that loses, repeats, delays and garbles; the MEC may restart."""

    rng: random.Random
    now_s: float = 0.0
    device: DeviceSession = field(default_factory=lambda: DeviceSession("camera", HELD))
    mec: MecSession = field(default_factory=lambda: MecSession("mec-0", [HELD], 1.0))
    restarts: int = 0
    to_mec: list[list[bytes]] = field(default_factory=list)
    to_device: list[list[bytes]] = field(default_factory=list)
    ended: dict[int, int] = field(default_factory=dict)  # request -> times it ended
    asked: set[int] = field(default_factory=set)

    def carry(self, line: list[list[bytes]], message: wire.AnyMessage, buffer: wire.Buffer, loss: float) -> None:
        copies = self.rng.choices([0, 1, 2], [loss, 1 - 1.2 * loss, 0.2 * loss])[0]
        for _ in range(copies):
            parts = [bytes(part) for part in wire.encode(message, buffer)]
            if self.rng.random() < loss / 4:
                parts[0] = parts[0][: self.rng.randrange(len(parts[0]))]
            line.insert(self.rng.randint(max(0, len(line) - 2), len(line)), parts)

    def act(self, actions: list, loss: float) -> None:
        for action in actions:
            match action:
                case Transmit():
                    self.carry(self.to_mec, action.message, action.buffer, loss)
                case Answered():
                    self.end(action.reply.request_id)
                case Unanswered():
                    for request_id in action.request_ids:
                        self.end(request_id)
        self.device.check()

    def end(self, request_id: int) -> None:
        self.ended[request_id] = self.ended.get(request_id, 0) + 1

    def step(self, loss: float) -> None:
        self.now_s += self.rng.uniform(0.0, 0.1)
        if self.rng.random() < loss / 10:
            self.restarts += 1
            self.mec = MecSession(f"mec-{self.restarts}", [HELD], 1.0)
        if self.device.state is LinkState.UP and self.rng.random() < 0.5:
            request_id = self.device.next_id()
            self.asked.add(request_id)
            self.device.request(request_of(request_id), OUTPUTS, self.now_s)
            self.carry(self.to_mec, request_of(request_id), b"x", loss)
        self.deliver_to_mec(loss)
        self.deliver_to_device(loss)
        self.act(self.device.tick(self.now_s), loss)

    def deliver_to_mec(self, loss: float) -> None:
        while self.to_mec:
            try:
                message, buffer = wire.decode(self.to_mec.pop(0))
            except RemoteProtocolError as error:
                actions = self.mec.malformed(b"p", error)
            else:
                actions = self.mec.receive(b"p", message, buffer, self.now_s)
            for action in actions:
                if isinstance(action, Admit):
                    reply = reply_to(action.request.request_id, mec_us=0)
                    self.carry(self.to_device, reply, bytes(40), loss)
                else:
                    self.carry(self.to_device, action.message, b"", loss)

    def deliver_to_device(self, loss: float) -> None:
        while self.to_device:
            try:
                message, buffer = wire.decode(self.to_device.pop(0))
            except RemoteProtocolError as error:
                self.act(self.device.malformed(error, self.now_s), loss)
            else:
                self.act(self.device.receive(message, buffer, self.now_s), loss)


@given(st.integers(0, 2**32), st.floats(0.0, 0.8))
def test_over_any_lossy_link_each_request_ends_at_most_once_and_the_link_recovers(seed: int, loss: float) -> None:
    pair = LossyPair(random.Random(seed))
    for _ in range(60):
        pair.step(loss)
    for _ in range(60):
        pair.step(0.0)
    assert pair.device.state is LinkState.UP
    assert all(times == 1 for times in pair.ended.values())
    assert set(pair.ended) <= pair.asked
    last = max(pair.asked)
    assert pair.ended.get(last) or last in pair.device._open
