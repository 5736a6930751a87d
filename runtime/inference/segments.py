"""What does a side compute for one frame? The head, the tail and the answer, as device, MEC and profiler run them.

The profiler times exactly these functions, so what a profile predicts is what the processes will do: everything
between the frame and the payload is the head, everything between the payload and the outputs is the tail, format
conversions and codecs included. The caller decides the number of threads (`torch.set_num_threads(1)` everywhere here).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from controller.records import Decision
from controller.space import NO_PAYLOAD
from runtime.bundles.bundle import Bundle
from runtime.codecs import decode, encode
from runtime.workloads.base import Workload
from runtime.workloads.types import Image

Outputs = NDArray[np.float32]  # (1, ...) what the exit head gives, without the meaning of it


@dataclass(frozen=True, slots=True)
class Head:
    """What the device has when its part is done: a payload for the MEC, or the outputs themselves."""

    payload: bytes  # empty when the device answers alone
    outputs: Outputs | None  # None when the MEC has to go on


class Segments:
    """The computations of one bundle. Owns nothing but references: the bundle holds the weights."""

    def __init__(self, bundle: Bundle, workload: Workload) -> None:
        self.bundle = bundle
        self.workload = workload

    @torch.inference_mode()
    def head(self, image: Image, decision: Decision, pause: Callable[[], None] | None = None) -> Head:
        """The device's part of a decision on a full-size frame.

        ``pause`` is called before each stage: there the device polls its sockets, and may run a whole other head
        (a fallback) before this one goes on.
        """
        small = self.workload.resize(image, decision.resolution_px)
        cut, offloaded = decision.partition_point, decision.payload != NO_PAYLOAD
        if cut == 0 and offloaded:
            return Head(encode(decision.payload, small), None)
        model = self.bundle.model(decision.model)
        z = self._input_of(small)
        for stage in range(cut):
            if pause is not None:
                pause()
            z = model.run_stages(z, stage, stage + 1)
        if offloaded:
            return Head(encode(decision.payload, z[0].numpy()), None)
        if pause is not None:
            pause()
        return Head(b"", _as_outputs(model.tail(z, cut, decision.exit_branch)))

    @torch.inference_mode()
    def tail(
        self,
        payload: bytes | memoryview,
        decision: Decision,
        pause: Callable[[], None] | None = None,
    ) -> Outputs:
        """The MEC's part of a decision; RemoteProtocolError when the payload is not what the decision says.

        ``pause`` is called before each stage: there the MEC stamps what has arrived.
        """
        d = decision
        shape = self.bundle.payload_shape(d.model, d.resolution_px, d.partition_point)
        dtype = np.uint8 if d.partition_point == 0 else np.float32
        array = decode(d.payload, payload, shape, dtype)
        z = self._input_of(array) if d.partition_point == 0 else torch.from_numpy(array)[None]
        model = self.bundle.model(d.model)
        stages_to_exit = model.exit_after[d.exit_branch]
        for stage in range(d.partition_point, stages_to_exit):
            if pause is not None:
                pause()
            z = model.run_stages(z, stage, stage + 1)
        return _as_outputs(model.tail(z, stages_to_exit, d.exit_branch))

    def whole(self, image: Image, decision: Decision) -> Outputs:
        """Head and tail in one place, as if there were no network."""
        head = self.head(image, decision)
        return head.outputs if head.outputs is not None else self.tail(head.payload, decision)

    def answer(self, outputs: Outputs, decision: Decision) -> Any:
        """The prediction that the outputs stand for."""
        return self.workload.answers(outputs, decision.resolution_px)[0]

    def passes(self, model_name: str, resolution_px: int) -> Iterator[None]:
        """Run a network and all its exits once on an empty image, one stage at a time."""
        bundle = self.bundle
        model, after = bundle.model(model_name), bundle.info(model_name).exit_after
        z = self._input_of(np.zeros(bundle.payload_shape(model_name, resolution_px, 0), np.uint8))
        for stage in range(after[-1]):
            yield
            with torch.inference_mode():
                z = model.run_stages(z, stage, stage + 1)
                if stage + 1 in after:
                    model.tail(z, stage + 1, after.index(stage + 1))

    def _input_of(self, image: Image) -> Tensor:
        # torch refuses to wrap read-only memory without a warning; data sets and received buffers are read-only.
        return self.workload.to_input(np.require(image, requirements="W")[None])


def _as_outputs(outputs: Tensor) -> Outputs:
    return outputs.numpy().astype(np.float32, copy=False)
