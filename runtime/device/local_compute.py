"""The device's computation: runs heads of a bundle's models on real frames, and judges their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.gates import Gates
from controller.records import NO_PAYLOAD, Decision
from controller.regions import Window
from runtime.bundles.bundle import Bundle
from runtime.codecs.streams import Sender
from runtime.device.compute import Pause
from runtime.gating.judge import GateJudge
from runtime.inference.engines.base import Log, ignore
from runtime.inference.segments import Encode, Head, Segments
from runtime.inference.steady import steady_stream
from runtime.inference.streams import sender_of
from runtime.protocol.wire import Held
from runtime.regions.part import part_of
from runtime.sources.samples import Samples, Source
from runtime.workloads.base import Workload, stream_score
from runtime.workloads.types import Image, Split


class LocalCompute:
    """Runs one bundle on the frames of a source, by default its workload's; a ``runtime.device.compute.Compute``."""

    def __init__(
        self,
        bundle: Bundle,
        workload: Workload,
        split: Split = "test",
        source: Source | None = None,
        gates: Gates | None = None,
        engine: str | None = None,
        log: Log = ignore,
    ) -> None:
        """``gates`` of the cost table whose decisions are run. ``engine`` and ``log``: see `Segments`."""
        self._judge = GateJudge(bundle, workload, gates)
        self._bundle, self._workload = bundle, workload
        self._source = Samples(workload, split) if source is None else source
        self._blank = np.zeros(bundle.frame_shape, np.uint8)
        self._segments = Segments(bundle, workload, engine, log)
        self._output_shapes: dict[tuple[str, int, int], tuple[int, ...]] = {}

    @property
    def held(self) -> Held:
        return self._bundle.held

    @property
    def samples(self) -> int:
        return self._source.count

    def prepare(self) -> None:
        """Load the first pictures now, so that the first frames need not wait for them."""
        self._source.prepare()

    def warm_up(self, decisions: Iterable[Decision], stopping: Callable[[], bool] = lambda: False) -> None:
        """Run each distinct head once, because first runs are slow. Local answers come first: they need every stage.
        A codec whose payloads have references is run without and with one. Returns early when ``stopping`` returns
        true."""
        decisions = tuple(decisions)
        if stream_score(self._workload) is not None:
            self._judge.prepare(decisions)
        for decision in _distinct(decisions):
            if stopping():
                return
            self._warm_up(decision)

    def _warm_up(self, decision: Decision) -> None:
        stream = steady_stream(self._bundle, decision)
        if stream is None:
            height, width = (round(side * decision.crop) or side for side in self._blank.shape[:2])
            self._segments.head(part_of(self._blank, Window(0, 0, width, height)), decision)
            return
        for _ in range(2):
            self._segments.head(self._blank, decision, encode_as=stream.encode)

    def picture(self, source_index: int) -> Image:
        return self._source.picture(source_index)

    def head(
        self,
        source_index: int,
        decision: Decision,
        pause: Pause,
        encode_as: Encode | None = None,
        window: Window | None = None,
    ) -> Head:
        is_sure = partial(self._judge.is_sure, decision) if decision.gate else None
        picture = self._source.picture(source_index)
        part = picture if window is None else part_of(picture, window)
        return self._segments.head(part, decision, pause, encode_as, is_sure)

    def sender(self, decision: Decision) -> Sender | None:
        """A new sender of the decision's stream; None if its payloads have no references."""
        return sender_of(self._bundle, decision)

    def row(self, decision: Decision) -> int:
        return self._bundle.space.index(decision.ungated.whole)

    def output_shape(self, decision: Decision) -> tuple[int, ...]:
        """Shape of the outputs that the MEC sends back. Found once per exit by running the exit head alone."""
        key = (decision.model, decision.resolution_px, decision.exit_branch)
        if key not in self._output_shapes:
            self._output_shapes[key] = self._segments.output_shape(decision)
        return self._output_shapes[key]

    def largest_output_bytes(self, decisions: Iterable[Decision]) -> int:
        """Size of the largest float32 outputs that a MEC may send back; 0 if nothing is offloaded."""
        offloads = {(d.model, d.resolution_px, d.exit_branch): d for d in decisions if d.payload != NO_PAYLOAD}
        return max((4 * math.prod(self.output_shape(d)) for d in offloads.values()), default=0)

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float | None]:
        """Prediction, truth and score of outputs, given as an array or as a buffer from the wire."""
        prediction = self._segments.answer(self._array(outputs, decision), decision)
        truth = self.truth(source_index)
        return prediction, truth, None if truth is None else self._workload.score(prediction, truth)

    def confidence(self, outputs: Any, decision: Decision) -> float:
        return self._judge.expected_score(decision, self._array(outputs, decision))

    def _array(self, outputs: Any, decision: Decision) -> NDArray[np.float32]:
        shape = self.output_shape(decision)
        return np.frombuffer(outputs, np.float32, math.prod(shape)).reshape(shape)

    def score(self, prediction: Any, truth: Any) -> float:
        return self._workload.score(prediction, truth)

    def truth(self, source_index: int) -> Any:
        return self._source.truth(source_index)

    def source_index(self, index: int) -> int:
        return self._source.source_index(index)


def _distinct(decisions: Iterable[Decision]) -> list[Decision]:
    """One decision per pass through a network and per codec and resolution; local ones first."""
    ordered = sorted(decisions, key=lambda d: d.payload != NO_PAYLOAD)
    chosen: dict[tuple[str | float, ...], Decision] = {}
    for d in ordered:
        local = d.payload == NO_PAYLOAD
        end = d.exit_branch if local else d.payload
        chosen.setdefault((d.model, d.resolution_px, d.partition_point, end, d.crop), d)
    return list(chosen.values())
