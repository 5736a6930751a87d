"""Inference engines by name, and which of them runs each model of a bundle.

A bundle states the engine that recorded the answers of a model, its *own* engine. Without another wish `Segments` opens
that; with one, a model that the wanted engine cannot run keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from controller.errors import UsageError
from runtime.bundles.bundle import Bundle
from runtime.inference.engines.base import Engine, Log, ignore
from runtime.plug_ins import PlugIns
from runtime.workloads.base import Workload

Factory: TypeAlias = Callable[[Bundle, Workload, Log], Engine[Any]]

GROUP = "mecpilot.engines"
#: The wish for whichever engine is the fastest (``runtime.inference.engines.fastest``).
AUTO = "auto"
_plug_ins = PlugIns(GROUP, "engine")
#: What an engine of a package must have.
_MEMBERS = ("version", "clock", "why_not", "use_threads", "load", "computing", "from_arrays", "to_array")


def _torch(bundle: Bundle, workload: Workload, log: Log) -> Engine[Any]:
    from runtime.inference.engines.torch_engine import TorchEngine

    return TorchEngine(bundle, workload, log)


def _onnxruntime(bundle: Bundle, workload: Workload, log: Log) -> Engine[Any]:
    from runtime.inference.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(bundle, workload, log)


def _openvino(bundle: Bundle, workload: Workload, log: Log) -> Engine[Any]:
    from runtime.inference.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(bundle, workload, log)


def _cuda(bundle: Bundle, workload: Workload, log: Log) -> Engine[Any]:
    from runtime.inference.engines.cuda_engine import CudaEngine

    return CudaEngine(bundle, workload, log)


#: Each engine imports its library only when a bundle needs it.
ENGINES: dict[str, Factory] = {"torch": _torch, "onnxruntime": _onnxruntime, "openvino": _openvino, "cuda": _cuda}


class Engines:
    """Owns the opened engines of one bundle, one of each name."""

    def __init__(self, bundle: Bundle, workload: Workload, log: Log = ignore) -> None:
        self._bundle, self._workload, self._log = bundle, workload, log
        self._opened: dict[str, Engine[Any]] = {}

    def named(self, name: str) -> Engine[Any]:
        """An engine; UsageError when it is unknown or its library is missing, FailureError when a plug-in fails."""
        if name not in self._opened:
            self._opened[name] = _factory(name)(self._bundle, self._workload, self._log)
        return self._opened[name]

    def own(self, model: str) -> Engine[Any]:
        """The engine that recorded the answers of a model; UsageError when it cannot run it."""
        name = self._bundle.info(model).engine
        if not is_engine(name):
            raise UsageError(f"model {model} needs engine {name!r}; expected one of: {', '.join(ENGINES)}")
        if why := self.named(name).why_not(model):
            raise UsageError(f"model {model} {why}")
        return self.named(name)


def open_engines(
    bundle: Bundle, workload: Workload, wanted: str | None = None, log: Log = ignore
) -> dict[str, Engine[Any]]:
    """The engine of each model, by the model's name.

    wanted: name of an engine, "auto" for the fastest, or None for each model's own. Where there is
    no GPU for "cuda", one line says so, and the models run in their own engines.

    UsageError when an engine is unknown, not installed, or runs no model of the bundle.
    """
    engines = Engines(bundle, workload, log)
    if wanted == AUTO:
        from runtime.inference.engines.fastest import fastest_engines

        return fastest_engines(bundle, engines, log)
    chosen: dict[str, Engine[Any]] = {} if wanted is None else _where_it_runs(wanted, bundle, engines, log)
    return {model: chosen.get(model) or engines.own(model) for model in bundle.model_names}


def _where_it_runs(wanted: str, bundle: Bundle, engines: Engines, log: Log) -> dict[str, Engine[Any]]:
    """The wanted engine of each model that it can run."""
    checked_engine(wanted)
    try:
        engine = engines.named(wanted)
    except UsageError as error:
        if wanted != "cuda":
            raise
        log(f"{error}; the models run on the CPU, in their own engines")
        return {}
    refusals = {model: why for model in bundle.model_names if (why := engine.why_not(model))}
    first = next(iter(refusals.items()), None)
    if first is not None and len(refusals) == len(bundle.model_names):
        raise UsageError(f"engine {wanted!r} runs no model of this bundle: {first[0]} {first[1]}")
    if first is not None:
        log(f"engine {wanted}: {', '.join(refusals)} in their own engines: {first[0]} {first[1]}")
    return {model: engine for model in bundle.model_names if model not in refusals}


def checked_engine(name: str | None) -> str | None:
    """The same name; UsageError unless it is "auto" or that of an engine here or in an installed package."""
    if name is None:
        return None
    _plug_ins.warn_if_unused((AUTO, *ENGINES))
    if name != AUTO and not is_engine(name):
        raise UsageError(f"got the engine {name!r}; expected one of: {AUTO}, {', '.join(ENGINES)}, or an installed one")
    return name


def is_engine(name: str) -> bool:
    """Whether there is an engine of that name here or in an installed package."""
    return name in ENGINES or name in _plug_ins.names()


def _factory(name: str) -> Factory:
    return ENGINES[name] if name in ENGINES else partial(_plugged, name)


def _plugged(name: str, bundle: Bundle, workload: Workload, log: Log) -> Engine[Any]:
    """The engine of an installed package; FailureError when it fails or does not fit."""
    factory = _plug_ins.load(name)
    assert factory is not None, "a name is checked before its engine is opened"
    with _plug_ins.told(name):
        engine: Engine[Any] = factory(bundle, workload, log)
    missing = [member for member in _MEMBERS if not hasattr(engine, member)]
    expected = f"an engine, which also has {', '.join(missing)}"
    _plug_ins.check(name, engine, expected=expected, fits=not missing)
    return engine
