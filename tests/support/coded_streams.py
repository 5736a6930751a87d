"""More stream codecs for tests, and workloads of a stream that use them.

`fitted` (tensors) is `xort` whose payloads that stand alone are coded against the median of the training tensors.
`steps` (images, chained, lossy) sends differences to the frame before in small steps, so what arrives depends on all
frames since the one that stood alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray

from controller.errors import UsageError
from controller.forecast import Forecast, Forecaster, Shown
from runtime.codecs import IMAGE, TENSOR, register_codec
from runtime.codecs.base import Payload, get_codec
from runtime.codecs.streams import Encoded, Sender, StreamCodec, Tables, UnknownReferenceError
from runtime.models.blocks import conv_norm, pooled_head
from runtime.models.stages import BranchyModel
from runtime.workloads.classifier import Classifier
from runtime.workloads.family_decisions import FamilyDecisions
from runtime.workloads.types import Image, Split
from support import xor_streams
from support.xor_streams import FreeSender, XorReceiver, as_bytes, decompressed, digest_of

xor_streams.register()


class FittedSender(FreeSender):
    """Codes payloads that stand alone against the median."""

    def __init__(self, median: NDArray[np.uint8]) -> None:
        super().__init__()
        self._median = median

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        encoded = super().encode(array, frame)
        if encoded.reference_id:
            return encoded
        return Encoded(zstandard.compress((as_bytes(array) ^ self._median).tobytes()))


class FittedReceiver(XorReceiver):
    def __init__(self, median: NDArray[np.uint8], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(shape, dtype, 8)
        self._median = median

    def decode(self, payload: Payload, request_id: int, reference_id: int, digest: int) -> NDArray[Any]:
        decoded = super().decode(payload, request_id, reference_id, digest).copy()
        if reference_id:
            return decoded
        data = as_bytes(decoded) ^ self._median
        self.held[request_id] = data
        return np.frombuffer(bytearray(data.tobytes()), decoded.dtype).reshape(decoded.shape)


class Fitted(StreamCodec):
    name = "fitted"
    kind = TENSOR
    lossless = True
    chained = False

    def fit(self, arrays: NDArray[Any]) -> Tables:
        return {"median": np.median(arrays, axis=0).astype(np.float32)}

    def encode(self, array: NDArray[Any]) -> bytes:
        return zstandard.compress(array.tobytes())

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        return XorReceiver(shape, self.dtype, 1).decode(payload, 1, 0, 0)

    def sender(self, shape: tuple[int, ...], tables: Tables) -> Sender:
        return FittedSender(as_bytes(tables["median"]))

    def receiver(self, shape: tuple[int, ...], tables: Tables) -> FittedReceiver:
        return FittedReceiver(as_bytes(tables["median"]), shape, self.dtype)


class _Steps:
    """What both ends of `steps` hold: the frame before."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._before: NDArray[np.int16] | None = None
        self._id = 0

    def _moved(self, levels: NDArray[np.int8]) -> NDArray[np.int16]:
        before, step = (np.full(self._shape, 128), 32) if self._before is None else (self._before, 8)
        return np.clip(before + levels.astype(np.int16) * step, 0, 255).astype(np.int16)


class StepsSender(_Steps):
    @property
    def reference_id(self) -> int:
        return 0 if self._before is None else self._id

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        before, step = (np.int16(128), 32) if self._before is None else (self._before, 8)
        levels = np.clip(np.rint((array.astype(np.int16) - before) / step), -4, 4).astype(np.int8)
        reference = (self._id, digest_of(as_bytes(self._before))) if self._before is not None else (0, 0)
        self._before = self._moved(levels)
        return Encoded(zstandard.compress(levels.tobytes()), *reference)

    def sent(self, request_id: int) -> None:
        self._id = request_id

    def answered(self, request_id: int) -> None:
        pass

    def unanswered(self, request_id: int) -> None:
        self.forget()

    def forget(self) -> None:
        self._before = None


class StepsReceiver(_Steps):
    def decode(self, payload: Payload, request_id: int, reference_id: int, digest: int) -> NDArray[Any]:
        levels = decompressed(payload, math.prod(self._shape)).view(np.int8).reshape(self._shape)
        if reference_id == 0:
            self._before = None
        elif self._before is None or (reference_id, digest) != (self._id, digest_of(as_bytes(self._before))):
            raise UnknownReferenceError(f"request {reference_id} is not the one before")
        self._before, self._id = self._moved(levels), request_id
        return self._before.astype(np.uint8)


class Steps(StreamCodec):
    name = "steps"
    kind = IMAGE
    chained = True

    def encode(self, array: NDArray[Any]) -> bytes:
        return StepsSender(array.shape).encode(array, 0).payload

    def decode(self, payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
        return StepsReceiver(shape).decode(payload, 1, 0, 0)

    def sender(self, shape: tuple[int, ...], tables: Tables) -> Sender:
        return StepsSender(shape)

    def receiver(self, shape: tuple[int, ...], tables: Tables) -> StepsReceiver:
        return StepsReceiver(shape)


for _codec in (Fitted(), Steps()):
    try:
        get_codec(_codec.name)
    except UsageError:
        register_codec(_codec)

SPLITS: tuple[Split, ...] = ("train", "validation", "test", "all")


class Drifting(Classifier):
    """A disc or a square that drifts through noise: consecutive samples are frames of a stream."""

    name = "drifting"
    class_names = ("disc", "square")
    resolutions_px = (16, 12)
    families = ("tiny",)
    training_epochs = {"tiny": 1, "pair": 1}  # noqa: RUF012 - as a user writes it
    image_codecs = ("raw", "png")
    tensor_codecs = ("u8",)
    frame_strides = (1, 2)
    fps = 10.0

    def sample_count(self, split: Split) -> int:
        return 64 if split == "train" else 30

    def sample(self, index: int, split: Split = "test") -> tuple[Image, int]:
        index %= self.sample_count(split)
        image = np.random.default_rng(SPLITS.index(split)).integers(0, 40, (16, 16), dtype=np.uint8)
        label, x = index // 8 % 2, 3 + index % 11
        if label:
            cv2.rectangle(image, (x - 2, 6), (x + 2, 10), 255, -1)
        else:
            cv2.circle(image, (x, 8), 3, 200, -1)
        return image, label

    def build(self, family: str) -> BranchyModel:
        stages = [conv_norm(1, 4, 3, 2), conv_norm(4, 8, 3, 2)]
        if family == "pair":
            return BranchyModel(stages, [pooled_head(8, 2, 0, 2)], (2,))
        return BranchyModel(stages, [pooled_head(4, 2, 0, 2), pooled_head(8, 2, 0, 2)], (1, 2))


class Coded(Drifting):
    """With a codec that is chained, and a family that has only its own codec, at one resolution."""

    families = ("tiny", "pair")
    image_codecs = ("raw", "png", "steps")
    family_decisions = {  # noqa: RUF012 - as a user writes it
        "pair": FamilyDecisions(resolutions_px=(16,), image_codecs=("xor",), tensor_codecs={1: ("fitted",)})
    }


class _Clockwork(NamedTuple):
    """A forecaster that knows which class comes when, and from the second frame on how fast that is."""

    speed: float | None = None
    track_ids: tuple[int, ...] = ()

    def add(self, frame: int, prediction: Any) -> Forecast | None:
        return _Clockwork(0.124 if frame else None)

    def add_part(self, frame: int, prediction: Any, kept: Sequence[int]) -> Forecast | None:
        return self.add(frame, prediction)

    def at(self, frame: int) -> Shown:
        return Shown(frame // 8 % 2)


class Foreseen(Drifting):
    """With forecasts, which are right until the samples begin again."""

    def forecaster(self) -> Forecaster:
        return _Clockwork()
