"""A receiver of a stream, fed with requests: ids and digests that may be right, payloads with their sizes."""

from __future__ import annotations

from collections.abc import Iterable

from numpy.typing import NDArray

from controller.errors import RemoteProtocolError
from runtime.codecs.streams import AnsweredSender, Receiver, StreamCodec, Tables
from tests.fuzz.targets.cut import Cut, sized

#: Requests of one input.
_MOST_REQUESTS = 12


def recorded(codec: StreamCodec, shape: tuple[int, ...], tables: Tables, arrays: Iterable[NDArray]) -> bytes:  # type: ignore[type-arg]
    """An input that is a healthy stream of these arrays."""
    sender, data = AnsweredSender(codec.sender(shape, tables)), b""
    for frame, array in enumerate(arrays):
        encoded = sender.encode(array, frame)
        number = sender.newest_id.to_bytes(1, "little")
        data += number + encoded.reference_id.to_bytes(1, "little") + encoded.digest.to_bytes(4, "little")
        data += sized(encoded.payload)
    return data


def feed(receiver: Receiver, shape: tuple[int, ...], data: bytes) -> None:
    """Give a receiver all requests of an input. Each may raise ``RemoteProtocolError``; the stream goes on."""
    cut = Cut(data)
    for _ in range(_MOST_REQUESTS):
        if not cut:
            return
        request_id, reference_id, digest = cut.byte(), cut.byte(), cut.number(4)
        try:
            array = receiver.decode(cut.sized(), request_id, reference_id, digest)
        except RemoteProtocolError:
            continue
        assert array.shape == shape
