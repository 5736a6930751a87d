"""The networks of the families of an adopted model."""

from __future__ import annotations

from torch import nn

from runtime.models.bottleneck import CODE_STRIDE, Decoder, LevelEncoder
from runtime.models.classifiers import classifier
from runtime.models.detectors import SIZES, detector
from runtime.models.exit_head import class_head, map_head, stride_of
from runtime.models.foreign_stage import ForeignStage
from runtime.models.pixel_encoder import PixelEncoder, Pixels
from runtime.models.pixel_passes import PATCH
from runtime.models.stages import BranchyModel
from runtime.workloads.adopted.families import (
    Answers,
    BottleneckFamily,
    Cuts,
    CutShapes,
    ExitSpec,
    StudentFamily,
    WholeFamily,
)

PEAKS = 100  # candidates of a frame: small objects may be dense
PATCH_CHANNELS = 12  # of an encoder of pixels, after its first convolution
PIXEL_MEAN, PIXEL_STD = 128.0, 64.0  # of the pixels that an encoder takes


def whole(family: WholeFamily, last_exit: nn.Module) -> BranchyModel:
    """The foreign model and its exit heads."""
    exits = [exit_of(spec, family.answers) for spec in family.exits if family.answers]
    after = (*(spec.after for spec in family.exits), family.stages)
    return BranchyModel(_foreign(family.stages), [*exits, last_exit], after, channels_last=False)


def bottleneck(family: BottleneckFamily, last_exit: nn.Module) -> BranchyModel:
    """Encoder and decoder, and the stages of the foreign model before and after them."""
    before, after = _foreign(family.reads), _foreign(family.stages - family.joins)
    stages = [*before, encoder_of(family), decoder_of(family), *after]
    of_pixels = family.reads == 0  # pixels lie in memory with their colours last, and the encoder takes them so
    return BranchyModel(stages, [last_exit], (len(stages),), takes_pixels=of_pixels, channels_last=of_pixels)


def student(family: StudentFamily) -> BranchyModel:
    """A small detector or classifier of u8 pixels: it does not depend on what the foreign model makes of pictures."""
    answers = family.answers
    if answers.boxes:
        made = detector(SIZES[family.size], answers.widths_px, answers.classes, PEAKS, family.colours)
    else:
        made = classifier(family.size, family.colours, answers.classes)
    first, *others = made.stages
    stages = [nn.Sequential(Pixels(PIXEL_MEAN, PIXEL_STD), first), *others]
    return BranchyModel(stages, list(made.exits), made.exit_after, takes_pixels=True)


def exit_of(spec: ExitSpec, answers: Answers) -> nn.Module:
    """A new exit head."""
    places = _shapes(spec.at)
    if not answers.boxes:
        return class_head(places, spec.part, spec.hidden, answers.classes)
    return map_head(places, spec.part, spec.hidden, answers.widths_px, answers.classes, PEAKS)


def encoder_of(family: BottleneckFamily) -> nn.Module:
    """A new encoder: from pixels or the tensors at a cut to the code."""
    if family.code == "signs":
        return PixelEncoder(PATCH_CHANNELS, family.channels, PIXEL_MEAN, PIXEL_STD)
    if family.source is None:
        return LevelEncoder.of_pixels(PATCH_CHANNELS, family.channels, PIXEL_MEAN, PIXEL_STD, family.bits)
    channels, stride = family.source[0].tensors[0][0], _code_stride(family.source[0])
    return LevelEncoder.of_tensor(channels, family.channels, stride, family.bits)


def decoder_of(family: BottleneckFamily) -> Decoder:
    """A new decoder: from the code to the tensors at the cut."""
    places = {code_size(family, index): cut.tensors for index, cut in enumerate(family.at)}
    return Decoder(family.channels, family.trunk, places)


def code_size(family: BottleneckFamily, resolution: int) -> tuple[int, int]:
    """Height and width of the code at a resolution, counted as in ``family.at``."""
    if family.source is None:
        height, width = family.at[resolution].picture
        return -(-(height // PATCH) // 2), -(-(width // PATCH) // 2)
    (_, height, width), stride = family.source[resolution].tensors[0], _code_stride(family.source[resolution])
    return -(-height // stride), -(-width // stride)


def _code_stride(cut: CutShapes) -> int:
    """By how much a code is coarser than the tensor that it is made from."""
    return max(1, CODE_STRIDE // stride_of(cut.picture, cut.tensors[0]))


def _shapes(cuts: Cuts) -> dict[tuple[int, int], tuple[tuple[int, ...], ...]]:
    """Shapes of the tensors at a cut, by height and width of the picture."""
    return {cut.picture: cut.tensors for cut in cuts}


def _foreign(count: int) -> list[nn.Module]:
    return [ForeignStage() for _ in range(count)]
