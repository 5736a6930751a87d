"""Requests that come again byte by byte: equal outputs at once, for whoever asks, and never for anything else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from controller.records import Status
from runtime.device.device import Device
from runtime.mec.records import RequestRecord
from runtime.mec.server import MecServer
from runtime.mec.tails import ENTRY_BYTES, Tails
from runtime.workloads.garments.workload import Garments
from runtime.workloads.types import Image


class Slowly:
    """A clock that goes on a little whenever it is read."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1e-5
        return self.now_s


def outputs(seed: int, count: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).random((1, count)).astype(np.float32)


def test_outputs_are_those_of_the_same_bytes_and_the_same_row() -> None:
    tails, known = Tails(1 << 20), outputs(0)
    key = tails.key(3, b"payload")
    assert key is not None
    assert tails.outputs(key) is None
    tails.add(key, known, 0.01)
    known += 1.0  # an engine uses its memory again
    again, other_row, other_bytes = (tails.key(*asked) for asked in ((3, b"payload"), (4, b"payload"), (3, b"payloae")))
    assert again == key
    assert (tails.outputs(key) == outputs(0)).all()  # type: ignore[attr-defined]
    assert len({key, other_row, other_bytes}) == 3


def test_a_stream_that_never_repeats_stays_within_the_memory_and_costs_next_to_nothing() -> None:
    tails, asked = Tails(100_000, Slowly()), 0
    for number in range(4000):
        key = tails.key(0, number.to_bytes(4, "little"))
        if key is not None:
            asked += 1
            assert tails.outputs(key) is None
            tails.add(key, outputs(number, count=int(number % 500) + 1), 1e-4)
        assert tails.kept_bytes <= 100_000
    assert 0 < len(tails) <= 100_000 // ENTRY_BYTES
    assert asked < 1000


def test_outputs_larger_than_the_memory_are_not_kept() -> None:
    tails = Tails(2000)
    tails.add(b"key", outputs(0, count=1000), 0.01)
    assert len(tails) == tails.kept_bytes == 0


class Kept(list[RequestRecord]):
    """A sink that keeps everything."""

    def add(self, record: RequestRecord) -> None:
        self.append(record)

    def close(self) -> None:
        pass


class Few(Garments):
    """Three pictures, over and over."""

    name = "garments-few"
    bundle = "garments"

    def sample(self, index: int, split: str = "test") -> tuple[Image, int]:
        return super().sample(index % 3, split)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def records() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def mec(records: Kept) -> Iterator[MecServer]:
    with MecServer("garments", bind="tcp://127.0.0.1:*", cache="1MB", sinks=[records]) as server:
        yield server.start()


def test_two_devices_get_the_answers_that_they_would_get_without_the_cache(mec: MecServer, records: Kept) -> None:
    answers = []
    for _ in range(2):
        with Device(
            workload=Few(), mec=mec.endpoint, decision={"partition_point": 0}, fps=0, deadline_s=20.0
        ) as device:
            answers.append([(o.source_index % 3, o.prediction, o.status) for o in device.run(frames=12)])
    assert {status for run in answers for _, _, status in run} == {Status.OK}
    assert len({(picture, answer) for run in answers for picture, answer, _ in run}) == 3
    assert [record.cached for record in records if record.ending == "served"] == [False] * 3 + [True] * 21
    assert mec.counts.cached == 21
