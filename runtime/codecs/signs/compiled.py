"""The passes over the places of a tensor, compiled."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace

from runtime.codecs.signs import coder, passes


@cache
def compiled_passes() -> SimpleNamespace:
    """``encode``, ``decode``, ``count`` and ``remember`` of ``runtime.codecs.signs.passes``.

    UsageError where numba is missing or too old: only who meets such payloads needs it.
    """
    from runtime.compiler import Compiled, Sources, rules

    sources = Sources("the codec of signs", 5, (Path(__file__).parent,))
    rules(coder, passes)
    functions = (passes.encode, passes.decode, passes.count, passes.remember)
    return SimpleNamespace(**{function.__name__: Compiled(sources, function).always for function in functions})
