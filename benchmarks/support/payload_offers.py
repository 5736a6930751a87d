"""Bytes and score of every payload of a bundle on the test split, and of image codecs that the bundle lacks.

Recorded values are read from the bundle. Other image codecs are run here on the first frames of the test split, in
their order, because a video codec needs that. If these are not all frames, their score is the recorded score of the
unencoded image over all frames, minus the loss on these frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.support.kinds import kind_of
from controller.packets import wire_bytes
from controller.records import Decision, Floats, Ints
from runtime.building.split_frames import first_frames
from runtime.bundles.bundle import Bundle
from runtime.bundles.recorded import Recorded
from runtime.codecs import get_codec
from runtime.codecs.streams import StreamCodec
from runtime.inference.steady import steady_stream
from runtime.workloads.base import Workload
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Image, Images

#: Ages of a reference that are shown: of a codec that refers to the payload before, and of one that waits for answers.
SHOWN_AGES = (1, 3)
#: The age where a payload stands alone.
ALONE = 0


@dataclass(frozen=True)
class Offer:
    """One way to compute an answer with the MEC, with its bytes and score on the test split."""

    decision: Decision  # with frame stride 1
    age: int  # of the reference in frames; ALONE without one
    payload_bytes: float  # mean
    message_bytes: float  # mean on the wire, see ``controller.packets``
    bits_per_element: float  # of the image's bytes, or the tensor's values
    score: float  # mean

    @property
    def kind(self) -> str:
        return kind_of(self.decision)

    @property
    def label(self) -> str:
        """The decision in a few words, with the age of the reference."""
        return self.decision.label + (f", reference {self.age} frames old" if self.age > 1 else "")

    def plain(self) -> dict[str, Any]:
        return asdict(self) | {"kind": self.kind}


def recorded_offers(bundle: Bundle) -> list[Offer]:
    """All payloads of the bundle, for each exit after their cut; where they may refer to an earlier one, standing
    alone and at SHOWN_AGES. Their bytes are those of the validation split if samples are no stream."""
    recorded = bundle.recorded("test")
    score = recorded.score.mean(axis=1)
    offers = []
    for decision in bundle.space.decisions:
        if bundle.payload(decision).mean_bytes > 0 and decision.frame_stride == 1:
            for age, sizes in _sizes(bundle, recorded, decision).items():
                offers.append(_offer(bundle, decision, age, sizes, float(score[bundle.variant(decision)])))
    return offers


def _sizes(bundle: Bundle, recorded: Recorded, decision: Decision) -> dict[int, Ints | Floats]:
    """Payload bytes of the samples by the age of the reference."""
    key = decision.payload_key
    aged = (recorded.aged_bytes or {}).get(key)
    if aged is not None:
        ages = (ALONE, *bundle.manifest.reference_ages)
        return {age: aged[ages.index(age)] for age in (ALONE, *SHOWN_AGES) if age in ages}
    if recorded.payload_bytes is not None:
        return {ALONE: recorded.payload_bytes[key]}
    return {ALONE: np.array([bundle.payload(decision).mean_bytes])}


def _offer(bundle: Bundle, decision: Decision, age: int, sizes: Ints | Floats, score: float) -> Offer:
    payload = float(np.mean(sizes))
    shape = bundle.payload_shape(decision.model, decision.resolution_px, decision.partition_point)
    message = float(np.mean(wire_bytes(np.asarray(sizes, float))))
    return Offer(decision, age, payload, message, 8 * payload / math.prod(shape), score)


@torch.inference_mode()
def measured_offers(
    bundle: Bundle,
    workload: Workload,
    codecs: Sequence[str],
    most_frames: int | None = None,
    on_status: Callable[[str], None] = lambda _: None,
) -> list[Offer]:
    """Image codecs that the bundle need not have, run on the first frames of the test split with all models that are
    offered as full offload. A video codec refers to the frame before."""
    recorded = bundle.recorded("test")
    offers = []
    for px in bundle.manifest.resolutions_px:
        for codec in codecs:
            on_status(f"{px} px, {codec}")
            age = 1 if isinstance(get_codec(codec), StreamCodec) else ALONE
            sizes, scores = _run(bundle, workload, px, codec, most_frames)
            for (model, exit_branch), found in scores.items():
                exact = recorded.score[bundle.variant(Decision(model, px, exit_branch, 0, "raw"))]
                score = float(exact.mean() - (exact[: len(found)] - found).mean())
                offers.append(_offer(bundle, Decision(model, px, exit_branch, 0, codec), age, sizes, score))
    return offers


def _run(
    bundle: Bundle, workload: Workload, px: int, codec: str, most_frames: int | None
) -> tuple[Ints, dict[tuple[str, int], Floats]]:
    """Bytes of each frame, and its score by model and exit."""
    frames, models = first_frames(workload, "test", most_frames), _sending_images(bundle, px)
    truths = iter(frames.truths())
    transmitted = _Transmitted(bundle, Decision(models[0], px, 0, 0, codec))
    scores: dict[tuple[str, int], list[float]] = {}
    for seen in transmitted.after_first(frames.batches(px, -1)):
        wanted = [next(truths) for _ in seen]
        for model in models:
            network = bundle.model(model)
            for exit_branch, outputs in enumerate(network.all_exits(model_input(workload, network, seen))):
                answers = workload.answers(outputs.numpy(), px)
                scored = [workload.score(answer, truth) for answer, truth in zip(answers, wanted, strict=True)]
                scores.setdefault((model, exit_branch), []).extend(scored)
    return np.array(transmitted.sizes), {where: np.array(found) for where, found in scores.items()}


class _Transmitted:
    """Owns the stream of one image codec and the bytes of the pictures that it sent."""

    def __init__(self, bundle: Bundle, decision: Decision) -> None:
        self.sizes: list[int] = []
        self._codec, self._stream = get_codec(decision.payload), steady_stream(bundle, decision)

    def after_first(self, batches: Iterable[Images]) -> Iterator[Images]:
        """What the MEC sees. The very first picture only begins the stream and is left out."""
        first = 1
        for batch in batches:
            seen = [self._one(image) for image in batch][first:]
            if seen:
                yield np.stack(seen)
            if first:
                del self.sizes[:first]
            first = 0

    def _one(self, image: Image) -> Image:
        payload = (self._codec if self._stream is None else self._stream).encode(image)
        self.sizes.append(len(payload))
        return self._codec.decode(payload, image.shape) if self._stream is None else self._stream.decode()


def _sending_images(bundle: Bundle, px: int) -> list[str]:
    """The models that are offered as full offload at a resolution."""
    manifest = bundle.manifest
    return [m.name for m in manifest.models if px in manifest.resolutions_of(m) and manifest.codecs_at(m, 0)]
