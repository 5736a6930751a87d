"""Encoded bytes of images and tensors, for every cut and codec."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from runtime.building.split_frames import RECORDED_SPLITS, first_frames
from runtime.bundles.recorded import PayloadBytes, PayloadKey
from runtime.codecs import encode
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload, stream_score
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Images, Split


def payload_splits(workload: Workload) -> tuple[Split, ...]:
    """The splits on which payloads are measured: validation and test for a stream, else validation."""
    return RECORDED_SPLITS if stream_score(workload) is not None else ("validation",)


@torch.inference_mode()
def measure_tensors(
    name: str, model: BranchyModel, workload: Workload, batches: Iterable[Images], px: int
) -> PayloadBytes:
    """Encoded bytes, (samples,), of the tensor at every cut and codec after the first stage."""
    sizes: dict[PayloadKey, list[int]] = {}
    for batch in batches:
        z = model_input(workload, model, batch)
        for cut in range(1, len(model.stages)):
            z = model.run_stages(z, cut - 1, cut)
            for codec in workload.tensor_codecs:
                sizes.setdefault((name, px, cut, codec), []).extend(len(encode(codec, array)) for array in z.numpy())
    return _as_arrays(sizes)


def measure_images(
    workload: Workload, max_samples: int | None = None, advance: Callable[[str], None] = lambda _: None
) -> dict[str, PayloadBytes]:
    """Encoded bytes, (samples,), of the images at every resolution and codec, per split.

    They are the same for every model, so the model in the keys is "". `advance` is called with the name of each step
    before it, once per resolution.
    """
    sizes: dict[str, dict[PayloadKey, list[int]]] = {str(split): {} for split in payload_splits(workload)}
    for px in workload.resolutions_px:
        advance(f"{px} px")
        for split in payload_splits(workload):
            for batch in first_frames(workload, split, max_samples).batches(px):
                for codec in workload.image_codecs:
                    sizes[split].setdefault(("", px, 0, codec), []).extend(len(encode(codec, image)) for image in batch)
    return {split: _as_arrays(found) for split, found in sizes.items()}


def _as_arrays(sizes: dict[PayloadKey, list[int]]) -> PayloadBytes:
    return {key: np.array(found, np.int32) for key, found in sizes.items()}
