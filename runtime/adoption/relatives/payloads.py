"""What a bottleneck is worth: its bytes and agreement, and the smallest JPEG that agrees as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from runtime.adoption.relatives.subject import Subject, evenly
from runtime.codecs import get_codec
from runtime.codecs.streams import AnsweredSender, StreamCodec
from runtime.models.stages import BranchyModel
from runtime.workloads.adopted.families import BottleneckFamily
from runtime.workloads.inputs import pixels
from runtime.workloads.types import Image

FIT_FRAMES = 120  # consecutive training frames that codecs are fitted on
STREAM_FRAMES = 24  # consecutive validation frames that payloads are measured on
JPEG_QUALITIES = (5, 10, 20, 35, 60, 85)
JPEG_FRAMES = 24
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


def jpegs(subject: Subject, seconds: float, advance: Callable[[float], None]) -> list[Payload]:
    """The whole model on JPEGs of the pictures: every quality at every resolution, cheapest first, within a time."""
    end_s = time.monotonic() + seconds
    indices = evenly_of(subject.held_out, JPEG_FRAMES)
    cases = [(px, quality) for px in reversed(subject.widths_px) for quality in JPEG_QUALITIES]
    found = []
    for done, (px, quality) in enumerate(cases):
        if time.monotonic() > end_s:
            break
        coded = [_jpeg(subject.picture(index, px, "validation"), quality) for index in indices]
        score = subject.score_of_pictures((picture for picture, _ in coded), px, indices)
        found.append(Payload(f"jpeg{quality}", px, float(np.mean([size for _, size in coded])), score))
        advance((done + 1) / len(cases))
    return found


def smallest(payloads: Iterable[Payload], score: float) -> Payload | None:
    """The smallest payload that agrees as well; None where none does."""
    return min((each for each in payloads if each.score >= score - TIE), key=lambda each: each.size, default=None)


def evenly_of(indices: Sequence[int], most: int) -> list[int]:
    """At most so many of the numbers, evenly spread."""
    return [indices[row] for row in evenly(len(indices), most)]


def _jpeg(picture: Image, quality: int) -> tuple[Image, int]:
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED), np.uint8), len(coded)


@torch.no_grad()
def bottleneck_payloads(subject: Subject, family: BottleneckFamily, model: BranchyModel, px: int) -> list[Payload]:
    """Bytes and agreement of every codec of a bottleneck at a resolution, on consecutive validation frames.

    Payloads of a codec that refers to earlier ones have the frame before as reference.
    """
    indices = range(min(STREAM_FRAMES, subject.work.sample_count("validation")))
    codes = np.concatenate([_code(subject, family, model, index, px, "validation") for index in indices])
    found = []
    for name in family.codecs:
        sizes, arrived = _sent(subject, family, model, px, name, codes)
        outputs = [_answer(subject, model, family, code) for code in arrived]
        found.append(Payload(name, px, float(np.mean(sizes)), subject.score(np.concatenate(outputs), px, indices)))
    return found


def _code(
    subject: Subject, family: BottleneckFamily, model: BranchyModel, index: int, px: int, split: str
) -> NDArray[np.float32]:
    picture = subject.picture(index, px, split)[None]  # type: ignore[arg-type]
    x = pixels(picture) if model.takes_pixels else subject.work.to_input(picture)
    return np.asarray(model.run_stages(x, 0, family.cut).numpy(), np.float32)


def _sent(
    subject: Subject,
    family: BottleneckFamily,
    model: BranchyModel,
    px: int,
    name: str,
    codes: NDArray[np.float32],
) -> tuple[list[int], Iterable[NDArray[np.float32]]]:
    """Bytes of each code, and what arrives of it."""
    codec = get_codec(name)
    if not isinstance(codec, StreamCodec):
        payloads = [codec.encode(code) for code in codes]
        return [len(payload) for payload in payloads], [codec.decode(each, codes.shape[1:]) for each in payloads]
    most = min(FIT_FRAMES, subject.work.sample_count("train"))
    fitted = codec.fit(np.concatenate([_code(subject, family, model, index, px, "train") for index in range(most)]))
    sender = AnsweredSender(codec.sender(codes.shape[1:], fitted))
    sizes = [len(sender.encode(code, frame).payload) for frame, code in enumerate(codes)]
    return sizes[1:], codes  # the first stands alone; signs arrive as they are


def _answer(
    subject: Subject, model: BranchyModel, family: BottleneckFamily, code: NDArray[np.float32]
) -> NDArray[np.float32]:
    z = torch.from_numpy(np.ascontiguousarray(code))[None]
    return np.asarray(model.tail(z, family.cut, 0).numpy(), np.float32)
