"""The table of inference engines by name. A bundle states the engine of each model; `Segments` opens them."""

from __future__ import annotations

from typing import Any

from controller.errors import UsageError
from runtime.bundles.bundle import Bundle
from runtime.inference.engines.base import Engine
from runtime.workloads.base import Workload


def _torch(bundle: Bundle, workload: Workload) -> Engine[Any]:
    from runtime.inference.engines.torch_engine import TorchEngine

    return TorchEngine(bundle, workload)


def _openvino(bundle: Bundle, workload: Workload) -> Engine[Any]:
    from runtime.inference.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(bundle, workload)


#: Each engine imports its library only when a bundle needs it.
ENGINES = {"torch": _torch, "openvino": _openvino}


def open_engines(bundle: Bundle, workload: Workload) -> dict[str, Engine[Any]]:
    """The engines that a bundle needs, by name; UsageError when one is unknown or cannot run a model's precision."""
    engines: dict[str, Engine[Any]] = {}
    for model in bundle.manifest.models:
        if model.engine not in ENGINES:
            raise UsageError(f"model {model.name} needs engine {model.engine!r}; expected one of: {', '.join(ENGINES)}")
        if model.engine not in engines:
            engines[model.engine] = ENGINES[model.engine](bundle, workload)
        if model.precision not in (known := engines[model.engine].precisions):
            raise UsageError(
                f"model {model.name} has precision {model.precision!r}; engine {model.engine!r} runs {', '.join(known)}"
            )
    return engines
