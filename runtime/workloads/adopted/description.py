"""What an adopted bundle says about itself: the file ``adoption.json``, beside the manifest that names it.

It holds everything that code says of a shipped workload: the task, the input of the model, the decoder of its outputs,
the footage and its splits, the truth, the decisions, and the families of models. Reading it imports no code that it
names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from controller.errors import FailureError, MecpilotError
from controller.scenario import Scenario, ScenarioRange
from runtime.files.reading import format_version
from runtime.models.packing import Shapes
from runtime.workloads.adopted.families import Family
from runtime.workloads.adopted.geometry import Geometry
from runtime.workloads.family_decisions import FamilyDecisions
from runtime.workloads.types import Split

ADOPTION_FILE = "adoption.json"
TRUTH_FILE = "truth.json"
FORMAT_VERSION = 1
MOST_PIXELS = 1 << 26  # of a frame or an input
MOST_VALUES = 1 << 28  # of an output of the model

Task = Literal["detect", "classify", "text", "custom"]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^(?!\.{1,2}$)[^/\x00]{1,255}$")]
Text = Annotated[str, msgspec.Meta(max_length=4_096)]
Count = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]
LONGEST_NAME = 256  # of a class
ClassNames = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)], ...], msgspec.Meta(max_length=1 << 14)
]
Names = Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...], msgspec.Meta(max_length=256)]
Strides = Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=64)], ...], msgspec.Meta(min_length=1, max_length=16)]
_NAME = re.compile(r"[\w.-]{1,64}")


#: Single-board computers against a core of a server; see docs/labels.md for the boards.
DEFAULT_RANGE = ScenarioRange(
    fps=(5.0, 15.0),
    deadline_s=(0.2, 1.0),
    device_slowdown=(5.0, 30.0),
    mec_slowdown=(1.0, 4.0),
    mec_load_frac=(0.0, 0.9),
    uplink_share_frac=(0.05, 0.4),
)


class UserCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function of the user's, which the bundle does not hold: its file's name, its name, the file's digest."""

    file: FileName
    function: Annotated[str, msgspec.Meta(pattern=r"^\w{1,128}$")]
    sha256: Sha256

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"


class Decoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What turns the outputs of the foreign model into candidates or logits (``runtime.decoders``)."""

    decoder: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    #: Shapes of the model's outputs without the batch, per resolution.
    outputs: Annotated[dict[int, Shapes], msgspec.Meta(min_length=1)]
    options: Annotated[dict[str, float | str | bool], msgspec.Meta(max_length=32)] = {}
    threshold: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.5  # least score of a candidate that counts
    most: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100  # candidates of a frame
    nms_iou: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.5  # 1: overlapping candidates are all kept
    code: UserCode | None = None  # of a decoder that the user wrote


class Footage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The footage that the bundle was made from. It is not part of the bundle."""

    file: FileName  # of the video, or name of the folder of pictures
    path: Text  # where the adoption read it
    sha256: Sha256  # of the video; of the names and digests of the pictures
    size_bytes: Count  # of the video, or of all pictures
    frames: Annotated[int, msgspec.Meta(ge=3, le=100_000_000)]  # that the workload has
    fps: Annotated[float, msgspec.Meta(ge=0.0, le=1_000.0)]  # of the workload's frames; 0: pictures without times
    step: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1  # every step-th picture of the footage is a frame


class Truth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What answers are compared with: one entry for each frame in a file of the bundle."""

    kind: Literal["model", "labels"]
    sha256: Sha256  # of the file
    source: Text = ""  # of labels: what the user gave
    file: FileName = TRUTH_FILE

    @property
    def words(self) -> str:
        """What a score against it says, for people."""
        if self.kind == "labels":
            return f"accuracy against the labels in {self.source or self.file}"
        return "agreement with the whole model at its largest resolution; no labels were given"


class Adoption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An adopted workload. Bounds hold for whatever is read."""

    format_version: int
    name: Annotated[str, msgspec.Meta(pattern=r"^\w[\w.-]{0,63}$")]
    task: Task
    geometry: Geometry
    decoding: Decoding
    #: Of the workload's frames: (h, w, 3), or (h, w) grey.
    frame_shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=16_384)], ...], msgspec.Meta(min_length=2)]
    footage: Footage
    splits: dict[Literal["train", "validation", "test"], tuple[Count, Count]]  # first frame, and the one after the last
    truth: Truth
    families: Annotated[dict[str, Family], msgspec.Meta(min_length=1, max_length=64)]
    classes: ClassNames = ()  # their names; (): numbers are shown
    image_codecs: Names = ("raw", "png")
    tensor_codecs: Names = ("u8", "u4")
    frame_strides: Strides = (1,)
    #: Of families whose decisions differ from the others': such as the only cut of a bottleneck.
    decisions: Annotated[dict[str, FamilyDecisions], msgspec.Meta(max_length=64)] = {}
    scorer: UserCode | None = None  # of the task "custom"
    conditions: ScenarioRange = msgspec.field(default_factory=lambda: DEFAULT_RANGE)  # from which episodes are drawn
    demo: Scenario | None = None  # None: the middle of the conditions

    def __post_init__(self) -> None:
        if len(self.frame_shape) > 3 or self.frame_shape[2:] not in ((), (3,)):
            raise ValueError(f"frames of shape {self.frame_shape}; expected (h, w) or (h, w, 3)")
        pictures = (self.frame_shape, *self.geometry.sizes.values())
        if any(height * width > MOST_PIXELS for height, width, *_ in pictures):
            raise ValueError(f"frames or inputs of more than {MOST_PIXELS} pixels")
        outputs = [shape for shapes in self.decoding.outputs.values() for shape in shapes]
        if any(min(shape, default=1) < 1 or math.prod(shape) > MOST_VALUES for shape in outputs):
            raise ValueError(f"an output of the model without values, or of more than {MOST_VALUES}")
        if set(self.splits) != {"train", "validation", "test"}:
            raise ValueError("splits must be train, validation and test")
        ends = [*self.splits["train"], *self.splits["validation"], *self.splits["test"]]
        if ends != sorted(ends) or ends[-1] > self.footage.frames:
            raise ValueError("splits must follow each other in time, within the footage")
        if self.task == "custom" and self.scorer is None:
            raise ValueError("a custom task without a scorer")
        if not set(self.decoding.outputs) <= set(self.geometry.sizes):
            raise ValueError("outputs at a resolution that the model does not have")

    def numbers(self, split: Split) -> range:
        """The frames of a split, by their numbers in the footage."""
        return range(self.footage.frames) if split == "all" else range(*self.splits[split])

    @property
    def resolutions_px(self) -> tuple[int, ...]:
        """Widths of the model's inputs, largest first."""
        return tuple(sorted(self.geometry.sizes, reverse=True))


def encode_adoption(adoption: Adoption) -> bytes:
    """The bytes of the file, indented for people."""
    plain = msgspec.to_builtins(adoption, str_keys=True)
    return msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=1) + b"\n"


def decode_adoption(data: bytes, source: str) -> Adoption:
    """The description in the bytes of a file; FailureError when they are not one of this version.

    ``source`` names the file in errors.
    """
    try:
        version = format_version(data)
        if version != FORMAT_VERSION:
            raise FailureError(f"{source}: adoption format {version}; expected {FORMAT_VERSION}; adopt the model again")
        return msgspec.json.decode(data, type=Adoption)
    except FailureError:
        raise
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MecpilotError) as error:
        raise FailureError(f"{source} does not describe an adopted workload: {error}") from None


def by_time(frames: int, shares: Mapping[str, float] = {"train": 0.5, "validation": 0.2}) -> dict[Any, tuple[int, int]]:
    """Splits of so many frames: consecutive, the test frames last, never drawn by chance."""
    first = round(frames * shares["train"])
    second = first + round(frames * shares["validation"])
    return {"train": (0, first), "validation": (first, second), "test": (second, frames)}
