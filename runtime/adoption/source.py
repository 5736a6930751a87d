"""The foreign model as the user named it: an ONNX file, or a Python function that returns a module."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

from torch import nn

from controller.errors import UsageError
from runtime.adoption.presets import Preset, sizes_for
from runtime.onnx_graphs.exporting import export, is_module_name, load_module
from runtime.onnx_graphs.fixing import FixedGraph, fix_shape
from runtime.onnx_graphs.reading import ForeignModel, read_model
from runtime.onnx_graphs.sizes import Axis, Sizes, possible_sizes

Size = tuple[int, int]  # height, width
#: Multiples of the sizes of a module, whose limits only its maker knows: strides of most networks.
_MODULE_MULTIPLE = 32
#: Frames that are enlarged more show a model nothing new, and take memory.
_MOST_ENLARGED = 2


class Source(Protocol):
    """A foreign model that can be had at several sizes of its input."""

    name: str  # for messages
    dtype: str  # of the image that the file takes
    channels: int  # of the image: 1 or 3

    def sizes(self, frame: tuple[int, ...], widths_px: tuple[int, ...], preset: Preset) -> dict[int, Size]:
        """Width -> (height, width) of the inputs to use for frames (h, w, ...), largest first.

        ``widths_px`` are those that the user wants; (): as usual. UsageError for one that the model does not take.
        """
        ...

    def at(self, size: Size) -> FixedGraph:
        """The graph for inputs of that size; UsageError when the model does not take them."""
        ...


def open_source(model: str, colours: int) -> Source:
    """The model that the user named; UsageError or FailureError in one line when it cannot be read.

    ``colours``: channels of the input of a module, which does not state them.
    """
    if is_module_name(model):
        return ModuleSource(model, load_module(model), colours)
    return OnnxSource(read_model(Path(model)))


class OnnxSource:
    """Owns the model of an ONNX file."""

    def __init__(self, model: ForeignModel) -> None:
        self._model = model
        self.name, self.dtype, self.channels = model.name, model.image.dtype, model.image.channels

    def sizes(self, frame: tuple[int, ...], widths_px: tuple[int, ...], preset: Preset) -> dict[int, Size]:
        possible = possible_sizes(self._model)
        if not possible.width.multiple:
            width = possible.width.size
            if widths_px and widths_px != (width,):
                raise UsageError(f"--resolutions: {self.name} takes images {width} pixels wide; expected only {width}")
            height = _height(possible.height, width * frame[0] / frame[1])
            return {width: (height, width)}
        return _sizes(self.name, possible, frame, widths_px, preset)

    def at(self, size: Size) -> FixedGraph:
        return fix_shape(self._model, *size)


class ModuleSource:
    """Owns a torch module, which is exported anew for each size."""

    dtype = "float32"

    def __init__(self, name: str, module: nn.Module, channels: int) -> None:
        self.name, self._module, self.channels = name, module, channels

    def sizes(self, frame: tuple[int, ...], widths_px: tuple[int, ...], preset: Preset) -> dict[int, Size]:
        any_size = Axis(0, math.gcd(_MODULE_MULTIPLE, *widths_px))  # the user knows which sizes it takes
        return _sizes(self.name, Sizes(any_size, any_size), frame, widths_px, preset)

    def at(self, size: Size) -> FixedGraph:
        return fix_shape(export(self._module, self.name, (1, self.channels, *size)), *size)


def _sizes(
    name: str, possible: Sizes, frame: tuple[int, ...], widths_px: tuple[int, ...], preset: Preset
) -> dict[int, Size]:
    multiple = possible.width.multiple
    if wrong := [px for px in widths_px if px % multiple]:
        raise UsageError(f"--resolutions {wrong[0]}: {name} takes widths that are multiples of {multiple}")
    most = max(*preset.widths_px, _MOST_ENLARGED * frame[1])
    if widths_px and max(widths_px) > most:
        raise UsageError(f"--resolutions {max(widths_px)}: frames are {frame[1]} pixels wide; expected at most {most}")
    found = sizes_for(frame, widths_px or preset.widths_px, max(multiple, possible.height.multiple), preset)
    if widths_px:  # the user's own, also above the frame's width
        found = {px: (_height(possible.height, _aspect(preset, frame) * px), px) for px in widths_px}
    return {px: (_height(possible.height, height), width) for px, (height, width) in found.items()}


def _aspect(preset: Preset, frame: tuple[int, ...]) -> float:
    return 1.0 if preset.square else frame[0] / frame[1]


def _height(axis: Axis, wanted: float) -> int:
    return max(axis.multiple, round(wanted / axis.multiple) * axis.multiple) if axis.multiple else axis.size
