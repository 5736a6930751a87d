"""Compute the head and tail segments of a decision. Device, MEC and profiler all use these functions.

The head is everything from the frame to the payload, the tail everything from the payload to the outputs; format
conversions and codecs are included. The profiler times exactly these functions, so a profile predicts what device and
MEC compute. The caller sets the number of threads, which is one everywhere in mecpilot.

Payloads stand alone unless the caller says how they are encoded or decoded: device, MEC and profiler do so where a
codec has streams (``runtime.codecs.streams``). No state is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.gates import exits_on_way
from controller.records import NO_PAYLOAD, Decision
from runtime.bundles.bundle import Bundle
from runtime.codecs import IMAGE, TENSOR, check_codecs, check_decoded, get_codec
from runtime.inference.engines import open_engines
from runtime.inference.engines.base import Engine, LoadedModel, Log, RunsTails, ignore
from runtime.inference.streams import decode_alone, encode_alone
from runtime.workloads.base import Workload
from runtime.workloads.types import Image

Outputs = NDArray[np.float32]  # (samples, ...) of the exit head, usually of one; not yet interpreted
Pause = Callable[[], None]
#: How a payload of a stream is made from what the head computed, and turned back into it.
Encode = Callable[[NDArray[Any]], bytes]
Decode = Callable[[bytes | memoryview], NDArray[Any]]
#: Whether the outputs of an exit on the way, given by its number, are good enough to answer with.
IsSure = Callable[[int, Outputs], bool]


@dataclass(frozen=True, slots=True)
class Head:
    """The result of a head segment: a payload for the MEC, or the outputs."""

    payload: bytes  # empty if the device answers alone
    outputs: Outputs | None  # None if the MEC computes the rest
    early_exit: int | None = None  # the exit on the way to the cut that answered; None if none did


class Segments:
    """Runs the models of one bundle. Owns the loaded models; the engines compute.

    UsageError when the bundle needs a codec or an engine that is not available in this process.
    """

    def __init__(self, bundle: Bundle, workload: Workload, engine: str | None = None, log: Log = ignore) -> None:
        """``engine``: see `open_engines`; None: each model runs in the engine that recorded its answers. ``log`` takes
        a line where a model runs in another engine than that."""
        for kind in (IMAGE, TENSOR):
            check_codecs(bundle.manifest.codecs_of_kind(kind), kind)
        self.bundle = bundle
        self.workload = workload
        self._engines = open_engines(bundle, workload, engine, log)
        self._loaded: dict[str, LoadedModel[Any]] = {}

    @property
    def engines(self) -> tuple[Engine[Any], ...]:
        """All engines that run a model of the bundle."""
        return tuple({id(engine): engine for engine in self._engines.values()}.values())

    def engine(self, model: str) -> Engine[Any]:
        """The engine that runs a model; UsageError for an unknown name."""
        return self._engines[self.bundle.info(model).name]

    def loaded(self, model: str) -> LoadedModel[Any]:
        """A model in its engine, loaded on first use."""
        if model not in self._loaded:
            self._loaded[model] = self.engine(model).load(model)
        return self._loaded[model]

    def prepare_codecs(self) -> None:
        """Compile or load what the codecs of the bundle would otherwise compile for the first request."""
        for kind in (IMAGE, TENSOR):
            for codec in map(get_codec, self.bundle.manifest.codecs_of_kind(kind)):
                if not codec.missing:
                    codec.prepare()

    def head(
        self,
        image: Image,
        decision: Decision,
        pause: Pause | None = None,
        encode_as: Encode | None = None,
        is_sure: IsSure | None = None,
    ) -> Head:
        """Run the head segment of a decision on a frame (h, w[, 3]) of full size.

        ``pause`` is called before each stage. There the device polls its sockets, and may run another head (a
        fallback) before this one continues. ``encode_as`` makes the payload; without it, the payload stands alone.
        Of a gated decision the exits on the way are run, too; the first one of which ``is_sure`` says so answers, and
        without it none does.
        """
        encode = partial(encode_alone, self.bundle, decision) if encode_as is None else encode_as
        small = self.workload.resize(image, decision.resolution_px)
        cut, offloaded = decision.partition_point, decision.payload != NO_PAYLOAD
        if cut == 0 and offloaded:
            return Head(encode(small), None)
        engine, model = self.engine(decision.model), self.loaded(decision.model)
        with engine.computing():
            z, done = model.input_of_batch([small]), 0
            after = self.bundle.info(decision.model).exit_after
            for early in exits_on_way(after, decision) if decision.gate else ():
                z, done = _run_stages(model, z, range(done, after[early]), pause), after[early]
                outputs = engine.to_array(model.run_exit(z, early))
                if is_sure is not None and is_sure(early, outputs):
                    return Head(b"", outputs, early)
            z = _run_stages(model, z, range(done, cut), pause)
            if offloaded:
                return Head(encode(engine.to_array(z)[0]), None)
            if pause is not None:
                pause()
            return Head(b"", engine.to_array(model.run_exit(z, decision.exit_branch)))

    def tail(
        self,
        payload: bytes | memoryview,
        decision: Decision,
        pause: Pause | None = None,
        decode_as: Decode | None = None,
    ) -> Outputs:
        """Run the tail segment of a decision; returns the outputs (1, ...) of its exit head.

        ``pause`` is called before each stage; the MEC receives messages there. ``decode_as`` decodes the payload;
        without it, the payload must stand alone. RemoteProtocolError when the payload does not fit the decision.
        """
        return self.tails([self.decoded(payload, decision, decode_as)], decision, pause)

    def decoded(self, payload: bytes | memoryview, decision: Decision, decode_as: Decode | None = None) -> NDArray[Any]:
        """The first part of ``tail``: u8 (h, w[, 3]), or float32 (channels, h, w) or (values,)."""
        d = decision
        array = decode_alone(self.bundle, d, payload) if decode_as is None else decode_as(payload)
        check_decoded(d.payload, array, self.bundle.payload_shape(d.model, d.resolution_px, d.partition_point))
        return array

    def tails(self, arrays: Sequence[NDArray[Any]], decision: Decision, pause: Pause | None = None) -> Outputs:
        """The second part of ``tail``, for several decoded payloads at once; returns their outputs (samples, ...).

        They may be of several decisions that differ only in the payload's codec. On a CPU the outputs of a sample can
        depend on how many are computed together, in the last bits: libraries choose other kernels.
        """
        d = decision
        engine, model = self.engine(d.model), self.loaded(d.model)
        stages = range(d.partition_point, self.bundle.info(d.model).exit_after[d.exit_branch])
        with engine.computing():
            z = model.input_of_batch(arrays) if d.partition_point == 0 else engine.from_arrays(arrays)
            if isinstance(model, RunsTails):
                return engine.to_array(model.run_tail(z, stages, d.exit_branch))
            z = _run_stages(model, z, stages, pause)
            return engine.to_array(model.run_exit(z, d.exit_branch))

    def head_array(self, image: Image, decision: Decision) -> NDArray[Any]:
        """What the head of a decision computes before it is encoded: u8 (h, w[, 3]) or float32 (channels, h, w)."""
        found: list[NDArray[Any]] = []

        def keep(array: NDArray[Any]) -> bytes:
            found.append(array)
            return b""

        self.head(image, decision, encode_as=keep)
        return found[0]

    def whole(self, image: Image, decision: Decision) -> Outputs:
        """Run head and tail here; the payload is encoded and decoded, but not sent."""
        head = self.head(image, decision)
        return head.outputs if head.outputs is not None else self.tail(head.payload, decision)

    def answer(self, outputs: Outputs, decision: Decision) -> Any:
        """Convert outputs (1, ...) to a prediction of the workload."""
        return self.workload.answers(outputs, decision.resolution_px)[0]

    def exit_alone(self, image: Image, decision: Decision) -> Callable[[], float]:
        """What a gate adds on the way: the exit head of a device-only decision, with its outputs judged. The stages
        before it are run now."""
        engine, model, exit_branch = self.engine(decision.model), self.loaded(decision.model), decision.exit_branch
        small = self.workload.resize(image, decision.resolution_px)
        with engine.computing():
            z = _run_stages(model, model.input_of_batch([small]), range(decision.partition_point), None)

        def run() -> float:
            outputs = engine.to_array(model.run_exit(z, exit_branch))
            return float(self.workload.confidence(outputs, 1.0)[0])

        return run

    def output_shape(self, decision: Decision) -> tuple[int, ...]:
        """Shape (1, ...) of a decision's outputs, found by running its exit head on zeros."""
        d = decision
        engine, after = self.engine(d.model), self.bundle.info(d.model).exit_after[d.exit_branch]
        zeros = np.zeros(self.bundle.payload_shape(d.model, d.resolution_px, after), np.float32)
        with engine.computing():
            return engine.to_array(self.loaded(d.model).run_exit(engine.from_arrays([zeros]), d.exit_branch)).shape

    def passes(self, model_name: str, resolution_px: int) -> Iterator[None]:
        """Run once what a MEC may be asked for: the stages of a model from its first cut on, and all exits on the way;
        yields before each stage."""
        engine, after = self.engine(model_name), self.bundle.info(model_name).exit_after
        cut = self._first_cut(model_name)
        blank = np.zeros(self.bundle.payload_shape(model_name, resolution_px, cut), np.float32 if cut else np.uint8)
        model = self.loaded(model_name)
        with engine.computing():
            z = engine.from_arrays([blank]) if cut else model.input_of_batch([blank])
        for stage in range(cut, after[-1]):
            yield
            with engine.computing():
                z = model.run_stage(z, stage)
                if stage + 1 in after:
                    model.run_exit(z, after.index(stage + 1))

    def _first_cut(self, model_name: str) -> int:
        """The smallest partition point at which a model is offloaded; 0 if it never is."""
        offloads = (d for d in self.bundle.space.decisions if d.model == model_name and d.payload != NO_PAYLOAD)
        return min((d.partition_point for d in offloads), default=0)


def _run_stages(model: LoadedModel[Any], z: Any, stages: range, pause: Pause | None) -> Any:
    for stage in stages:
        if pause is not None:
            pause()
        z = model.run_stage(z, stage)
    return z
