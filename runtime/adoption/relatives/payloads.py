"""What a bottleneck is worth: its bytes and agreement, and the smallest JPEG that agrees as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from runtime.adoption.relatives.teacher import Teacher, evenly
from runtime.codecs import get_codec
from runtime.codecs.streams import AnsweredSender, StreamCodec
from runtime.models.stages import BranchyModel
from runtime.workloads.adopted.families import BottleneckFamily
from runtime.workloads.inputs import pixels
from runtime.workloads.types import Image, Split

FIT_FRAMES = 120  # consecutive training frames that codecs are fitted on
STREAM_FRAMES = 240  # consecutive validation frames whose payloads are measured
JPEG_QUALITIES = (5, 10, 20, 35, 60, 85)
COMPARED_FRAMES = 24  # validation frames on which payloads are compared
TIE = 0.005  # agreements this close are equal


@dataclass(frozen=True)
class Payload:
    """One payload of a whole frame at one resolution."""

    codec: str
    px: int
    size: float  # bytes of a frame, mean over validation frames
    score: float  # agreement of what the server answers, the same mean

    @property
    def words(self) -> str:
        return f"{self.codec} at {self.px} px: {self.size:,.0f} bytes, agreement {self.score:.3f}"


def jpegs(teacher: Teacher, seconds: float, advance: Callable[[float], None]) -> list[Payload]:
    """The whole model on JPEGs of the pictures: every quality at every resolution, cheapest first, within a time."""
    end_s = time.monotonic() + seconds
    indices = compared_frames(teacher)
    cases = [(px, quality) for px in reversed(teacher.widths_px) for quality in JPEG_QUALITIES]
    found = []
    for done, (px, quality) in enumerate(cases):
        if time.monotonic() > end_s:
            break
        coded = [_jpeg(teacher.picture(index, px, "validation"), quality) for index in indices]
        score = teacher.score_of_pictures((picture for picture, _ in coded), px, indices)
        found.append(Payload(f"jpeg{quality}", px, float(np.mean([size for _, size in coded])), score))
        advance((done + 1) / len(cases))
    return found


def smallest(payloads: Iterable[Payload], score: float) -> Payload | None:
    """The smallest payload that agrees as well; None where none does."""
    return min((each for each in payloads if each.score >= score - TIE), key=lambda each: each.size, default=None)


def compared_frames(teacher: Teacher) -> list[int]:
    """The validation frames on which payloads are compared."""
    return [teacher.held_out[row] for row in evenly(len(teacher.held_out), COMPARED_FRAMES)]


def whole_compared(teacher: Teacher) -> dict[int, float]:
    """Mean score of the whole model on these frames, at each resolution."""
    indices = compared_frames(teacher)
    return {
        px: teacher.score_of_pictures((teacher.picture(i, px, "validation") for i in indices), px, indices)
        for px in teacher.widths_px
    }


def _jpeg(picture: Image, quality: int) -> tuple[Image, int]:
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED), np.uint8), len(coded)


@torch.no_grad()
def bottleneck_payloads(teacher: Teacher, family: BottleneckFamily, model: BranchyModel, px: int) -> list[Payload]:
    """Bytes and agreement of every codec of a bottleneck at a resolution.

    Bytes are those of consecutive validation frames; payloads of a codec that refers to earlier ones have the frame
    before as reference. Agreement is that of the frames on which payloads are compared.
    """
    compared = compared_frames(teacher)
    stream = range(min(STREAM_FRAMES, teacher.work.sample_count("validation")))
    codes = np.concatenate([_code(teacher, family, model, index, px, "validation") for index in stream])
    answered = np.concatenate([_code(teacher, family, model, index, px, "validation") for index in compared])
    found = []
    for name in family.codecs:
        codec = get_codec(name)
        if isinstance(codec, StreamCodec):  # those of signs lose nothing
            sizes, arrived = _sizes_of_stream(teacher, family, model, px, codec, codes), answered
        else:
            sizes, arrived = [len(codec.encode(code)) for code in codes], codec.roundtrip(answered)
        outputs = np.concatenate([_answer(model, family, code) for code in arrived])
        found.append(Payload(name, px, float(np.mean(sizes)), teacher.score(outputs, px, compared)))
    return found


def _code(
    teacher: Teacher, family: BottleneckFamily, model: BranchyModel, index: int, px: int, split: Split
) -> NDArray[np.float32]:
    picture = teacher.picture(index, px, split)[None]
    x = pixels(picture) if model.takes_pixels else teacher.work.to_input(picture)
    return np.asarray(model.run_stages(x, 0, family.cut).numpy(), np.float32)


def _sizes_of_stream(
    teacher: Teacher,
    family: BottleneckFamily,
    model: BranchyModel,
    px: int,
    codec: StreamCodec,
    codes: NDArray[np.float32],
) -> list[int]:
    """Bytes of each code but the first, which has no reference. The codec is fitted on training frames."""
    most = min(FIT_FRAMES, teacher.work.sample_count("train"))
    tables = codec.fit(np.concatenate([_code(teacher, family, model, index, px, "train") for index in range(most)]))
    sender = AnsweredSender(codec.sender(codes.shape[1:], tables))
    return [len(sender.encode(code, frame).payload) for frame, code in enumerate(codes)][1:]


def _answer(model: BranchyModel, family: BottleneckFamily, code: NDArray[np.float32]) -> NDArray[np.float32]:
    z = torch.from_numpy(np.ascontiguousarray(code))[None]
    return np.asarray(model.tail(z, family.cut, 0).numpy(), np.float32)
