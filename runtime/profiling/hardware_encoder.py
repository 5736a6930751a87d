"""A camera that encodes H.264 in hardware, as a change of the costs: encoding takes the device no time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from controller.costs import CostTable
from runtime.codecs import get_codec
from runtime.codecs.video import H264


def with_hardware_encoder(costs: CostTable) -> CostTable:
    """The costs with the device time of H.264 rows reduced to that of the resize, which is the raw image's.

    Take this before candidates are chosen. The table must have the raw image at each resolution of an H.264 row.
    """
    decisions = costs.space.decisions
    resize_s = {
        d.resolution_px: head_s
        for d, head_s in zip(decisions, costs.head_s.tolist(), strict=True)
        if d.partition_point == 0 and d.payload == "raw"
    }
    rows = [row for row in np.flatnonzero(~costs.space.device_only) if is_h264(decisions[row].payload)]
    head_s = costs.head_s.copy()
    head_s[rows] = [resize_s[decisions[row].resolution_px] for row in rows]
    return replace(costs, head_s=head_s)


def is_h264(codec: str) -> bool:
    """Whether a hardware encoder can do the work of this codec."""
    return isinstance(get_codec(codec), H264)


def hardware_notes(hardware_encoder: bool) -> tuple[str, ...]:
    """What a reader of figures must know about the costs that were changed."""
    return ("hardware_encoder: encoding H.264 takes the device no time",) if hardware_encoder else ()
