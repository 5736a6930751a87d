"""Measures bytes and score of every payload of a bundle, and of image codecs that it lacks.

Recorded values are read from the bundle: bytes over the validation split, scores on both splits. Qualities of JPEG and
WebP that the bundle does not have are run here on evenly spaced frames of each split. Their score is the recorded score
over all frames, minus the loss against the unencoded image on these frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from controller.records import Decision
from runtime.building.split_frames import BATCH_PIXELS
from runtime.bundles.bundle import Bundle
from runtime.bundles.recorded import Recorded
from runtime.codecs import decode, encode, get_codec
from runtime.workloads.base import Workload
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Image, Split

SPLITS: tuple[Split, ...] = ("validation", "test")
QUALITIES = (2, 5, 10, 20, 30, 50, 75, 90)
QUALITY_CODECS = tuple(f"{family}{quality}" for family in ("jpeg", "webp") for quality in QUALITIES)
#: Pixels of the frames of one split that the live qualities are run on: 68 photographs, or all garments.
LIVE_PIXELS = 30_000_000

Row = tuple[str, int, int]  # model, resolution, exit


@dataclass(frozen=True)
class Offer:
    """One way to compute an answer with the MEC, with its bytes and scores."""

    model: str
    resolution_px: int
    exit_branch: int
    partition_point: int
    codec: str
    mean_bytes: float  # over the validation split
    bits_per_element: float  # of the image's bytes, or the tensor's values
    device_macs: int
    score: dict[str, float]  # mean per split

    @property
    def is_split(self) -> bool:
        return self.partition_point > 0

    @property
    def is_lossy_image(self) -> bool:
        return not self.is_split and not get_codec(self.codec).lossless

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def recorded_offers(bundle: Bundle) -> list[Offer]:
    """All decisions of the bundle that send a payload; those with a frame stride above 1 send the same ones."""
    scores = {split: bundle.recorded(split).score.mean(axis=1) for split in SPLITS}
    offers = []
    for decision in bundle.space.decisions:
        row = bundle.variant(decision)
        payload = bundle.payload(decision)
        if payload.mean_bytes > 0 and decision.frame_stride == 1:
            score = {str(split): float(mean[row]) for split, mean in scores.items()}
            where = (decision.model, decision.resolution_px, decision.exit_branch)
            offers.append(_offer(bundle, where, decision.partition_point, decision.payload, payload.mean_bytes, score))
    return offers


def _offer(bundle: Bundle, where: Row, cut: int, codec: str, mean_bytes: float, score: dict[str, float]) -> Offer:
    model, px, exit_branch = where
    bits = 8 * mean_bytes / math.prod(bundle.payload_shape(model, px, cut))
    macs = sum(stage.macs[px] for stage in bundle.info(model).stages[:cut])
    return Offer(model, px, exit_branch, cut, codec, mean_bytes, bits, macs, score)


@torch.inference_mode()
def live_offers(
    bundle: Bundle, workload: Workload, most_frames: int | None, on_status: Callable[[str], None] = lambda _: None
) -> list[Offer]:
    """JPEG and WebP of all qualities that the bundle does not have, run on some frames."""
    codecs = [codec for codec in QUALITY_CODECS if codec not in bundle.manifest.image_codecs]
    scores: dict[tuple[Row, str], dict[str, float]] = {}
    sizes: dict[tuple[int, str], float] = {}
    for split in SPLITS:
        recorded = bundle.recorded(split)
        indices = _spread(bundle, split, most_frames)
        for px, codec in product(bundle.manifest.resolutions_px, codecs):
            on_status(f"{split}, {px} px, {codec}")
            found, mean_bytes = _run(bundle, workload, split, indices, px, codec)
            sizes.setdefault((px, codec), mean_bytes)  # of the first split, validation
            for where, live in found.items():
                exact = _exact(bundle, recorded, where)
                score = float(exact.mean() - (exact[indices] - live).mean())
                scores.setdefault((where, codec), {})[split] = score
    return [_offer(bundle, where, 0, codec, sizes[where[1], codec], score) for (where, codec), score in scores.items()]


def _spread(bundle: Bundle, split: Split, most_frames: int | None) -> NDArray[np.int64]:
    """Evenly spaced numbers of recorded samples."""
    count = bundle.manifest.sample_counts[split]
    pixels = math.prod(bundle.frame_shape[:2])
    most = most_frames or LIVE_PIXELS // pixels
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _exact(bundle: Bundle, recorded: Recorded, where: Row) -> NDArray[np.float32]:
    """Scores of all samples with a lossless payload."""
    model, px, exit_branch = where
    row = bundle.variant(Decision(model, px, exit_branch, 0, "raw"))
    scores: NDArray[np.float32] = recorded.score[row]
    return scores


def _run(
    bundle: Bundle, workload: Workload, split: Split, indices: NDArray[np.int64], px: int, codec: str
) -> tuple[dict[Row, NDArray[np.float64]], float]:
    """Scores of every model and exit on the chosen frames with one image codec, and the codec's mean bytes."""
    scores: dict[Row, list[float]] = {}
    sizes: list[int] = []
    for images, truths in _batches(workload, split, indices, px):
        payloads = [encode(codec, image) for image in images]
        sizes += [len(payload) for payload in payloads]
        seen = np.stack([decode(codec, data, images[0].shape) for data in payloads])
        for model in _sending_images(bundle, px):
            network = bundle.model(model)
            for exit_branch, outputs in enumerate(network.all_exits(model_input(workload, network, seen))):
                answers = workload.answers(outputs.numpy(), px)
                scored = [workload.score(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
                scores.setdefault((model, px, exit_branch), []).extend(scored)
    return {where: np.array(found) for where, found in scores.items()}, float(np.mean(sizes))


def _sending_images(bundle: Bundle, px: int) -> list[str]:
    """The models that are offered as full offload at a resolution."""
    manifest = bundle.manifest
    return [m.name for m in manifest.models if px in manifest.resolutions_of(m) and manifest.codecs_at(m, 0)]


def _batches(
    workload: Workload, split: Split, indices: NDArray[np.int64], px: int
) -> Iterator[tuple[list[Image], list[Any]]]:
    """Resized frames and their truths, a few at a time."""
    images: list[Image] = []
    truths: list[Any] = []
    for index in indices.tolist():
        frame, truth = workload.sample(index, split)
        images.append(workload.resize(frame, px))
        truths.append(truth)
        if (len(images) + 1) * math.prod(images[0].shape[:2]) > BATCH_PIXELS:
            yield images, truths
            images, truths = [], []
    if images:
        yield images, truths
