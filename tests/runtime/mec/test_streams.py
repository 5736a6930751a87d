"""Payloads that refer to earlier ones, over real sockets: nobody's answer depends on another device, nothing is decoded
with a reference that the MEC does not hold, and memory is bounded whatever peers do."""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from support.once import once
from support.stranger import Stranger
from support.stream_bundle import CHAINED, FREE, TENSOR, WORKLOAD, make
from support.waiting import PATIENCE_S
from support.xor_streams import XorReceiver, register

from controller.records import Decision, Outcome, Status
from runtime.bundles.bundle import Bundle
from runtime.codecs.streams import MOST_STREAMS
from runtime.device.device import Device
from runtime.inference.segments import Segments
from runtime.inference.streams import receiver_bytes, sender_of
from runtime.link.connection import MecConnection, Offload, Replied
from runtime.link.endpoint import parse_endpoint
from runtime.link.link import DirectLink
from runtime.link.memory_watch import MemoryWatch
from runtime.link.senders import Senders
from runtime.mec.receivers import Receivers
from runtime.mec.server import MecServer
from runtime.mec.warm_up import WarmUp
from runtime.profiling.profile import load_costs
from runtime.protocol import wire
from runtime.protocol.device_actions import Actions, LinkChanged, Unanswered
from runtime.protocol.device_session import DeviceSession
from runtime.protocol.wire import RejectReason
from runtime.testbed.proxy import Mode, Proxy
from runtime.workloads.registry import get_workload


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    made = once(tmp_path_factory, "streams", lambda path: (path.mkdir(), make(path)))
    register()
    return made


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle(folder / "bundle")


def server(folder: Path, bind: str = "tcp://127.0.0.1:*") -> MecServer:
    return MecServer(folder / "bundle", bind, workload=WORKLOAD, profile=folder / "profile.json", queue_limit=64)


@pytest.fixture(scope="module")
def mec(folder: Path) -> Iterator[MecServer]:
    with server(folder) as made:
        yield made.start()


class WatchedSession(DeviceSession):
    """Counts what is lost because nothing was heard: only that, of all losses, comes from ``tick``."""

    silences = silenced = 0  # times that the link went down so, and requests that it cost

    def tick(self, now_s: float) -> Actions:
        actions = super().tick(now_s)
        self.silences += sum(isinstance(action, LinkChanged) for action in actions)
        self.silenced += sum(len(action.request_ids) for action in actions if isinstance(action, Unanswered))
        return actions


class Lone:
    """A device of one decision: sends sample after sample, two in flight, and keeps the outputs."""

    def __init__(self, bundle: Bundle, folder: Path, endpoint: str, decision: Decision) -> None:
        self.segments = Segments(bundle, get_workload(WORKLOAD))
        self.decision, self.row = decision, bundle.space.index(decision)
        self.shape = self.segments.output_shape(decision)
        self.alone = 0
        self.lost = 0
        self.outputs: dict[int, bytes] = {}
        self.session = WatchedSession("lone", bundle.held)
        self.connection: MecConnection[int] = MecConnection(
            endpoint,
            DirectLink(parse_endpoint(endpoint), time.perf_counter),
            self.session,
            load_costs(bundle, folder / "profile.json"),
            max_in_flight=2,
            clock=time.perf_counter,
            senders=Senders(partial(sender_of, bundle)),
        )

    def image(self, number: int) -> np.ndarray:
        return self.segments.workload.sample(number)[0]

    def expected(self, number: int) -> bytes:
        return self.segments.whole(self.image(number), self.decision).tobytes()

    def run(self, samples: range) -> None:
        left = list(samples)
        end_s = time.perf_counter() + PATIENCE_S
        while (left or self.connection.in_flight) and time.perf_counter() < end_s:
            if left and self.connection.takes_more:
                self._send(left.pop(0))
            self.connection.wait(time.perf_counter() + 0.01)
            for event in self.connection.poll():
                if isinstance(event, Replied):
                    self.outputs[event.job] = bytes(event.outputs)
                else:
                    self.lost += 1
                    left.insert(0, event.job)
        self.connection.close()

    def _send(self, number: int) -> None:
        draft = self.connection.draft(self.decision, number)
        assert draft is not None
        self.segments.head(self.image(number), self.decision, encode_as=draft.encode)
        payload = draft.payload()
        self.alone += not draft.encoded.reference_id
        self.connection.offload(
            number, Offload(self.row, self.row, self.shape, payload, 10.0, draft), time.perf_counter()
        )


class StreamStranger(Stranger):
    """A peer that has said hello."""

    def __init__(self, endpoint: str, bundle: Bundle) -> None:
        super().__init__(endpoint, int(1e3 * PATIENCE_S))
        self.bundle = bundle
        assert isinstance(self.ask(wire.Hello("stranger", bundle.held)), wire.Welcome)

    def infer(
        self, request_id: int, reference_id: int = 0, digest: int = 0, decision: Decision = FREE, payload: bytes = b""
    ) -> wire.AnyMessage:
        request = wire.InferRequest(request_id, self.bundle.space.index(decision), 60_000)
        return self.ask(wire.with_reference(request, reference_id, digest), payload or blank(self.bundle, decision))


def blank(bundle: Bundle, d: Decision) -> bytes:
    """A black picture; and the exclusive-or of two equal ones."""
    size = math.prod(bundle.payload_shape(d.model, d.resolution_px, d.partition_point))
    return zstandard.compress(bytes(size * (4 if d.partition_point else 1)))


#: Times that a device of this file may hear nothing on a loaded machine.
MOST_SILENCES = 5
DIGEST = zlib.crc32(bytes(28 * 28))


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """MEC and devices share this process: that it grows while they load models is no endless message of a MEC."""
    unlimited = partial(MemoryWatch, most_growth_bytes=1 << 60)
    monkeypatch.setattr("runtime.link.dialler.MemoryWatch", unlimited)


@pytest.mark.usefixtures("growing")
def test_devices_under_load_get_the_answers_of_a_lone_one(mec: MecServer, bundle: Bundle, folder: Path) -> None:
    devices = [Lone(bundle, folder, mec.endpoint, decision) for decision in (FREE, CHAINED, TENSOR)]
    stop = threading.Event()

    def disturb() -> None:
        """Own references with the ids of others, wrong digests, many streams."""
        rows = [d for d in bundle.space.decisions if d.payload in ("xor", "xorchain", "xort")]
        with StreamStranger(mec.endpoint, bundle) as loud:
            for number in range(1, 1_000_000):
                if stop.is_set():
                    return
                loud.infer(number, number % 7, DIGEST, decision=rows[number % len(rows)])

    threads = [
        threading.Thread(target=device.run, args=(range(100 * n, 100 * n + 60),)) for n, device in enumerate(devices)
    ]
    disturber = threading.Thread(target=disturb)
    for thread in (*threads, disturber):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    disturber.join()
    for n, device in enumerate(devices):
        assert sorted(device.outputs) == list(range(100 * n, 100 * n + 60))
        for number, outputs in device.outputs.items():
            assert outputs == device.expected(number)
        # A loaded machine may let a device hear nothing for so long that it gives up the link and sends again. Any
        # other loss, such as a rejection, is a fault.
        silences = device.session.silences
        assert device.lost == device.session.silenced <= 2 * silences
        assert silences <= MOST_SILENCES
        at_once = 1 if device.decision is CHAINED else 2  # two may be in flight before the first is answered
        assert 1 <= device.alone <= at_once * (1 + silences)


class TestHostileReferences:
    def reason(self, answer: wire.AnyMessage) -> RejectReason:
        assert isinstance(answer, wire.Reject)
        return answer.reason

    def test_what_the_mec_does_not_hold_is_refused_before_anything_is_decoded(
        self, mec: MecServer, bundle: Bundle
    ) -> None:
        with StreamStranger(mec.endpoint, bundle) as peer:
            never_issued = peer.infer(9, 8, DIGEST, payload=b"garbage")
            assert self.reason(never_issued) is RejectReason.REFERENCE
            assert isinstance(peer.infer(10), wire.InferReply)
            assert self.reason(peer.infer(11, 10, DIGEST ^ 1, payload=b"garbage")) is RejectReason.REFERENCE
            assert self.reason(peer.infer(12, 10, DIGEST, payload=b"garbage")) is RejectReason.PAYLOAD
            assert isinstance(peer.infer(13, 10, DIGEST), wire.InferReply)

    @pytest.mark.parametrize("decision", [FREE, CHAINED], ids=lambda d: d.payload)
    def test_other_peers_and_other_streams_are_out_of_reach(
        self, mec: MecServer, bundle: Bundle, decision: Decision
    ) -> None:
        small = Decision("mobilenet", 20, 3, 0, decision.payload)
        with StreamStranger(mec.endpoint, bundle) as owner, StreamStranger(mec.endpoint, bundle) as thief:
            assert isinstance(owner.infer(7, decision=decision), wire.InferReply)
            assert self.reason(thief.infer(8, 7, DIGEST, decision)) is RejectReason.REFERENCE
            assert self.reason(owner.infer(8, 7, DIGEST, small)) is RejectReason.REFERENCE
            assert isinstance(owner.infer(9, 7, DIGEST, decision), wire.InferReply)

    def test_a_codec_without_references_has_none(self, mec: MecServer, bundle: Bundle) -> None:
        raw = Decision("mobilenet", 28, 3, 0, "raw")
        with StreamStranger(mec.endpoint, bundle) as peer:
            assert isinstance(peer.infer(1, decision=raw, payload=bytes(784)), wire.InferReply)
            assert self.reason(peer.infer(2, 1, DIGEST, raw, bytes(784))) is RejectReason.REFERENCE

    def test_ids_that_begin_anew_and_ids_that_come_twice(self, mec: MecServer, bundle: Bundle) -> None:
        with StreamStranger(mec.endpoint, bundle) as peer:
            assert isinstance(peer.infer(wire.MAX_ID), wire.InferReply)
            assert isinstance(peer.infer(2, wire.MAX_ID, DIGEST), wire.InferReply)
            assert isinstance(peer.infer(2, wire.MAX_ID, DIGEST), wire.InferReply)
            assert isinstance(peer.infer(2, 2, DIGEST), wire.InferReply)  # 0 ids back: it stands alone
            assert self.reason(peer.infer(3, 1, DIGEST)) is RejectReason.REFERENCE

    def test_a_new_hello_and_a_bye_drop_what_was_held(self, mec: MecServer, bundle: Bundle) -> None:
        with StreamStranger(mec.endpoint, bundle) as peer:
            for leave in ((), (wire.Bye(),)):
                assert isinstance(peer.infer(1), wire.InferReply)
                for message in leave:
                    peer.socket.send_multipart(wire.encode(message))
                peer.ask(wire.Hello("stranger", bundle.held))
                assert self.reason(peer.infer(2, 1, DIGEST)) is RejectReason.REFERENCE

    def test_an_expired_request_was_not_decoded(self, mec: MecServer, bundle: Bundle) -> None:
        with StreamStranger(mec.endpoint, bundle) as peer:
            late = wire.InferRequest(5, bundle.space.index(CHAINED), 0)
            assert self.reason(peer.ask(late, blank(bundle, CHAINED))) is RejectReason.EXPIRED
            assert self.reason(peer.infer(6, 5, DIGEST, CHAINED)) is RejectReason.REFERENCE


def test_a_mec_warms_up_every_stream_codec(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = Segments(bundle, get_workload(WORKLOAD))
    decoded: list[tuple[int, bool]] = []
    decode = XorReceiver.decode

    def spy(self: XorReceiver, payload: bytes, request_id: int, reference_id: int, digest: int) -> np.ndarray:
        decoded.append((request_id, reference_id > 0))
        return decode(self, payload, request_id, reference_id, digest)

    monkeypatch.setattr(XorReceiver, "decode", spy)
    monkeypatch.setattr(segments, "passes", lambda *_: ())
    warm_up = WarmUp(segments)
    while warm_up.step():
        pass
    assert decoded == [(1, False), (2, True)] * 3  # xor, xorchain, xort


class TestMemory:
    def test_one_peer_keeps_few_streams_and_all_peers_together_so_many_bytes(self, bundle: Bundle) -> None:
        rows = [d for d in bundle.space.decisions if d.payload in ("xor", "xort")]
        most_bytes = 40 * receiver_bytes(bundle, FREE)
        receivers = Receivers(bundle, most_bytes)
        for number, decision in enumerate(rows):
            receivers.decode_as(b"loud", wire.InferRequest(number + 1, 0, 0), decision)
            assert len(receivers) <= MOST_STREAMS
        for number in range(200):
            decode_as = receivers.decode_as(f"{number}".encode(), wire.InferRequest(1, 0, 0), FREE)
            assert decode_as is not None
            decode_as(blank(bundle, FREE))
            assert receivers.kept_bytes <= most_bytes
        assert len(receivers) == 40
        receivers.keep_only({b"199", b"198"})
        assert (len(receivers), receivers.kept_bytes) == (2, 2 * receiver_bytes(bundle, FREE))
        receivers.drop(b"199")
        receivers.drop(b"198")
        assert (len(receivers), receivers.kept_bytes) == (0, 0)

    def test_a_stream_that_is_used_outlives_a_flood_of_others(self, bundle: Bundle) -> None:
        receivers = Receivers(bundle, 10 * receiver_bytes(bundle, FREE))

        def decode(peer: bytes, request: wire.InferRequest) -> None:
            decode_as = receivers.decode_as(peer, request, FREE)
            assert decode_as is not None
            decode_as(blank(bundle, FREE))

        decode(b"quiet", wire.InferRequest(1, 0, 0))
        for number in range(100):
            decode(f"{number}".encode(), wire.InferRequest(1, 0, 0))
            if number % 5 == 0:
                request = wire.InferRequest(number + 2, 0, 0)
                reference = 1 if number == 0 else number + 2 - 5
                decode(b"quiet", wire.with_reference(request, reference, DIGEST))

    def test_a_stream_larger_than_the_memory_for_all_is_decoded_and_not_kept(self, bundle: Bundle) -> None:
        receivers = Receivers(bundle, most_bytes=1000)
        decode_as = receivers.decode_as(b"a", wire.InferRequest(1, 0, 0), FREE)
        assert decode_as is not None
        assert not decode_as(blank(bundle, FREE)).any()
        assert (len(receivers), receivers.kept_bytes) == (0, 0)


@pytest.mark.usefixtures("growing")
@pytest.mark.parametrize("decision", [FREE, CHAINED], ids=lambda d: d.payload)
def test_a_killed_mec_and_a_half_open_link_cost_no_frame_and_no_answer(folder: Path, decision: Decision) -> None:
    first = server(folder).start()
    where = parse_endpoint(first.endpoint)
    pinned = {
        name: getattr(decision, name)
        for name in ("model", "resolution_px", "exit_branch", "partition_point", "payload")
    }
    outcomes: list[Outcome] = []
    with Proxy((where.host, where.port)) as proxy:
        device = Device(
            folder / "bundle", workload=WORKLOAD, profile=folder / "profile.json", decision=pinned,
            mec=proxy.endpoint, fps=20, deadline_s=1.0,
        )  # fmt: skip
        run = device.run()

        def served(count: int) -> None:
            """Go on until so many more frames were answered by the MEC."""
            for outcome in run:
                outcomes.append(outcome)
                count -= outcome.status is Status.OK
                if not count:
                    return

        served(30)
        proxy.set(Mode.CUT)
        first.close()
        with server(folder, first.endpoint).start():
            proxy.set(Mode.PASS)
            served(30)
            proxy.forget()
            served(40)
            device.stop()
            outcomes += run
    segments = Segments(Bundle(folder / "bundle"), get_workload(WORKLOAD))
    assert sorted(outcome.frame for outcome in outcomes) == list(range(len(outcomes)))
    answered = [o for o in outcomes if o.status is Status.OK]
    assert len(answered) >= 100
    for outcome in answered:
        image = segments.workload.sample(outcome.source_index)[0]
        assert outcome.prediction == segments.answer(segments.whole(image, decision), decision)
