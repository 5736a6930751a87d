"""What sections are made of: types with their limits, what a field says about itself, and shared defaults."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from controller.gates import LEAST_GATE, MOST_GATE
from controller.scenario import MAX_COUNT

DEFAULT_WORKLOAD = "campus"
DEFAULT_ENDPOINT = "tcp://127.0.0.1:5577"
#: Seeds, counts and frame numbers: what every library behind the settings accepts.
MAX_INT = 2**31 - 1
MAX_FLOAT = 1e9
#: Requests that wait at a MEC, unless its configuration says otherwise.
MEC_QUEUE_LIMIT = 64
#: Most values of a setting that takes several.
MOST_TEXTS = 8
#: Samples of the workload that a device captures, unless a source or a number is given.
DEFAULT_FRAMES = 300


def about(sentence: str, flag: str, **extra: Any) -> Meta:
    """What a field means, and its flag.

    ``off`` is the flag that sets a switch to false, ``show`` an example value for a field without a default;
    ``endless`` says that infinity makes sense.
    """
    return Meta(description=sentence, extra={"flag": flag} | extra)


Text = Annotated[str, Meta(min_length=1)]
#: Several texts. In a union with ``Text`` it makes a setting whose flag may be given more than once.
Texts = Annotated[tuple[Text, ...], Meta(min_length=1, max_length=MOST_TEXTS)]
Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
Index = Annotated[int, Meta(ge=0, le=MAX_INT)]
FewCount = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Amount = Annotated[float, Meta(ge=0.0, le=MAX_FLOAT)]
Gate = Annotated[float, Meta(ge=LEAST_GATE, le=MOST_GATE)]
Distance = Annotated[float, Meta(ge=0.0, le=2.0)]
Slowdown = Annotated[float, Meta(ge=1.0, le=1e4)]
EngineName = Annotated[
    Text | None,
    about(
        "What runs the models: auto (the fastest of a short measurement), torch, onnxruntime, openvino, cuda or an "
        "installed one; default: the engine that recorded a model's answers.",
        "--engine",
        show="auto",
    ),
]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""
