"""Streams whose payloads grow with the age of their reference, with the bytes of each payload recorded for each age.

What crosses is made by real senders and receivers (``support.streams``). Each frame changes some values of the one
before, so a payload tells by its length how old its reference is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.costs import CostTable
from controller.records import NO_PAYLOAD, Decision, SystemState
from controller.references import NO_STREAM, ReferenceCosts
from controller.space import DecisionSpace
from runtime.bundles.recorded import AgedBytes, Recorded
from runtime.codecs.streams import Sender, stream_codec, stream_key
from runtime.protocol import wire
from runtime.protocol.wire import RejectReason
from support.simulated import Answer
from support.streams import StreamCompute, StreamMec, StreamSimulation, shape_of
from support.xor_streams import register

register()

SAMPLES = 120
AGES = tuple(range(1, 100))
#: Values of a picture that differ from the frame before, and signs of a tensor.
_CHANGED = 6
#: Exit, cut, codec, resolution, stride, head s. More streams than a connection keeps, of each kind one.
_ROWS = (
    (0, 1, NO_PAYLOAD, 28, 1, 0.005),
    (1, 4, NO_PAYLOAD, 28, 1, 0.040),
    (1, 0, "xor", 28, 1, 0.010),
    (1, 0, "xor", 28, 2, 0.010),
    (1, 0, "xorchain", 28, 1, 0.012),
    (1, 0, "xorchain", 28, 3, 0.012),
    (1, 2, "signs", 28, 1, 0.030),
    (1, 2, "signs", 28, 2, 0.030),
    (1, 0, "xor", 20, 1, 0.008),
    (1, 0, "xorchain", 20, 1, 0.008),
    (1, 0, "xor", 16, 1, 0.008),
)
DECISIONS = tuple(Decision("net", px, exit_, cut, codec, stride) for exit_, cut, codec, px, stride, _ in _ROWS)
_HEAD_S = [head_s for *_, head_s in _ROWS]


@cache
def _frames(shape: tuple[int, ...], signs: bool) -> NDArray[Any]:
    """(SAMPLES, *shape): a walk, so that two frames differ in more values the further they are apart."""
    rng = np.random.default_rng(len(shape))
    size = int(np.prod(shape))
    moves = np.zeros((SAMPLES, size), np.int64)
    for frame in range(SAMPLES):
        moves[frame, rng.permutation(size)[:_CHANGED]] = 1 if signs else rng.integers(1, 256, _CHANGED)
    walk = rng.integers(0, 256, size) + np.cumsum(moves, axis=0)
    if signs:
        return np.where(walk % 2, 1.0, -1.0).astype(np.float32).reshape(SAMPLES, *shape)
    return walk.astype(np.uint8).reshape(SAMPLES, *shape)


def computed(source_index: int, decision: Decision) -> NDArray[Any]:
    """What the head of a decision computes on a sample."""
    return np.asarray(_frames(shape_of(decision), decision.payload == "signs")[source_index])


def _sender(decision: Decision) -> Sender:
    codec = stream_codec(decision.payload)
    assert codec is not None
    return codec.sender(shape_of(decision), {})


def _aged(decision: Decision) -> NDArray[np.int32]:
    """(1 + ages, samples) bytes, alone and with each age of the reference."""
    sizes = np.zeros((1 + len(AGES), SAMPLES), np.int32)
    for sample in range(SAMPLES):
        for column, age in enumerate((0, *AGES)):
            sender = _sender(decision)
            if age:
                sender.encode(computed((sample - age) % SAMPLES, decision), SAMPLES)
                sender.sent(1)
                sender.answered(1)
            sizes[column, sample] = len(sender.encode(computed(sample, decision), SAMPLES + age).payload)
    return sizes


@cache
def recorded() -> Recorded:
    """Answers that are right for their own frame only."""
    sent = {d.payload_key: d for d in DECISIONS if d.payload != NO_PAYLOAD}
    aged: AgedBytes = {key: _aged(decision) for key, decision in sent.items()}
    score = np.ones((len(DECISIONS), SAMPLES), np.float32)
    steady = {key: sizes[1] for key, sizes in aged.items()}
    return Recorded(score, score, None, np.zeros((4, *score.shape), np.float32), steady, aged)


def costs() -> CostTable:
    """The rows, with the mean bytes by age."""
    aged = recorded().aged_bytes or {}
    local = np.array([decision.payload == NO_PAYLOAD for decision in DECISIONS])
    nothing = np.zeros((1 + len(AGES), 1))
    by_age = np.array([aged.get(d.payload_key, nothing).mean(axis=1) for d in DECISIONS])
    keys = list(dict.fromkeys(key for key in map(stream_key, DECISIONS) if key is not None))
    stream = np.array([NO_STREAM if (key := stream_key(d)) is None else keys.index(key) for d in DECISIONS])
    chained = np.array([d.payload == "xorchain" for d in DECISIONS])
    return CostTable(
        DecisionSpace(DECISIONS, np.array([1, *[4] * (len(DECISIONS) - 1)]), np.arange(len(DECISIONS))),
        accuracy=np.where(local, 0.8, 0.9),
        head_s=np.array(_HEAD_S),
        payload_bytes=by_age[:, 1],
        payload_std_bytes=np.zeros(len(DECISIONS)),
        mec_s=np.where(local, 0.0, 0.004),
        lagged_accuracy=np.zeros((len(DECISIONS), 4)),
        references=ReferenceCosts(np.array(AGES), by_age, stream, chained),
    )


def with_ages(table: CostTable, state: SystemState, seed: int = 0) -> SystemState:
    """The states with references of random ages, some without; as they are if the table has no streams."""
    if not table.streams:
        return state
    age = np.random.default_rng(seed).integers(0, 2 * len(AGES) // 3, (state.batch, table.streams))
    return replace(state, reference_age=np.where(age % 4 == 0, 0, age % 9 + (age > 50) * 100))


class AgedCompute(StreamCompute):
    STEPS = 400  # so often does the device look up while it computes
    computed = staticmethod(computed)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._recorded, self.samples = None, SAMPLES


class QueueMec(StreamMec):
    """Requests wait for each other, and expire, as at a real MEC."""

    def _infer(self, r: wire.InferRequest, now_s: float) -> Answer:
        self.requests.append(r)
        began_s = max(now_s, self._free_s)
        queue_us = wire.whole_us(began_s - now_s)
        if queue_us / 1e3 > r.remaining_budget_ms:
            self.answers.append(RejectReason.EXPIRED)
            return (wire.Reject(r.request_id, RejectReason.EXPIRED, "too late", queue_us), b""), began_s
        reason, outputs = self._outputs(r, self.costs.space.decisions[r.row])
        self.answers.append(reason)
        if reason is not None:
            return (wire.Reject(r.request_id, reason, "no"), b""), began_s
        self._free_s = began_s + float(self.costs.mec_s[r.row]) * self.slowdown
        return (wire.InferReply(r.request_id, queue_us, wire.whole_us(self._free_s - began_s)), outputs), self._free_s


class AgedSimulation(StreamSimulation):
    compute_type = AgedCompute
    mec_type = QueueMec

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"costs": costs(), "recorded": recorded()} | options))


def only(table: CostTable, *codecs: str) -> list[int]:
    """Rows of these codecs."""
    return [row for row, decision in enumerate(table.space.decisions) if decision.payload in codecs]
