"""What is usual for the models that a decoder belongs to: the picture they take, and the score that counts.

The user's options win. Sources: the export and inference code of the projects that published these models.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preset:
    """The picture that models with such outputs usually take; see `runtime.workloads.adopted.geometry.Geometry`."""

    fit: str = "stretch"
    colours: str = "rgb"
    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    threshold: float = 0.5
    widths_px: tuple[int, ...] = (640, 480, 320)  # of a model that takes any size
    square: bool = False  # the usual size of the picture does not follow the frame


_YOLO = Preset(fit="letterbox", threshold=0.25)
PRESETS = MappingProxyType(
    {
        "yolov5": _YOLO,
        "yolov8": _YOLO,
        "yolox": Preset(fit="corner", colours="bgr", scale=1.0, threshold=0.3),
        "ssd": Preset(threshold=0.5),
        "detr": Preset(mean=IMAGENET_MEAN, std=IMAGENET_STD, threshold=0.5),
        "db": Preset(colours="bgr", mean=IMAGENET_MEAN, std=IMAGENET_STD, threshold=0.6),
        "classify": Preset(mean=IMAGENET_MEAN, std=IMAGENET_STD, widths_px=(224, 160, 112), square=True),
    }
)


def preset_of(decoder: str) -> Preset:
    """The preset of a decoder; that of plain pixels from 0 to 1 for one that is not known here."""
    return PRESETS.get(decoder, Preset())


def sizes_for(
    frame: tuple[int, ...], widths_px: tuple[int, ...], multiple: int, preset: Preset
) -> dict[int, tuple[int, int]]:
    """Width -> (height, width) of the model's input for frames (h, w, ...), both multiples of ``multiple``.

    The height follows the frame, unless the models usually take squares. Widths above the frame's are left out, unless
    all are.
    """
    found: dict[int, tuple[int, int]] = {}
    fitting = [px for px in widths_px if px <= frame[1]] or [min(widths_px)]
    for wanted in fitting:
        width = _rounded(wanted, multiple)
        height = width if preset.square else _rounded(wanted * frame[0] / frame[1], multiple)
        found.setdefault(width, (height, width))
    return found


def _rounded(value: float, multiple: int) -> int:
    return max(multiple, round(value / multiple) * multiple)
