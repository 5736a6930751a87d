"""The families of an adopted model, as its description states them: the whole model and its cheaper relatives.

A description is data: ``build`` makes the networks that it names, and imports nothing because a file says so. Stages of
the foreign model are placeholders (`ForeignStage`) until the pieces of a model file are attached. Reading a description
needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from torch import nn

    from runtime.models.stages import BranchyModel

DETECTOR_SIZES = ("nano", "small", "medium")  # of `runtime.models.detectors`
CLASSIFIER_SIZES = ("tiny",)  # of `runtime.models.classifiers`

Count: TypeAlias = Annotated[int, Meta(ge=1, le=256)]
Width: TypeAlias = Annotated[int, Meta(ge=1, le=512)]  # channels of a layer that was made here
Size: TypeAlias = Annotated[int, Meta(ge=1, le=1 << 16)]
Part: TypeAlias = Annotated[tuple[Size, ...], Meta(min_length=1, max_length=5)]


class Answers(Struct, frozen=True, forbid_unknown_fields=True):
    """What the exits of relatives give: candidates of boxes or, without widths, logits of classes."""

    classes: Annotated[int, Meta(ge=1, le=1 << 14)]
    widths_px: tuple[Size, ...] = ()  # resolutions with an operating threshold each

    @property
    def boxes(self) -> bool:
        return bool(self.widths_px)


class CutShapes(Struct, frozen=True, forbid_unknown_fields=True):
    """The tensors at one cut at one resolution, without the batch."""

    picture: tuple[Size, Size]  # height and width of the model's input
    tensors: Annotated[tuple[Part, ...], Meta(min_length=1, max_length=8)]


Cuts: TypeAlias = Annotated[tuple[CutShapes, ...], Meta(min_length=1, max_length=16)]  # one for each resolution


class ExitSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """An exit head that was trained for a foreign model."""

    after: Count  # stages before it
    at: Cuts  # what it gets
    part: Annotated[int, Meta(ge=0, le=7)] = 0  # which of the tensors at the cut it reads
    hidden: Width = 32

    def __post_init__(self) -> None:
        _check(all(self.part < len(cut.tensors) for cut in self.at), "an exit head that reads a tensor of its cut")


class WholeFamily(Struct, frozen=True, tag="whole", forbid_unknown_fields=True):
    """The foreign model in stages, with exit heads after some of them. Its own outputs are the last exit."""

    stages: Count
    exits: tuple[ExitSpec, ...] = ()
    answers: Answers | None = None  # of the exit heads; None where there are none

    def __post_init__(self) -> None:
        places = (*(spec.after for spec in self.exits), self.stages)
        _check(all(a < b for a, b in pairwise(places)), "exits in order, before the last stage")
        _check(not self.exits or self.answers is not None, "answers of the exit heads")


class BottleneckFamily(Struct, frozen=True, tag="bottleneck", forbid_unknown_fields=True):
    """The foreign model with a small code in place of some of its stages.

    The first ``reads`` stages run as they are (0: the code is made from pixels). Then come an encoder, the only cut,
    and a decoder, which gives what is at the foreign model's cut after ``joins`` stages. The others run as they are.
    """

    stages: Count  # of the foreign model
    joins: Count
    at: Cuts  # the cut after ``joins`` stages
    code: Literal["signs", "levels"]
    channels: Width  # of the code
    bits: tuple[Literal[1, 2, 4, 8], ...] = ()  # of levels: the payloads that training rehearses
    trunk: Width = 64  # channels of the decoder
    reads: Annotated[int, Meta(ge=0, le=255)] = 0
    source: Cuts | None = None  # the cut after ``reads`` stages, where that is above 0

    def __post_init__(self) -> None:
        _check(self.reads < self.joins <= self.stages, "reads < joins <= stages")
        _check((self.source is None) == (self.reads == 0), "a source exactly where stages run before the encoder")
        _check(self.source is None or len(self.source) == len(self.at), "a source for each resolution")
        _check(all(len(c.tensors) == 1 and len(c.tensors[0]) == 3 for c in self.source or ()), "a source of one tensor")
        signs = self.code == "signs"
        _check(not (signs and (self.reads or self.bits)), "signs of pixels, or levels")
        _check(signs or bool(self.bits), "bits of the levels")
        _check(all(len(part) == 3 for cut in self.at for part in cut.tensors), "tensors of three dimensions")

    @property
    def cut(self) -> int:
        """The partition point between encoder and decoder, the only legal one but the last."""
        return self.reads + 1

    @property
    def codecs(self) -> tuple[str, ...]:
        """Names of the payload codecs of the code."""
        return ("signs",) if self.code == "signs" else tuple(f"u{bits}" for bits in sorted(self.bits, reverse=True))


class StudentFamily(Struct, frozen=True, tag="student", forbid_unknown_fields=True):
    """A small network with exits that learned the foreign model's answers."""

    size: Literal["nano", "small", "medium", "tiny"]
    answers: Answers
    colours: Literal[1, 3] = 3  # channels of its input

    def __post_init__(self) -> None:
        known = DETECTOR_SIZES if self.answers.boxes else CLASSIFIER_SIZES
        _check(self.size in known, f"a size that is one of: {', '.join(known)}")


Family: TypeAlias = WholeFamily | BottleneckFamily | StudentFamily


def build(family: Family, last_exit: Callable[[], nn.Module]) -> BranchyModel:
    """A newly initialised model of a family, without the pieces of its foreign stages.

    ``last_exit`` makes the head that turns the foreign model's own outputs into answers.
    """
    from runtime.workloads.adopted import networks

    if isinstance(family, WholeFamily):
        return networks.whole(family, last_exit())
    if isinstance(family, BottleneckFamily):
        return networks.bottleneck(family, last_exit())
    return networks.student(family)


def _check(holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"a family of an adopted model that does not fit itself; expected {expected}")
