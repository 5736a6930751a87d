"""Fit the codecs of one model on training frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from controller.errors import FailureError
from runtime.building.split_frames import SplitFrames
from runtime.codecs import get_codec
from runtime.codecs.streams import StreamCodec, Tables
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.inputs import model_input

#: Most consecutive training frames for a fit; their tensors are in memory at once.
FIT_FRAMES = 500

Codecs = Mapping[int, Sequence[str]]  # per cut


@torch.inference_mode()
def fit_codecs(
    name: str, model: BranchyModel, workload: Workload, frames: SplitFrames, px: int, codecs: Codecs
) -> Tables:
    """The tables of all tensor codecs of a model at one resolution. Image codecs have none: they serve all models."""
    tables: Tables = {}
    for cut, names in codecs.items():
        fitting = _fitted(names) if cut else []
        arrays = _tensors(model, workload, frames, px, cut) if fitting else np.empty(0)
        for codec in fitting:
            tables = joined_tables(name, tables, codec.fit(arrays))
    return tables


def needs_fitting(codecs: Codecs) -> bool:
    """Whether any of the tensor codecs is fitted."""
    return any(cut and _fitted(names) for cut, names in codecs.items())


def joined_tables(name: str, some: Tables, others: Tables) -> Tables:
    """Both tables of a model; FailureError when a name occurs in both."""
    if shared := sorted(set(some) & set(others)):
        raise FailureError(
            f"two codecs of model {name!r} are fitted to tables of the name {shared[0]!r}; expected different names: "
            "offer such a codec at one cut only"
        )
    return {**some, **others}


def _fitted(names: Sequence[str]) -> list[StreamCodec]:
    """Those codecs that fit something."""
    streams = [codec for codec in map(get_codec, names) if isinstance(codec, StreamCodec)]
    return [codec for codec in streams if type(codec).fit is not StreamCodec.fit]


def _tensors(model: BranchyModel, workload: Workload, frames: SplitFrames, px: int, cut: int) -> NDArray[np.float32]:
    """(frames, channels, h, w) at a cut."""
    return np.concatenate(
        [model.run_stages(model_input(workload, model, batch), 0, cut).numpy() for batch in frames.batches(px)]
    )
