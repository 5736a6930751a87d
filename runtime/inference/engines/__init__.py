"""Inference engines by name, and which of them runs each model of a bundle.

A bundle states the engine that recorded the answers of a model, its *own* engine. Without another wish `Segments` opens
that; with one, a model that the wanted engine cannot run keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from controller.errors import FailureError, UsageError
from runtime.bundles.bundle import Bundle
from runtime.inference.engines.base import Engine, Log, ignore
from runtime.workloads.base import Workload

Factory: TypeAlias = Callable[[Bundle, Workload, Log], Engine[Any]]

GROUP = "mecpilot.engines"
#: The wish for whichever engine is the fastest (``runtime.inference.engines.fastest``).
AUTO = "auto"


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
    chosen = {} if wanted is None else _where_it_runs(wanted, bundle, engines, log)
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
    if name is not None and name != AUTO and not is_engine(name):
        raise UsageError(f"got the engine {name!r}; expected one of: {AUTO}, {', '.join(ENGINES)}, or an installed one")
    return name


def is_engine(name: str) -> bool:
    """Whether there is an engine of that name here or in an installed package."""
    return name in ENGINES or bool(_installed(name))


def _factory(name: str) -> Factory:
    if name in ENGINES:
        return ENGINES[name]
    (entry,) = _installed(name)[:1]

    def make(bundle: Bundle, workload: Workload, log: Log) -> Engine[Any]:
        try:
            engine: Engine[Any] = entry.load()(bundle, workload, log)
        except UsageError:
            raise  # in the plug-in's own words: what to install, for instance
        except Exception as error:  # noqa: BLE001 - any error of a plug-in is reported in one line
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise FailureError(f"the plug-in of engine {name!r} ({entry.value}) fails: {reason}") from None
        return engine

    return make


def _installed(name: str) -> list[Any]:
    from importlib.metadata import entry_points  # imported here because it takes 10 ms

    return list(entry_points(group=GROUP, name=name))
