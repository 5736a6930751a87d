"""The models of an adopted bundle, and the codecs of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.adoption.codec_choice import (
    PROBE_FRAMES,
    TENSOR_CODECS,
    choose_codecs,
    probe,
)
from runtime.adoption.cutting import CutModel
from runtime.adoption.describing import WHOLE
from runtime.adoption.report import LeftOut
from runtime.adoption.steps import Advance
from runtime.building.measure import TrainedModel
from runtime.bundles.pieces_file import save_pieces
from runtime.bundles.weights import save_weights
from runtime.models.foreign_stage import ForeignStage, has_foreign_stages
from runtime.models.stages import BranchyModel
from runtime.workloads.adopted.families import BottleneckFamily, Family, StudentFamily, WholeFamily
from runtime.workloads.adopted.workload import Adopted
from runtime.workloads.family_decisions import FamilyDecisions
from runtime.workloads.types import Images

#: Bits of a value in the smallest payload that is offered wherever a cut is legal.
_FEW_BITS = 4
#: A cut is offered if that payload is at most so large, as a share of the picture's bytes.
MOST_OF_PICTURE = 0.5


@dataclass(frozen=True)
class Member:
    """One model of the bundle. Its name is also that of its family."""

    name: str
    family: Family
    model: BranchyModel
    decisions: FamilyDecisions = field(default_factory=FamilyDecisions)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> TrainedModel:
        """What the measurement needs to know."""
        engine = "onnxruntime" if has_foreign_stages(self.model) else "torch"  # which records the answers
        after, training = self.model.exit_after, dict(self.training)
        return TrainedModel(self.name, self.name, f"{self.name}.safetensors", after, training, engine=engine)

    def save(self, folder: Path) -> None:
        """Write the model's file."""
        write = save_pieces if has_foreign_stages(self.model) else _save_plain
        write(folder / self.trained.file_name, self.model)


def _save_plain(path: Path, model: BranchyModel) -> None:
    save_weights(model, path)


def whole_member(work: Adopted, cut: CutModel) -> Member:
    """The foreign model itself, in stages."""
    family = WholeFamily(len(cut.stages))
    model = work.build(WHOLE)
    for stage, pieces in zip(model.stages, cut.stages, strict=True):
        assert isinstance(stage, ForeignStage)
        stage.attach(pieces)
    return Member(WHOLE, family, model.eval())


def offered(work: Adopted, member: Member, cut: CutModel) -> tuple[dict[int, tuple[str, ...]], list[LeftOut]]:
    """The codecs to try at each cut of a model, and the cuts whose payloads are too large to be of use."""
    stages = len(member.model.stages)
    if isinstance(member.family, StudentFamily):
        few = tuple(name for name in work.tensor_codecs if name not in TENSOR_CODECS[2:])
        return {0: work.image_codecs} | dict.fromkeys(range(1, stages), few), []
    height, width = cut.sizes[max(cut.sizes)]
    picture_bytes = height * width * 3
    codecs = {0: work.image_codecs}
    left = []
    for row in cut.rows:
        payload = row.raw_bytes / 4 * _FEW_BITS / 8
        if payload <= MOST_OF_PICTURE * picture_bytes:
            codecs[row.cut] = work.tensor_codecs
        else:
            left.append(
                LeftOut(
                    f"payloads at cut {row.cut} of {member.name}",
                    f"{payload / 1e3:.0f} kB with {_FEW_BITS} bits a value; expected at most {MOST_OF_PICTURE:.0%} of "
                    f"the picture's {picture_bytes / 1e3:.0f} kB",
                )
            )
    return codecs, left


def codecs_of(member: Member) -> dict[int, tuple[str, ...]]:
    """The codecs of each cut of a model."""
    return {0: member.decisions.image_codecs or (), **(member.decisions.tensor_codecs or {})}


def with_codecs(work: Adopted, member: Member, cut: CutModel, advance: Advance) -> tuple[Member, list[LeftOut]]:
    """The model with the codecs after which its answers agree, on some validation frames at a middle resolution.

    A bottleneck has the codecs that it was trained for.
    """
    if isinstance(member.family, BottleneckFamily):
        return member, []
    codecs, left = offered(work, member, cut)
    px = sorted(cut.sizes)[len(cut.sizes) // 2]
    chosen = choose_codecs(codecs, probe(member.model, work, px, _pictures(work, px, advance), codecs))
    left += [
        LeftOut(f"{row.codec} at cut {row.cut} of {member.name}", f"answers agree to {row.agreement:.2f} at {px} px")
        for row in chosen.left_out
    ]
    later = {at: names for at, names in chosen.codecs.items() if at}
    return replace(member, decisions=FamilyDecisions(None, chosen.codecs[0], later)), left


def _pictures(work: Adopted, px: int, advance: Advance) -> Iterator[Images]:
    """Validation frames at even distances, in their order, each as a batch."""
    count = work.sample_count("validation")
    numbers = np.unique(np.linspace(0, count - 1, min(PROBE_FRAMES, count)).round().astype(int)).tolist()
    for done, number in enumerate(numbers):
        advance(done, len(numbers))
        yield work.resize(work.sample(number, "validation")[0], px)[None]


@torch.inference_mode()
def whole_seconds(work: Adopted, member: Member) -> float:
    """Seconds of one frame through a model at every resolution, one thread; the better of two tries."""
    frame = work.sample(0, "validation")[0]
    total = 0.0
    for px in work.resolutions_px:
        x = work.to_input(work.resize(frame, px)[None])
        tries = []
        for _ in range(2):
            begin_s = time.perf_counter()
            member.model.whole(x, len(member.model.exits) - 1)
            tries.append(time.perf_counter() - begin_s)
        total += min(tries)
    return total
