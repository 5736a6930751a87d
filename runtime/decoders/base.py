"""The contract of a decoder, and the table of all decoders by name.

A decoder turns the outputs of a foreign model for one picture into candidates. An installed package adds one with an
entry point of group ``mecpilot.decoders``; a program with ``register_decoder``.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError, UsageError
from runtime.models.packing import Shapes
from runtime.plug_ins import PlugIns, in_a_line

GROUP = "mecpilot.decoders"

Floats: TypeAlias = NDArray[np.floating[Any]]
MOST_CLASSES = 1 << 14
Size: TypeAlias = tuple[int, int]  # height and width of the input, in pixels


class Decoder(ABC):
    """Turns outputs into candidates. Decoders keep no state between calls."""

    name: ClassVar[str]
    expected: ClassVar[str]  # the outputs that it takes, for errors: "(4 + classes, boxes)"
    needs_size: ClassVar[bool] = True  # whether ``decode`` looks at the size of the input
    boxes: ClassVar[bool] = True  # what it gives: boxes, else values such as logits of classes

    @abstractmethod
    def fits(self, shapes: Shapes) -> bool:
        """Whether outputs of these shapes, without the batch, can be decoded."""

    @abstractmethod
    def decode(self, outputs: Sequence[Floats], size: Size) -> Floats:
        """Candidates (n, 6) of one picture: left, top, right, bottom as fractions of the input, score in [0, 1], class.

        ``outputs``: the arrays of the model for it, without the batch; finite. ``size``: of the input. Several
        candidates may show one object. A classifier's decoder gives logits (classes,).
        """

    def classes(self, shapes: Shapes) -> int | None:
        """Number of classes that outputs of these shapes tell apart; None where they do not say."""
        return None

    def __str__(self) -> str:
        return f"the decoder {self.name!r}"


#: Makes a decoder from its options, as keywords.
Factory: TypeAlias = Any
_table: dict[str, Factory] = {}
_plug_ins = PlugIns(GROUP, "decoder")


def register_decoder(factory: type[Decoder]) -> type[Decoder]:
    """Add a decoder to the table of this process; UsageError when its name is taken. Returns the class."""
    if factory.name in _table:
        raise UsageError(f"decoder {factory.name!r} is already registered; choose another name")
    _table[factory.name] = factory
    return factory


def decoder_names() -> tuple[str, ...]:
    """Names of all built-in, registered and installed decoders."""
    return tuple(sorted({*_shipped(), *_plug_ins.names()}))


def get_decoder(name: str, options: Mapping[str, float | str | bool] | None = None) -> Decoder:
    """The decoder of that name with these options. UsageError for an unknown name or option; FailureError when the
    plug-in fails or does not fit."""
    _plug_ins.warn_if_unused(_shipped())
    if factory := _shipped().get(name):
        return _made(name, factory, options or {})
    if factory := _plug_ins.load(name):
        with _plug_ins.told(name):
            made = _made(name, factory, options or {})
        _plug_ins.check(name, made, expected="a runtime.decoders.base.Decoder", fits=isinstance(made, Decoder))
        _plug_ins.check_name(name, made.name)
        return made
    known = ", ".join(decoder_names())
    raise UsageError(f"unknown decoder {name!r}; expected one of: {known}; or file.py:function")


def _made(name: str, factory: Factory, options: Mapping[str, float | str | bool]) -> Decoder:
    try:
        made: Decoder = factory(**options)
    except (TypeError, ValueError) as error:
        said = ", ".join(f"{key}={value}" for key, value in options.items()) or "no options"
        raise UsageError(f"the decoder {name!r} with {said}: {error}; its options: {_options(factory)}") from None
    return made


def decoded(decoder: Decoder, outputs: Sequence[Floats], size: Size, *, boxes: bool = True) -> Floats:
    """What a decoder gives for one picture, (n, 6) or the values of another task.

    FailureError in one line when it fails, or gives something else.
    """
    try:
        found = np.asarray(decoder.decode(outputs, size), np.float32)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a decoder of the user's may raise anything
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise FailureError(f"{decoder} fails on outputs of {shapes}: {in_a_line(error)}") from None
    if not boxes:
        return found.reshape(-1)
    found = found.reshape(0, 6) if found.size == 0 else found
    if found.ndim != 2 or found.shape[1] != 6:
        raise FailureError(
            f"{decoder} gave an array of {found.shape}; expected (n, 6): left, top, right, bottom as fractions of the "
            "input, score, class"
        )
    classes = found[:, 5]
    wrong = classes[(classes < 0) | (classes >= MOST_CLASSES) | (classes != np.floor(classes))]
    if len(wrong):
        raise FailureError(f"{decoder} gave the class {wrong[0]:g}; expected numbers from 0 to {MOST_CLASSES - 1}")
    return found


def check_fits(decoder: Decoder, shapes: Shapes) -> None:
    """UsageError unless the decoder takes outputs of these shapes; it names the decoders that would."""
    if decoder.fits(shapes):
        return
    others = [
        name
        for name in sorted(_shipped())
        if name not in (decoder.name, "values") and _fits(name, shapes, decoder.boxes)
    ]
    way_out = f"these decoders fit: {', '.join(others)}" if others else "write one and give it as file.py:function"
    got = f"the model has outputs of {_shown(shapes)}"
    raise UsageError(f"{got}; the decoder {decoder.name!r} takes {decoder.expected}; {way_out}")


def _fits(name: str, shapes: Shapes, boxes: bool) -> bool:
    decoder = get_decoder(name)
    return decoder.boxes == boxes and decoder.fits(shapes)


def _options(factory: Factory) -> str:
    """Names and defaults of a decoder's options, for errors."""
    try:
        known = inspect.signature(factory).parameters.values()
        return ", ".join(f"{each.name}={each.default}" for each in known) or "none"
    except (TypeError, ValueError):
        return "other options"


def _shown(shapes: Shapes) -> str:
    return ", ".join(f"({', '.join(map(str, shape))})" for shape in shapes)


def _shipped() -> dict[str, Factory]:
    import runtime.decoders.shipped  # noqa: F401 - registers them; imported here, because it imports this module

    return _table
