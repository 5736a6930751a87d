"""Encoded bytes of images and tensors, for every cut and codec.

Payloads that may refer to an earlier one are encoded by the senders of their stream: standing alone, and with a
reference of each recorded age. The samples are taken as a circle, as the twin plays them, so before the first sample
come the last ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from controller.records import PayloadKey
from runtime.building.split_frames import RECORDED_SPLITS, SplitFrames, first_frames
from runtime.building.streams import AgedSizes
from runtime.bundles.manifest import PayloadInfo
from runtime.codecs import Codec, get_codec
from runtime.codecs.several import codec_for
from runtime.codecs.streams import RECORDED_AGES, StreamCodec, Tables
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload, stream_score
from runtime.workloads.family_decisions import codecs_at
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Split

Sizes = dict[PayloadKey, NDArray[np.int32]]


@dataclass(frozen=True)
class PayloadSizes:
    """Sizes of payloads: bytes of every sample, and a summary over the validation split."""

    #: Per split: (1, samples), or (1 + ages, samples) of payloads that may refer to an earlier one. The first row is of
    #: payloads that stand alone.
    samples: dict[str, Sizes] = field(default_factory=dict)
    infos: dict[PayloadKey, PayloadInfo] = field(default_factory=dict)

    def add(self, split: str, sizes: Sizes) -> None:
        """Add the sizes of one split."""
        self.samples[split] = self.samples.get(split, {}) | sizes
        if split == "validation":
            self.infos.update({key: _summary(key, found) for key, found in sizes.items()})

    def joined(self, other: PayloadSizes) -> PayloadSizes:
        """The sizes of both."""
        splits = dict.fromkeys((*self.samples, *other.samples))
        samples = {split: self.samples.get(split, {}) | other.samples.get(split, {}) for split in splits}
        return PayloadSizes(samples, self.infos | other.infos)

    def of_model(self, model: str) -> PayloadSizes:
        """The same sizes under the name of a model."""
        samples = {split: {(model, *key[1:]): found for key, found in by.items()} for split, by in self.samples.items()}
        infos = (msgspec.structs.replace(info, model=model) for info in self.infos.values())
        return PayloadSizes(samples, dict(zip(((model, *key[1:]) for key in self.infos), infos, strict=True)))


def payload_splits(workload: Workload) -> tuple[Split, ...]:
    """The splits on which payloads are measured: validation and test for a stream, else validation."""
    return RECORDED_SPLITS if stream_score(workload) is not None else ("validation",)


@torch.inference_mode()
def measure_tensors(
    name: str,
    model: BranchyModel,
    workload: Workload,
    frames: SplitFrames,
    px: int,
    codecs: Mapping[int, Sequence[str]],
    tables: Tables,
) -> Sizes:
    """Encoded bytes of the tensors at the given codecs of each cut; see `PayloadSizes.samples` for their form."""
    wanted = {cut: names for cut, names in codecs.items() if cut > 0 and names}
    encoders: dict[PayloadKey, _Encoder] = {}
    start = -_lead(name for names in wanted.values() for name in names)
    for batch in frames.batches(px, start) if wanted else ():
        z = model_input(workload, model, batch)
        for cut in range(1, max(wanted) + 1):
            z = model.run_stages(z, cut - 1, cut)
            for codec in wanted.get(cut, ()):
                key = (name, px, cut, codec)
                if key not in encoders:
                    shape = tuple(z.shape[1:])
                    encoders[key] = _Encoder(codec_for(codec, model.parts_at(cut, shape)), shape, tables, start)
                encoders[key].add(z.numpy())
    return {key: encoder.sizes() for key, encoder in encoders.items()}


def measure_images(
    workload: Workload,
    max_samples: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
    codecs: Sequence[str] | None = None,
) -> PayloadSizes:
    """Encoded bytes of the images at every resolution and codec, or at the given codecs.

    They are the same for every model, so the model in the keys is "". `advance` is called with the name of each step
    before it, once per resolution.
    """
    found = PayloadSizes()
    names = image_codecs(workload) if codecs is None else codecs
    start = -_lead(names)
    for px in workload.resolutions_px:
        advance(f"{px} px")
        for split in payload_splits(workload):
            encoders: dict[PayloadKey, _Encoder] = {}
            for batch in first_frames(workload, split, max_samples).batches(px, start):
                for codec in names:
                    key = ("", px, 0, codec)
                    if key not in encoders:
                        encoders[key] = _Encoder(get_codec(codec), batch.shape[1:], {}, start)
                    encoders[key].add(batch)
            found.add(str(split), {key: encoder.sizes() for key, encoder in encoders.items()})
    return found


def image_codecs(workload: Workload) -> tuple[str, ...]:
    """The codecs of images of all families, those of the workload first."""
    families = (codec for family in workload.families for codec in codecs_at(workload, family, 0))
    return tuple(dict.fromkeys((*workload.image_codecs, *families)))


class _Encoder:
    """Measures one codec on samples that come in order; those with negative numbers come before the first."""

    def __init__(self, codec: Codec, shape: tuple[int, ...], tables: Tables, start: int) -> None:
        self._codec = codec
        self._aged = AgedSizes(codec, shape, tables, RECORDED_AGES) if isinstance(codec, StreamCodec) else None
        self._next = start
        self._sizes: list[list[int]] = []

    def add(self, arrays: NDArray[np.generic]) -> None:
        for array in arrays:
            if self._aged is not None:
                sizes = self._aged.add(self._next, array)
            elif self._next >= 0:
                sizes = [len(self._codec.encode(array))]
            if self._next >= 0:
                self._sizes.append(sizes)
            self._next += 1

    def sizes(self) -> NDArray[np.int32]:
        return np.array(self._sizes, np.int32).T


def _lead(codecs: Iterable[str]) -> int:
    """Number of samples to run before the first."""
    return max(RECORDED_AGES) if any(isinstance(get_codec(name), StreamCodec) for name in codecs) else 0


def _summary(key: PayloadKey, found: NDArray[np.int32]) -> PayloadInfo:
    codec = get_codec(key[3])
    steady = found[steady_row(found)]
    mean_bytes, std_bytes = round(float(np.mean(steady)), 2), round(float(np.std(steady)), 2)
    if not isinstance(codec, StreamCodec):
        return PayloadInfo(*key, mean_bytes, std_bytes)
    by_age = tuple(round(float(mean), 2) for mean in found.mean(axis=1))
    return PayloadInfo(*key, mean_bytes, std_bytes, by_age, codec.chained)


def steady_row(found: NDArray[np.int32]) -> int:
    """The row of payloads in the steady state: with a reference one frame old where there are references."""
    return min(1, len(found) - 1)
