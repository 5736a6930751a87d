"""Kinds of decision that the benchmarks compare: what crosses the uplink, if anything does."""

from __future__ import annotations

from controller.records import NO_PAYLOAD, Decision
from runtime.codecs import get_codec
from runtime.codecs.streams import StreamCodec

#: A tensor that refers to an earlier one, and a tensor that stands alone.
SPLIT, PLAIN_SPLIT = "split", "plain split"
H264, JPEG, WEBP, LOSSLESS_IMAGE = "H.264", "JPEG", "WebP", "lossless image"
DEVICE = "device only"
KINDS = (SPLIT, PLAIN_SPLIT, H264, JPEG, WEBP, LOSSLESS_IMAGE, DEVICE)
#: The kinds that lose some of the picture, or of what was computed from it.
LOSSY_KINDS = KINDS[:5]
COLOURS = {SPLIT: "darkgreen", PLAIN_SPLIT: "tab:cyan", H264: "tab:red", JPEG: "tab:purple", WEBP: "tab:orange"}
COLOURS |= {LOSSLESS_IMAGE: "tab:gray", DEVICE: "black"}
_IMAGES = {"jpeg": JPEG, "webp": WEBP, "h264q": H264}


def kind_of(decision: Decision) -> str:
    """The kind of a decision, one of KINDS."""
    if decision.payload == NO_PAYLOAD:
        return DEVICE
    if decision.partition_point:
        return SPLIT if isinstance(get_codec(decision.payload), StreamCodec) else PLAIN_SPLIT
    return _IMAGES.get(decision.payload.rstrip("0123456789"), LOSSLESS_IMAGE)
