"""The workload of an adopted bundle: everything that it does follows from the bundle's description."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError
from controller.forecast import Forecaster
from controller.scenario import Scenario, ScenarioRange
from runtime.decoders.base import Decoder, get_decoder
from runtime.decoders.given import GivenDecoder, given
from runtime.files.reading import read_bounded
from runtime.plug_ins import in_a_line
from runtime.workloads.adopted.description import (
    ADOPTION_FILE,
    Adoption,
    UserCode,
    decode_adoption,
)
from runtime.workloads.adopted.detections import boxes_of, counts_of
from runtime.workloads.adopted.families import build
from runtime.workloads.adopted.found_footage import find_footage
from runtime.workloads.adopted.pictures import FrameReader, open_pictures
from runtime.workloads.base import Workload
from runtime.workloads.boxes import expected_f1, inside
from runtime.workloads.placement import Placement
from runtime.workloads.types import Image, Images, Outputs, Split

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.models.decoded_exit import DecodedExit
    from runtime.models.stages import BranchyModel

_FILE_LIMIT = 256 << 20


def read_adopted(directory: Path, data: Path | None = None) -> Adopted:
    """The workload of the adopted bundle in a folder; FailureError when its description is damaged.

    ``data``: the footage, or the folder that holds it; None: where the adoption read it.
    """
    path = directory / ADOPTION_FILE
    try:
        content = read_bounded(path)
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror or error}") from None
    return Adopted(decode_adoption(content, str(path)), directory, data, hashlib.sha256(content).hexdigest())


class Adopted(Workload):
    """Owns the reader of the footage, which is opened on first use. A device with a camera and a MEC never use it."""

    def __init__(self, adoption: Adoption, directory: Path, data: Path | None = None, digest: str = "") -> None:
        """``directory``: of the bundle, whose truths are read there. ``digest``: SHA-256 of the description."""
        self.adoption, self.directory, self.description_sha256 = adoption, directory, digest
        self._data = data
        self.name = adoption.name
        self.bundle = str(directory)
        self.fps, self.frame_shape = adoption.footage.fps, tuple(adoption.frame_shape)
        self.resolutions_px = adoption.resolutions_px
        self.families = tuple(adoption.families)
        self.image_codecs, self.tensor_codecs = adoption.image_codecs, adoption.tensor_codecs
        self.frame_strides = adoption.frame_strides
        self.family_decisions = adoption.decisions

    # Frames ------------------------------------------------------------------------------------------------------

    @cached_property
    def footage(self) -> Path:
        """Path of the verified footage; FailureError when it is not on this machine."""
        return find_footage(self.adoption.footage, self.name, self._data)

    @cached_property
    def _reader(self) -> FrameReader:
        return FrameReader(open_pictures(self.footage), self.adoption.frame_shape, self.adoption.footage.step)

    @cached_property
    def truths(self) -> list[Any]:
        """The truth of every frame of the footage; FailureError when the file is damaged."""
        path, stated = self.directory / self.adoption.truth.file, self.adoption.truth.sha256
        try:
            content = read_bounded(path, _FILE_LIMIT)
            if hashlib.sha256(content).hexdigest() != stated:
                raise FailureError(f"{path} is damaged or was changed: its SHA-256 is not the one in {ADOPTION_FILE}")
            truths = msgspec.json.decode(content, type=list[Any])
        except OSError as error:
            raise FailureError(f"cannot read {path}: {error.strerror or error}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FailureError(f"{path} holds no truths: {error}") from None
        if len(truths) != self.adoption.footage.frames:
            raise FailureError(f"{path} has {len(truths)} truths; expected {self.adoption.footage.frames}")
        return truths

    def frame(self, number: int) -> Image:
        """The frame of the footage with that number, which needs no truth."""
        return self._reader.frame(number)

    def sample_count(self, split: Split) -> int:
        return len(self.adoption.numbers(split))

    def sample(self, index: int, split: Split = "test") -> tuple[Image, Any]:
        number = self.source_index(index, split)
        return self.frame(number), self.truths[number]

    def source_index(self, index: int, split: Split = "test") -> int:
        numbers = self.adoption.numbers(split)
        return numbers[index % len(numbers)]

    # Models ------------------------------------------------------------------------------------------------------

    def resize(self, image: Image, px: int) -> Image:
        return self.adoption.geometry.picture(image, px)

    def to_input(self, images: Images) -> Tensor:
        return self.adoption.geometry.values(images)

    def build(self, family: str) -> BranchyModel:
        return build(self.adoption.families[family], self.decoded_exit)

    def decoded_exit(self) -> DecodedExit:
        """A new last exit of the foreign model. UsageError if its decoder was written by the user and not given."""
        from runtime.models.decoded_exit import Candidates, DecodedExit

        how, sizes = self.adoption.decoding, self.adoption.geometry.sizes
        outputs = {sizes[px]: shapes for px, shapes in sorted(how.outputs.items(), reverse=True)}
        if not self._has_boxes:
            return DecodedExit(self.decoder, outputs, None)
        several = len(self.adoption.classes) > 1 or (self.decoder.classes(next(iter(outputs.values()))) or 2) > 1
        return DecodedExit(self.decoder, outputs, Candidates(how.threshold, how.most, how.nms_iou, several))

    @cached_property
    def decoder(self) -> Decoder:
        """What decodes the foreign model's outputs."""
        how = self.adoption.decoding
        if how.code is None:
            return get_decoder(how.decoder, how.options)
        return GivenDecoder(given(how.code, "--decode"), str(how.code))

    # Task --------------------------------------------------------------------------------------------------------

    @property
    def _has_boxes(self) -> bool:
        return self.adoption.task in ("detect", "text")

    def answers(self, outputs: Outputs, px: int) -> list[Any]:
        """Boxes [x, y, w, h, score, class] in pixels of the frame, best first; or a class; or values."""
        if self.adoption.task == "classify":
            return [int(label) for label in outputs.argmax(axis=1)]
        if not self._has_boxes:
            return [np.round(values.astype(np.float64), 5).tolist() for values in outputs]
        how, geometry = self.adoption.decoding, self.adoption.geometry
        placement = geometry.placement(self.adoption.frame_shape, px)
        return [boxes_of(frame, geometry.sizes[px], placement, how.nms_iou, how.most) for frame in outputs]

    def score(self, prediction: Any, truth: Any) -> float:
        """F1 of boxes at an IoU of 0.5 within each class; 1 for the right class, else 0; or the user's score."""
        if self._has_boxes:
            return counts_of(prediction, truth).f1
        if self.adoption.task == "classify":
            return float(prediction == truth)
        return self._scored(prediction, truth)

    def _scored(self, prediction: Any, truth: Any) -> float:
        scorer, label = self._scorer, str(self.adoption.scorer)
        try:
            score = float(scorer(prediction, truth))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any error of the user's function is one line
            raise FailureError(f"the scorer {label} fails: {in_a_line(error)}") from None
        if not 0.0 <= score <= 1.0:
            raise FailureError(f"the scorer {label} gave {score}; expected a number from 0 to 1")
        return score

    @cached_property
    def _scorer(self) -> Callable[[Any, Any], float]:
        code: UserCode | None = self.adoption.scorer
        assert code is not None, "a description of a custom task has a scorer"
        return given(code, "--scorer")

    def confidence(self, outputs: Outputs, temperature: float) -> NDArray[np.float64]:
        """(batch,) expected F1 of boxes, or the largest probability of a class; 1 where answers are only values."""
        if self._has_boxes:
            return expected_f1(outputs[..., 4], temperature)
        if self.adoption.task == "classify":
            return super().confidence(outputs, temperature)
        return np.ones(len(outputs))

    def forecaster(self) -> Forecaster | None:
        """A tracker of boxes where frames are a stream."""
        if not self._has_boxes or self.fps == 0.0:
            return None
        from runtime.workloads.adopted.tracking import ClassTracker

        return ClassTracker((self.adoption.frame_shape[1], self.adoption.frame_shape[0]))

    def nothing(self) -> Any:
        return [] if self._has_boxes else None

    def inside(self, found: Any, window: tuple[int, int, int, int]) -> Any:
        return inside(found, window) if self._has_boxes else found

    def to_picture(self, prediction: Any, placement: Placement) -> Any:
        return placement.boxes(prediction) if self._has_boxes else prediction

    def draw(self, image: Image, prediction: Any) -> Image:
        """Boxes with the names of their classes, or the name of the class below the frame."""
        from runtime.workloads.adopted.drawing import draw_answer

        return draw_answer(image, prediction, self.adoption.task, self.adoption.classes)

    # Defaults ----------------------------------------------------------------------------------------------------

    def scenario_range(self) -> ScenarioRange:
        return self.adoption.conditions

    def demo_scenario(self) -> Scenario:
        return self.adoption.demo or self.adoption.conditions.middle()
