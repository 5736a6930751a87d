"""Finds the tests that run on the real clock, by what they use."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

#: Whoever uses one of these depends on when the machine runs it: processes, threads, sockets, sleeps and deadlines.
CLOCKED = frozenset(
    {
        "multiprocessing", "ray", "socket", "subprocess", "threading", "time", "zmq",
        "agents.scale.cluster", "agents.scale.processes", "benchmarks.support.hostile", "runtime.testbed.proxy",
        "runtime.device.device", "runtime.mec.server", "runtime.profiling.measure", "runtime.sources.footage_source",
        "runtime.testbed.processes", "support.live",
    }
)  # fmt: skip


def on_the_clock(test: pytest.Function) -> bool:
    """Whether the test, one of its fixtures, or a helper that they call uses something of ``CLOCKED``."""
    own = test.cls.__dict__ if test.cls else {}
    seen: set[CodeType] = set()
    fixtures = (found.func for named in test._fixtureinfo.name2fixturedefs.values() for found in named)
    return any(_is_clocked(function, own, seen) for function in (test.function, *fixtures))


def _is_clocked(value: Any, own: dict[str, Any], seen: set[CodeType]) -> bool:
    value = inspect.unwrap(value) if callable(value) else value
    if (value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)) in CLOCKED:
        return True
    if inspect.isclass(value):
        return any(_is_clocked(method, own, seen) for method in vars(value).values() if inspect.isfunction(method))
    if not inspect.isfunction(value) or value.__code__ in seen:
        return False
    seen.add(value.__code__)
    known = value.__globals__ | own
    return any(
        _is_clocked(known[name], own, seen)
        for name in _names(value.__code__)
        if name in known and (inspect.ismodule(known[name]) or _is_here(known[name], value))
    )


def _is_here(value: Any, user: Any) -> bool:
    """Whether a value is of a clocked module, or is a helper of the tests, which may be looked into."""
    home = str(getattr(value, "__module__", ""))
    return home in CLOCKED or home == user.__module__ or home.startswith("support.")


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
