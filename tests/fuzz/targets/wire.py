"""The decoder of messages: a byte that chooses a buffer, then the header."""

from __future__ import annotations

from runtime.protocol import wire
from tests.fuzz.targets.messages import OF_DEVICE, OF_MEC, OLD

#: Sizes of the buffer; the first has none.
_SIZES = (0, 1, 4, 40, 128, wire.MAX_PADDING_BYTES, wire.MAX_PART_BYTES)
_BUFFERS = [[bytes(size)] if size else [] for size in _SIZES]

SEEDS = [
    *(
        bytes([_SIZES.index(4 if isinstance(message, wire.InferReply) else min(len(buffer), 1))])
        + bytes(wire.encode(message)[0])
        for message, buffer in OF_DEVICE + OF_MEC
    ),
    *(b"\0" + bytes(header) for header in OLD),
]


def run(data: bytes) -> None:
    message, buffer = wire.decode([data[1:], *_BUFFERS[(data or b"\0")[0] % len(_BUFFERS)]])
    assert isinstance(message, wire.Message)
    assert wire.decode(wire.encode(message, buffer))[0] == message
