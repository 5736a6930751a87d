"""Measure the times of heads, tails and layers on this machine, for `mecpilot profile`.

Everything runs on one thread. Each round runs every segment and layer once, in a new random order, so a slow minute of
the machine affects all equally, and each segment finds caches that another one filled, as in a daemon whose decisions
change. The clock counts the CPU time of this thread, without the time of other processes; it is a wall
clock where a GPU computes. Medians are reported. Codecs whose payloads refer to earlier ones are timed in the steady
state (``runtime.inference.steady``).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from controller.predict.regression import (
    LayerModel,
    LayerSample,
    fit_layers,
    predict_layers_s,
    prediction_error,
)
from controller.records import NO_PAYLOAD, Decision, Floats
from runtime.bundles.bundle import Bundle
from runtime.inference.engines.base import Engine
from runtime.inference.segments import Segments
from runtime.inference.steady import steady_stream
from runtime.models.layers import Call
from runtime.profiling.layer_parts import Part, PartKey, PreparedCall, part_keys, parts_of
from runtime.profiling.profile import (
    Errors,
    Machine,
    SegmentKey,
    SegmentTime,
    Side,
    SideProfile,
    exit_key,
    head_key,
    is_exit,
    tail_key,
)
from runtime.workloads.base import Workload
from runtime.workloads.types import Image

THREADS = 1
WARM_UP_ROUNDS = 2
MIN_ROUNDS = 8  # measured ones
QUICK_ROUNDS = 4  # the same of a quick profile
#: Number of frames used in turn, because the times of codecs depend on the picture.
FRAMES = 4

Progress = Callable[[float], None]  # called with the completed fraction
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """One head or tail to be timed; ``calls[i]`` runs it on frame i."""

    key: SegmentKey
    decision: Decision
    calls: tuple[Call, ...]


def measure_sides(
    bundle: Bundle,
    workload: Workload,
    sides: Sequence[Side],
    budget_s: float,
    progress: Progress,
    least_rounds: int = MIN_ROUNDS,
    segments: Segments | None = None,
) -> dict[Side, SideProfile]:
    """Profile the given sides on this machine, in about ``budget_s`` seconds, or longer: ``least_rounds`` are measured.

    One round of a bundle with many decisions takes some seconds. ``segments``: what to time, default: each model in the
    engine that recorded its answers.
    """
    segments = segments or Segments(bundle, workload)
    for engine in segments.engines:
        engine.use_threads(THREADS)
    images = [workload.sample(index, "validation")[0] for index in range(FRAMES)]
    parts = parts_of(segments, images[0])
    tasks = {side: list(_segment_tasks(side, segments, images)) for side in sides}
    calls = [task.calls for side in sides for task in tasks[side]]
    layer_calls = [(layer.call,) * FRAMES for part in parts.values() for layer in part.layers]
    with _computing(segments.engines):
        clock = _clock_of(segments.engines)
        seconds = _timed_rounds(calls + layer_calls, budget_s, WARM_UP_ROUNDS + least_rounds, progress, clock)
    layers = _LayerTimes(parts, np.median(seconds[len(calls) :], axis=1))
    versions = ", ".join(engine.version for engine in segments.engines)
    machine = Machine(_cpu_model(), versions, THREADS, seconds.shape[1])
    found: dict[Side, SideProfile] = {}
    start = 0
    for side in sides:
        stop = start + len(tasks[side])
        found[side] = _side_profile(segments, side, tasks[side], seconds[start:stop], layers, machine)
        start = stop
    return found


def _segment_tasks(side: Side, segments: Segments, images: Sequence[Image]) -> Iterator[SegmentTask]:
    seen: set[SegmentKey] = set()
    for decision in segments.bundle.space.decisions:
        key = head_key(decision) if side == "device" else tail_key(decision)
        if key in seen or (side == "mec" and decision.payload == NO_PAYLOAD):
            continue
        seen.add(key)
        make = _head_calls if side == "device" else _tail_calls
        yield SegmentTask(key, decision, make(segments, decision, images))
    if side == "device":
        yield from _exit_tasks(segments, images)


def _exit_tasks(segments: Segments, images: Sequence[Image]) -> Iterator[SegmentTask]:
    """Exit heads alone, as gates run them on the way to a later exit."""
    manifest = segments.bundle.manifest
    for model in manifest.models:
        for px in manifest.resolutions_of(model):
            for exit_branch, after in enumerate(model.exit_after[:-1]):
                alone = Decision(model.name, px, exit_branch, after, NO_PAYLOAD)
                calls = tuple(segments.exit_alone(image, alone) for image in images)
                yield SegmentTask(exit_key(model.name, px, exit_branch, after), alone, calls)


def _head_calls(segments: Segments, decision: Decision, images: Sequence[Image]) -> tuple[Call, ...]:
    stream = steady_stream(segments.bundle, decision)
    encode_as = None if stream is None else stream.encode
    return tuple(partial(segments.head, image, decision, None, encode_as) for image in images)


def _tail_calls(segments: Segments, decision: Decision, images: Sequence[Image]) -> tuple[Call, ...]:
    stream = steady_stream(segments.bundle, decision)
    if stream is None:
        payloads = [segments.head(image, decision).payload for image in images]
        return tuple(partial(segments.tail, payload, decision) for payload in payloads)
    arrays = [segments.head_array(image, decision) for image in images]
    tail = partial(segments.tail, b"", decision, None, stream.decode)
    return tuple(PreparedCall(partial(stream.encode, array), tail) for array in arrays)


def _clock_of(engines: Sequence[Engine[Any]]) -> Clock:
    """CPU time of this thread, if every engine computes on it. Not a wall clock then: at a load of 5 on 2 cores most
    runs of a 1.5 ms segment were interrupted (median 5.7 ms)."""
    clocks = {engine.clock for engine in engines}
    return clocks.pop() if len(clocks) == 1 else time.perf_counter


def _timed_rounds(
    calls: Sequence[Sequence[Call]], budget_s: float, least: int, progress: Progress, clock: Clock
) -> Floats:
    """(calls, rounds) in seconds; round r runs ``calls[i][r % FRAMES]``."""
    rng = np.random.default_rng(0)
    rounds: list[Floats] = []
    begin = time.perf_counter()
    with _no_garbage_collection():
        while len(rounds) < least or time.perf_counter() - begin < budget_s:
            frame = len(rounds) % FRAMES
            rounds.append(_one_round([call[frame] for call in calls], rng.permutation(len(calls)).tolist(), clock))
            progress(min(1.0, (time.perf_counter() - begin) / budget_s, len(rounds) / least))
    return np.stack(rounds[WARM_UP_ROUNDS:], axis=1)


def _one_round(calls: Sequence[Call], order: Sequence[int], clock: Clock) -> Floats:
    taken = np.empty(len(calls))
    for index in order:
        call = calls[index]
        if isinstance(call, PreparedCall):
            call.prepare()
        begin = clock()
        call()
        taken[index] = clock() - begin
    return taken


@contextmanager
def _computing(engines: Iterable[Engine[Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(engine.computing())
        yield


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _LayerTimes:
    """Median times of all layers, and predictions by regressions fitted on them."""

    def __init__(self, parts: Mapping[PartKey, Part], median_s: Floats) -> None:
        self._parts = parts
        samples: dict[PartKey, list[LayerSample]] = {}
        times = iter(median_s.tolist())
        for key, part in parts.items():
            infos = [layer.info for layer in part.layers]
            samples[key] = [LayerSample(info.kind, info.regressors, next(times)) for info in infos]
        all_samples = [sample for found in samples.values() for sample in found]
        self.measured_s = {key: sum(sample.measured_s for sample in found) for key, found in samples.items()}
        self.regressions = fit_layers(all_samples)
        #: For each fold, regressions fitted on the other one. A kind that occurs in one fold only is fitted on that.
        self._held_out = tuple(
            self.regressions | fit_layers(s for key, found in samples.items() for s in found if parts[key].fold != fold)
            for fold in (0, 1)
        )

    def predicted_s(self, key: PartKey) -> float:
        """Time of a part by the regressions over all layers, which the profile file holds."""
        return _sum_s(self.regressions, self._parts[key])

    def held_out_s(self, key: PartKey) -> float:
        """Time of a part by the regressions of the other fold."""
        return _sum_s(self._held_out[self._parts[key].fold], self._parts[key])


def _sum_s(models: Mapping[str, LayerModel], part: Part) -> float:
    return predict_layers_s(models, [(layer.info.kind, layer.info.regressors) for layer in part.layers])


def _side_profile(
    segments: Segments,
    side: Side,
    tasks: Sequence[SegmentTask],
    seconds: Floats,
    layers: _LayerTimes,
    machine: Machine,
) -> SideProfile:
    """The profile of one side: medians, predictions and their errors. ``seconds`` is (tasks, rounds)."""
    keys = [part_keys(segments, task.decision, "exit" if is_exit(task.key) else side) for task in tasks]
    median_s = np.median(seconds, axis=1)
    p95_s = np.quantile(seconds, 0.95, axis=1)
    predicted_s = [sum(layers.predicted_s(key) for key in parts) for parts in keys]
    held_out_s = np.array([sum(layers.held_out_s(key) for key in parts) for parts in keys])
    summed_s = np.array([sum(layers.measured_s[key] for key in parts) for parts in keys])
    half = seconds.shape[1] // 2
    first_s, second_s = np.median(seconds[:, :half], axis=1), np.median(seconds[:, half:], axis=1)
    return SideProfile(
        machine,
        tuple(
            SegmentTime(task.key, float(median), float(p95), predicted)
            for task, median, p95, predicted in zip(tasks, median_s, p95_s, predicted_s, strict=True)
        ),
        layers.regressions,
        Errors(
            regression=prediction_error(held_out_s, median_s),
            layers=prediction_error(summed_s, median_s),
            segments=prediction_error(first_s, second_s),
        ),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
