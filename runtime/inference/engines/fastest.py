"""``--engine auto``: a short measurement on this machine says which engine runs each model.

All stages of a model at its largest resolution run in each engine in turn, on noise. An engine counts if the output of
the last stage agrees with that of the model's own engine. A model keeps its own engine where no other one is more than
`WORTH_FRAC` faster, so that two measurements seldom differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtime.bundles.bundle import Bundle
from runtime.inference.engines import ENGINES, Engines
from runtime.inference.engines.base import Engine, LoadedModel, Log
from runtime.workloads.types import Image

#: Largest difference of two outputs that agree, as a fraction of the range of the own engine's output.
TOLERANCE_FRAC = 1e-3
#: An engine that is faster by less is not preferred.
WORTH_FRAC = 0.1
Run: TypeAlias = Callable[[], Any]

BUDGET_S = 1.0  # of one model, beside loading it
LEAST_ROUNDS, MOST_ROUNDS = 3, 30


def fastest_engines(bundle: Bundle, engines: Engines, log: Log) -> dict[str, Engine[Any]]:
    """The engine of each model, by the model's name; one line says what was measured."""
    chosen, told = {}, []
    for model in bundle.model_names:
        measured = measure(bundle, engines, model)
        name = choice(measured)
        chosen[model] = engines.own(model) if name == next(iter(measured)) else engines.named(name)
        others = ", ".join(f"{other} {1e3 * s:.1f}" for other, s in measured.items() if other != name)
        told.append(f"{model} {name} {1e3 * measured[name]:.1f} ms" + (f" ({others})" if others else ""))
    log(f"engine auto: {'; '.join(told)}")
    return chosen


def choice(measured: dict[str, float]) -> str:
    """The name to take of seconds by name, the own engine first."""
    least_s = min(measured.values())
    return next(name for name, seconds in measured.items() if seconds * (1 - WORTH_FRAC) <= least_s)


def measure(bundle: Bundle, engines: Engines, model: str) -> dict[str, float]:
    """Seconds of all stages in each engine that agrees, by its name; the model's own engine comes first."""
    return timed(runs_of(bundle, engines, model), BUDGET_S)


def runs_of(bundle: Bundle, engines: Engines, model: str) -> dict[str, Run]:
    """What runs all stages of a model in each engine that agrees with its own, by name; its own comes first."""
    info = bundle.info(model)
    image = _noise(bundle.manifest.input_shapes[max(bundle.manifest.resolutions_of(info))])
    own = WholeModel(engines.own(model), model, len(info.stages), image)
    runs: dict[str, Run] = {info.engine: own}
    expected = own()
    for name in ENGINES:
        if name not in runs and (run := _candidate(engines, name, model, len(info.stages), image, expected)):
            runs[name] = run
    return runs


class WholeModel:
    """Owns a model loaded in one engine, and a picture to run its stages on."""

    def __init__(self, engine: Engine[Any], model: str, stages: int, image: Image) -> None:
        self._engine, self._stages, self._image = engine, stages, image
        self._model: LoadedModel[Any] = engine.load(model)

    def __call__(self) -> NDArray[np.float32]:
        with self._engine.computing():
            z = self._model.input_of_batch([self._image])
            for stage in range(self._stages):
                z = self._model.run_stage(z, stage)
            return self._engine.to_array(z)


def _candidate(
    engines: Engines, name: str, model: str, stages: int, image: Image, expected: NDArray[np.float32]
) -> WholeModel | None:
    """A run in another engine; None where it is not installed, cannot run the model, or does not agree."""
    try:
        engine = engines.named(name)
        if engine.why_not(model):
            return None
        run = WholeModel(engine, model, stages, image)
        return run if difference_frac(run(), expected) <= TOLERANCE_FRAC else None
    except Exception:  # noqa: BLE001 - libraries fail in many ways; an engine that fails here is not the one to take
        return None


def difference_frac(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference, as a fraction of the range of what is expected; infinite for another shape or NaN."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return np.inf
    largest, span = float(np.abs(found - expected).max()), float(np.ptp(expected))
    return largest / span if span else (0.0 if largest == 0 else np.inf)


def timed(runs: dict[str, Run], budget_s: float) -> dict[str, float]:
    """The fastest of several runs of each, in seconds; they take turns."""
    taken = dict.fromkeys(runs, np.inf)
    begin_s = time.perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and time.perf_counter() - begin_s > budget_s:
            break
        for name, run in runs.items():
            start_s = time.perf_counter()
            run()
            taken[name] = min(taken[name], time.perf_counter() - start_s)
    return taken


def _noise(shape: tuple[int, ...]) -> Image:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
