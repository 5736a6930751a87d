"""Put the stages of a trained model in 8 bits: weights and activations, for kernels that compute with integers.

NNCF chooses the range of every activation on training frames (post-training quantisation), one stage after the other,
so each stage is fitted to what the quantised ones before it give. Weights use 7 of their 8 bits: without VNNI,
processors add products in 16 bits, which would overflow, and a device without VNNI shall answer as a MEC with it does.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from controller.errors import UsageError
from runtime.models.folding import fold_for_inference
from runtime.models.graph_stage import INSTALL, GraphStage, StageGraph, graph_of, openvino, serialised
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.family_decisions import resolutions_of
from runtime.workloads.inputs import model_input

CALIBRATION_FRAMES = 96  # of the training split, evenly spaced; the resolutions take turns


def missing_eight_bits() -> str:
    """What to install before `eight_bit_stages` works, or ""."""
    try:
        openvino()
        import nncf  # noqa: F401
    except UsageError as error:
        return str(error)
    except ImportError:
        return f"8 bits need NNCF; install it with {INSTALL}"
    return ""


@torch.inference_mode()
def eight_bit_stages(model: BranchyModel, workload: Workload, family: str) -> list[StageGraph]:
    """The graphs of all stages of a trainable model. UsageError where a library is missing."""
    if missing := missing_eight_bits():
        raise UsageError(missing)
    folded = fold_for_inference(model)
    tensors = _calibration(folded, workload, family)
    graphs = []
    for number, stage in enumerate(folded.stages):
        graphs.append(stage_graph(stage, tensors))
        run = GraphStage(graphs[-1], f"stage {number} of {family}")
        tensors = [run(tensor).contiguous(memory_format=torch.channels_last) for tensor in tensors]
    return graphs


def _calibration(model: BranchyModel, workload: Workload, family: str) -> list[torch.Tensor]:
    """Inputs (1, ...) of training frames."""
    sizes, count = resolutions_of(workload, family), workload.sample_count("train")
    rows = np.linspace(0, count - 1, min(CALIBRATION_FRAMES, count)).astype(int)
    return [
        model_input(
            workload, model, workload.resize(workload.sample(int(row), "train")[0], sizes[k % len(sizes)])[None]
        ).contiguous(memory_format=torch.channels_last)
        for k, row in enumerate(rows)
    ]


def stage_graph(stage: torch.nn.Module, tensors: list[torch.Tensor], *, eight_bits: bool = True) -> StageGraph:
    """One stage in 8 bits, fitted to its inputs (1, channels, h, w); or as it is."""
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    graph = graph_of(stage, tensors[0])
    if eight_bits:
        arrays: list[NDArray[np.float32]] = [tensor.permute(0, 2, 3, 1).numpy() for tensor in tensors]
        graph = nncf.quantize(
            graph,
            nncf.Dataset(arrays),
            subset_size=len(arrays),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
    return serialised(graph)
