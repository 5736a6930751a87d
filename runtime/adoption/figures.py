"""The rows of a report that are read from a finished bundle and its profile."""

from __future__ import annotations

import msgspec

from controller.records import NO_PAYLOAD, Decision
from runtime.adoption.report import ExitRow, PayloadRow, smallest_jpeg
from runtime.bundles.bundle import Bundle
from runtime.bundles.manifest import LOSSLESS, ModelInfo
from runtime.profiling.profile import Profile, SegmentKey, head_key
from runtime.workloads.adopted.workload import Adopted
from runtime.workloads.types import Split


def exit_rows(bundle: Bundle, profile: Profile | None) -> tuple[ExitRow, ...]:
    """Every exit at every resolution, with the time that a device needs alone where it was profiled."""
    times = _device_times(profile)
    rows = []
    for variant in bundle.manifest.variants:
        if variant.codec != LOSSLESS:
            continue
        info, e, px = bundle.info(variant.model), variant.exit_branch, variant.resolution_px
        alone = Decision(info.name, px, e, info.exit_after[e], NO_PAYLOAD)
        scores = variant.accuracy["validation"], variant.accuracy["test"]
        rows.append(ExitRow(info.name, e, px, *scores, _macs(info, e, px), times.get(head_key(alone))))
    return tuple(rows)


def frames_with_boxes(bundle: Bundle, work: Adopted) -> dict[str, int]:
    """How many of the measured frames of each split have a box in their truth; {} for a task without boxes."""
    if work.adoption.task not in ("detect", "text"):
        return {}
    splits: tuple[Split, ...] = ("validation", "test")
    return {
        split: sum(
            len(work.truths[work.source_index(index, split)]) > 0
            for index in range(bundle.manifest.sample_counts[split])
        )
        for split in splits
    }


def payload_rows(bundle: Bundle, whole: str) -> tuple[PayloadRow, ...]:
    """Every payload, beside the smallest JPEG after which the whole model, at any resolution, scores at least as much.

    ``whole`` is the name of the whole model.
    """
    plain = [_payload_row(bundle, *key) for key in _payload_keys(bundle)]
    jpegs = [row for row in plain if row.model == whole]
    return tuple(row if row.cut == 0 else _beside(row, smallest_jpeg(jpegs, row.score)) for row in plain)


def _payload_keys(bundle: Bundle) -> list[tuple[str, int, int, str]]:
    return [(p.model, p.resolution_px, p.partition_point, p.codec) for p in bundle.manifest.payloads]


def _payload_row(bundle: Bundle, model: str, px: int, cut: int, codec: str) -> PayloadRow:
    decision = Decision(model, px, len(bundle.info(model).exits) - 1, cut, codec)
    variant = bundle.manifest.variants[bundle.variant(decision)]
    mean_bytes = bundle.payload(decision).mean_bytes
    return PayloadRow(model, px, cut, codec, mean_bytes, variant.accuracy["validation"], "", None, None)


def _beside(row: PayloadRow, jpeg: PayloadRow | None) -> PayloadRow:
    if jpeg is None:
        return row
    name = f"{jpeg.resolution_px} px {jpeg.codec}"
    share = round(row.mean_bytes / jpeg.mean_bytes, 4)
    return msgspec.structs.replace(row, jpeg=name, jpeg_bytes=jpeg.mean_bytes, bytes_frac=share)


def _device_times(profile: Profile | None) -> dict[SegmentKey, float]:
    if profile is None or profile.device is None:
        return {}
    return {segment.key: segment.median_s for segment in profile.device.segments}


def _macs(info: ModelInfo, exit_branch: int, px: int) -> int:
    exit_info = info.exits[exit_branch]
    return sum(stage.macs[px] for stage in info.stages[: exit_info.after]) + exit_info.macs[px]
