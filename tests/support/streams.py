"""The simulation of ``support.simulated`` with codecs whose payloads refer to earlier ones.

Pictures cross as real payloads through the product's senders and receivers. The answer to a picture is its checksum, so
one wrong bit anywhere is a wrong answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from controller.costs import CostTable
from controller.errors import RemoteProtocolError
from controller.records import NO_PAYLOAD, Decision, Outcome, Status
from controller.regions import Window
from controller.space import DecisionSpace
from runtime.codecs.streams import Sender, UnknownReferenceError, stream_codec
from runtime.mec.receivers import Receivers
from runtime.protocol import wire
from runtime.protocol.wire import RejectReason
from support.simulated import Answer, SimCompute, SimHead, SimMec, Simulation
from support.xor_streams import register

register()

#: Rows of the table: two local ones, then a stream of each kind, and one of the first kind at another resolution.
FAST, GOOD, FREE, CHAINED, SMALL = range(5)
KINDS = {"free": FREE, "chained": CHAINED}
LOSE = "lose"


def table() -> CostTable:
    decisions = (
        Decision("net", 28, 0, 1, "none"),
        Decision("net", 28, 1, 4, "none"),
        Decision("net", 28, 1, 0, "xor"),
        Decision("net", 28, 1, 0, "xorchain"),
        Decision("net", 20, 1, 0, "xor"),
    )
    return CostTable(
        DecisionSpace(decisions, np.array([1, 4, 4, 4, 4]), np.arange(5)),
        accuracy=np.array([0.8, 0.9, 0.93, 0.93, 0.92]),
        head_s=np.array([0.005, 0.04, 0.001, 0.001, 0.001]),
        payload_bytes=np.array([0.0, 0.0, 60.0, 60.0, 40.0]),
        payload_std_bytes=np.zeros(5),
        mec_s=np.array([0.0, 0.0, 0.004, 0.004, 0.004]),
    )


#: What the receivers need of a bundle.
BUNDLE: Any = SimpleNamespace(
    payload_shape=lambda _, px, cut: (4, px // 2, px // 2) if cut else (px, px), codec_tables=lambda *_: {}
)


def shape_of(decision: Decision) -> tuple[int, ...]:
    return BUNDLE.payload_shape("", decision.resolution_px, decision.partition_point)  # type: ignore[no-any-return]


def picture(source_index: int, decision: Decision) -> np.ndarray:
    """Noise, of which a few pixels differ from one sample to the next."""
    image = np.random.default_rng(0).integers(0, 256, shape_of(decision), np.uint8)
    image.reshape(-1)[source_index % image.size] = source_index % 251
    return image


def checksum(array: np.ndarray) -> np.ndarray:
    """What stands for the outputs of a network: (1, 1) float32."""
    return np.array([[zlib.crc32(array.tobytes()) % 1_000_000]], np.float32)


class StreamCompute(SimCompute):
    #: What the head of a decision computes on a sample.
    computed = staticmethod(picture)

    def sender(self, decision: Decision) -> Sender | None:
        codec = stream_codec(decision.payload)
        return None if codec is None else codec.sender(shape_of(decision), {})

    def head(
        self,
        source_index: int,
        decision: Decision,
        pause: Callable[[], None],
        encode_as: Callable[[Any], bytes] | None = None,
        window: Window | None = None,
    ) -> SimHead:
        head = super().head(source_index, decision, pause)
        if decision.payload == NO_PAYLOAD:
            return SimHead(b"", checksum(self.computed(source_index, decision)).tobytes())
        assert head.outputs is None
        assert encode_as is not None
        payload = encode_as(self.computed(source_index, decision))
        pause()  # an emulated device polls before it sends
        return SimHead(payload, None)

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float]:
        prediction = float(np.frombuffer(outputs, np.float32)[0])
        truth = float(checksum(self.computed(source_index, decision))[0, 0])
        return prediction, truth, float(prediction == truth)

    def score(self, prediction: Any, truth: Any) -> float:
        return float(prediction == truth)


@dataclass
class StreamMec(SimMec):
    """``faults``: what happens to the n-th request, the first being 1: it is lost, or rejected with a reason.
    ``slow``: requests whose reply comes this much later than others, in seconds."""

    faults: dict[int, str | RejectReason] = field(default_factory=dict)
    slow: dict[int, float] = field(default_factory=dict)
    answers: list[RejectReason | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._payloads: dict[int, bytes] = {}
        self.restart()
        self.instance = 0

    @property
    def peer(self) -> bytes:
        return f"{self.instance}-{self.connections}".encode()

    @property
    def alone(self) -> int:
        """Number of requests that stood alone."""
        return sum(not request.reference_back for request in self.requests)

    def count(self, reason: RejectReason) -> int:
        return self.answers.count(reason)

    def restart(self) -> None:
        super().restart()
        self.receivers = Receivers(BUNDLE)

    def send(self, message: wire.Sendable, buffer: wire.Buffer) -> None:
        if isinstance(message, wire.InferRequest):
            self._payloads[message.request_id] = bytes(buffer)
        super().send(message, buffer)

    def _infer(self, r: wire.InferRequest, now_s: float) -> Answer:
        self.requests.append(r)
        fault = self.faults.get(len(self.requests), self.reject)
        if fault == LOSE:
            self.answers.append(None)
            return None, now_s
        decision = self.costs.space.decisions[r.row]
        reason, outputs = (fault, b"") if isinstance(fault, RejectReason) else self._outputs(r, decision)
        self.answers.append(reason)
        if reason is not None:
            return (wire.Reject(r.request_id, reason, "no"), b""), now_s
        self._free_s = max(now_s, self._free_s) + float(self.costs.mec_s[r.row])
        reply = wire.InferReply(r.request_id, 0, wire.whole_us(self._free_s - now_s))
        return (reply, outputs), self._free_s + self.slow.get(len(self.requests), 0.0)

    def _outputs(self, r: wire.InferRequest, decision: Decision) -> tuple[RejectReason | None, bytes]:
        try:
            decode_as = self.receivers.decode_as(self.peer, r, decision)
            assert decode_as is not None
            return None, checksum(decode_as(self._payloads.pop(r.request_id))).tobytes()
        except UnknownReferenceError:
            return RejectReason.REFERENCE, b""
        except RemoteProtocolError:
            return RejectReason.PAYLOAD, b""


class StreamSimulation(Simulation):
    compute_type = StreamCompute
    mec_type = StreamMec
    mec: StreamMec  # type: ignore[assignment]

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"costs": table(), "fps": 10.0, "deadline_s": 0.2} | options))


def check(outcomes: list[Outcome], frames: int) -> None:
    """Assert one outcome for each frame, and no wrong answer."""
    assert [outcome.frame for outcome in outcomes] == list(range(frames))
    assert all(outcome.score == 1.0 for outcome in outcomes if outcome.prediction is not None)


def remote(outcomes: list[Outcome], rows: Container[int] = (FREE, CHAINED, SMALL)) -> list[int]:
    """Frames that the MEC answered in time."""
    decisions = table().space.decisions
    return [o.frame for o in outcomes if o.status is Status.OK and decisions.index(o.decision) in rows]  # type: ignore[arg-type]
