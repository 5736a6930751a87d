"""Payload codecs: convert arrays to bytes and back. Sizes are checked before memory is allocated.

At partition point 0 the payload is the resized u8 image: `raw` (uncompressed), `png`, `jpegQ` or `webpQ` with quality
Q, or `h264qN`, a picture of a video with constant rate factor N. At later partition points it is the float tensor
(channels, h, w), quantised per channel to 8, 4, 2 or 1 bits (`u8` ... `u1`), or a tensor of -1 and +1 (`signs`). A
decision that sends nothing has no codec; its payload is `NO_PAYLOAD`.
"""

from __future__ import annotations

from runtime.codecs.base import (
    IMAGE,
    TENSOR,
    Codec,
    check_codecs,
    check_decoded,
    check_size,
    decode,
    encode,
    get_codec,
    register_codec,
)
from runtime.codecs.image import QUALITIES, Jpeg, Png, Raw, WebP
from runtime.codecs.signs import Signs
from runtime.codecs.tensor import BITS, QuantisedTensor
from runtime.codecs.video import H264, RATE_FACTORS

__all__ = [
    "IMAGE",
    "TENSOR",
    "Codec",
    "check_codecs",
    "check_decoded",
    "check_size",
    "decode",
    "encode",
    "get_codec",
    "register_codec",
]

for _codec in (
    Raw(),
    Png(),
    *map(Jpeg, QUALITIES),
    *map(WebP, QUALITIES),
    *map(H264, RATE_FACTORS),
    *map(QuantisedTensor, BITS),
    Signs(),
):
    register_codec(_codec)
