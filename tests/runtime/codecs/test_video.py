"""A stream of H.264: pictures arrive as encoded, whatever is lost; no later picture builds on damaged bytes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from controller.errors import RemoteProtocolError, UsageError
from runtime.building.streams import AgedSizes
from runtime.codecs import decode, encode, get_codec
from runtime.codecs.h264 import check_h264
from runtime.codecs.streams import RECORDED_AGES, Encoded, StreamCodec, UnknownReferenceError

pytest.importorskip("av")

Image = NDArray[np.uint8]
SHAPE = (48, 64, 3)
CODEC = "h264q30"


def codec_of(name: str = CODEC) -> StreamCodec:
    codec = get_codec(name)
    assert isinstance(codec, StreamCodec)
    return codec


def scene(frame: int, shape: tuple[int, ...] = SHAPE) -> Image:
    """A smooth background, and a bright square that moves."""
    rows, columns = np.indices(shape[:2])
    image = (60 + rows + columns % 50).astype(np.uint8)
    image = image if len(shape) == 2 else np.repeat(image[..., None], 3, axis=2)
    image[10:20, (3 * frame) % 40 : (3 * frame) % 40 + 8] = 220
    return image


class Device:
    """A sender, and a shadow of what every decoder must make of its payloads."""

    def __init__(self) -> None:
        self.sender = codec_of().sender(SHAPE, {})
        self._shadow = codec_of().receiver(SHAPE, {})
        self.last_id = 0

    def encode(self) -> tuple[Encoded, Image]:
        """The payload of the next request, not yet handed over, and the picture that must come out of it."""
        self.last_id += 1
        coded = self.sender.encode(scene(self.last_id), self.last_id)
        return coded, self._shadow.decode(coded.payload, self.last_id, coded.reference_id, coded.digest)

    def send(self) -> tuple[Encoded, Image]:
        coded, picture = self.encode()
        self.sender.sent(self.last_id)
        return coded, picture


class Mec:
    """A receiver that notes nothing; ``decode`` fails as a receiver fails."""

    def __init__(self) -> None:
        self.receiver = codec_of().receiver(SHAPE, {})

    def decode(self, coded: Encoded, request_id: int) -> Image:
        return self.receiver.decode(coded.payload, request_id, coded.reference_id, coded.digest)


def test_a_payload_that_stands_alone_is_the_same_wherever_it_stands() -> None:
    device = Device()
    for _ in range(9):
        device.send()
    device.sender.forget()
    again = device.sender.encode(scene(10), 10)
    assert (again.reference_id, again.payload) == (0, encode(CODEC, scene(10)))


def test_what_is_recorded_of_a_payload_that_stands_alone_is_its_length() -> None:
    sizes = AgedSizes(codec_of(), SHAPE, {}, RECORDED_AGES)
    recorded = [sizes.add(number, scene(number)) for number in range(-max(RECORDED_AGES), 3)]
    alone = [len(codec_of().sender(SHAPE, {}).encode(scene(number), 1).payload) for number in range(3)]
    assert [found[0] for found in recorded[-3:]] == alone


@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 3), (28, 28), (33, 17, 3), (192, 256, 3)])
def test_pictures_arrive_one_by_one_and_look_like_those_sent(shape: tuple[int, ...]) -> None:
    codec = codec_of("h264q20")
    sender, receiver = codec.sender(shape, {}), codec.receiver(shape, {})
    for frame in range(1, 6):
        image = scene(frame, shape) if min(shape[:2]) > 20 else np.full(shape, 40 * frame, np.uint8)
        coded = sender.encode(image, frame)
        sender.sent(frame)
        seen = receiver.decode(coded.payload, frame, coded.reference_id, coded.digest)
        assert (seen.shape, seen.dtype, seen.flags.c_contiguous) == (shape, np.uint8, True)
        assert np.abs(seen.astype(int) - image).mean() < 4.0


def test_the_first_payload_stands_alone_and_each_later_one_refers_to_the_one_before() -> None:
    device, mec = Device(), Mec()
    first, _ = device.send()
    check_h264(first.payload, SHAPE, whole=True)
    assert (first.reference_id, first.digest) == (0, 0)
    mec.decode(first, 1)
    for request_id in range(2, 20):
        coded, picture = device.send()
        assert coded.reference_id == request_id - 1
        assert len(coded.payload) < len(first.payload)
        assert np.array_equal(mec.decode(coded, request_id), picture)


def test_without_a_stream_each_payload_stands_alone() -> None:
    image = scene(1)
    payload = encode(CODEC, image)
    assert payload == encode(CODEC, image)
    assert np.array_equal(decode(CODEC, payload, SHAPE), codec_of().receiver(SHAPE, {}).decode(payload, 1, 0, 0))
    assert len(encode("h264q45", image)) < len(payload)


def test_what_was_lost_and_not_answered_later_makes_the_next_payload_stand_alone() -> None:
    device = Device()
    for _ in range(3):
        device.send()
    device.sender.unanswered(2)
    assert device.send()[0].reference_id == 0
    device.sender.unanswered(3)  # before the payload that stands alone: no matter
    assert device.send()[0].reference_id == 4


def test_an_answer_to_a_later_request_shows_that_the_earlier_ones_arrived() -> None:
    device = Device()
    for _ in range(3):
        device.send()
    device.sender.unanswered(2)  # given up by the device, but decoded by the MEC
    device.sender.answered(3)
    assert device.send()[0].reference_id == 3
    device.sender.unanswered(1)
    assert device.send()[0].reference_id == 4


def test_a_payload_that_was_not_handed_over_makes_the_next_one_stand_alone() -> None:
    device = Device()
    device.send()
    device.encode()
    assert device.send()[0].reference_id == 0
    assert device.send()[0].reference_id == 3


def test_after_forget_the_next_payload_stands_alone() -> None:
    device = Device()
    device.send()
    device.sender.forget()
    assert device.send()[0].reference_id == 0


def test_a_stream_that_is_never_answered_starts_again_now_and_then() -> None:
    device = Device()
    references = [device.send()[0].reference_id for _ in range(200)]
    assert 2 <= references.count(0) <= 10


def test_a_picture_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="expected equal ones"):
        Device().sender.encode(np.zeros((10, 10, 3), np.uint8), 1)


def test_what_is_not_held_is_refused_and_leaves_the_receiver_as_it_was() -> None:
    device, mec = Device(), Mec()
    first, _ = device.send()
    second, picture = device.send()
    with pytest.raises(UnknownReferenceError, match="not held"):
        mec.decode(second, 2)
    mec.decode(first, 1)
    for reference_id, digest in ((1, second.digest ^ 1), (2, second.digest), (7, 0)):
        with pytest.raises(UnknownReferenceError):
            mec.receiver.decode(second.payload, 2, reference_id, digest)
    with pytest.raises(RemoteProtocolError, match=r"H\.264"):
        mec.receiver.decode(b"damaged", 2, 1, second.digest)
    with pytest.raises(RemoteProtocolError, match=r"H\.264"):
        mec.receiver.decode(second.payload, 2, 0, 0)  # as if it stood alone
    assert np.array_equal(mec.decode(second, 2), picture)
    with pytest.raises(UnknownReferenceError):
        mec.decode(second, 3)  # its reference is no longer the last one


EVENTS = st.sampled_from(["ok", "ok", "ok", "lost", "answer lost", "not sent", "damaged", "new MEC", "new connection"])


@settings(max_examples=60, deadline=None)
@given(events=st.lists(EVENTS, min_size=5, max_size=40), seed=st.integers(0, 2**32 - 1))
def test_whatever_happens_a_picture_is_right_or_refused_and_the_stream_goes_on(events: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    device, mec, refused = Device(), Mec(), False
    for event in [*events, "ok", "ok"]:
        if event == "not sent":
            device.encode()
            continue
        if event == "new connection":
            device.sender.forget()
        if event in ("new connection", "new MEC"):
            mec = Mec()
        coded, picture = device.send()
        payload = flipped(coded.payload, rng) if event == "damaged" else coded.payload
        refused = event == "lost"
        if not refused:
            try:
                seen = mec.decode(Encoded(payload, coded.reference_id, coded.digest), device.last_id)
            except RemoteProtocolError:
                refused = True
                assert event == "damaged" or coded.reference_id, "what stands alone must always be decoded"
            else:
                assert event == "damaged" or np.array_equal(seen, picture)
        answered = not refused and event != "answer lost"
        (device.sender.answered if answered else device.sender.unanswered)(device.last_id)
    assert not refused


def flipped(payload: bytes, rng: np.random.Generator) -> bytes:
    """With one to four bits changed."""
    data = bytearray(payload)
    for _ in range(rng.integers(1, 5)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def sound(array: Any) -> bool:
    return isinstance(array, np.ndarray) and (array.shape, array.dtype) == (SHAPE, np.uint8)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400), start=st.booleans())
def test_random_bytes_are_refused(data: bytes, start: bool) -> None:
    mec, device = Mec(), Device()
    first, _ = device.send()
    mec.decode(first, 1)
    for reference in ((0, 0), (1, device.send()[0].digest)):
        with contextlib.suppress(RemoteProtocolError):
            assert sound(mec.receiver.decode(b"\0\0\0\1\x41" * start + data, 2, *reference))


@pytest.mark.parametrize("position", [1, 2])
def test_damaged_payloads_lead_to_an_error_or_one_picture_and_later_ones_do_not_build_on_it(
    position: int, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(position)
    device = Device()
    coded = [device.send()[0] for _ in range(3)]
    target = coded[position - 1].payload
    cuts = [target[:end] for end in range(0, len(target), max(1, len(target) // 60))]
    for damaged in [*cuts, *(flipped(target, rng) for _ in range(300)), target + b"\0\0\1\x41\x9a", target * 2]:
        mec = Mec()
        if position == 2:
            mec.decode(coded[0], 1)
        reference = coded[position - 1].reference_id, coded[position - 1].digest
        with contextlib.suppress(RemoteProtocolError):
            assert sound(mec.receiver.decode(damaged, position, *reference))
        if damaged != target:
            with pytest.raises(UnknownReferenceError):
                mec.decode(coded[position], position + 1)
        mec.decode(coded[0], 9)
    assert capfd.readouterr() == ("", "")


def test_streams_do_not_disturb_each_other_nor_opencv(tmp_path: Path) -> None:
    path = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for frame in range(12):
        writer.write(scene(frame))
    writer.release()
    devices, mecs, film = [Device(), Device()], [Mec(), Mec()], cv2.VideoCapture(path)
    for _ in range(12):
        assert film.read()[0]
        for device, mec in zip(devices, mecs, strict=True):
            coded, picture = device.send()
            assert np.array_equal(mec.decode(coded, device.last_id), picture)
    film.release()
