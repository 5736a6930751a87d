"""CUDA graphs of tails: a tail is captured once for each kind and batch size, and then launched by one call.

A small detector is some hundred kernels of a few microseconds, so its launches can take longer than its computing. A
graph launches all of them at once. Large batches gain nothing, so both ways are timed and the faster one is kept. A
tail is captured when it has come ``_SEEN`` times: capturing takes as long as several runs and keeps memory.

A tail that cannot be captured (it waits for the GPU, or chooses its path by what it computed) stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]
#: Turns a run into one that does the same for inputs of the same shape. RuntimeError where it cannot.
Capture = Callable[[Run, Tensor], Run]
#: Runs of a kind and size before it is captured, and runs of each way that are timed.
_SEEN, _TIMED = 3, 5
#: Graphs of one model; further kinds run as they are.
_MOST_GRAPHS = 64
#: A graph is kept if it takes at most this share of the time.
_PAYS_FRAC = 0.95


class TailGraphs:
    """Owns the captured tails of one model. ``finish`` waits until what was launched is computed."""

    def __init__(
        self, capture: Capture, finish: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._capture, self._finish, self._clock = capture, finish, clock
        self._seen: dict[Hashable, int] = {}
        self._chosen: dict[Hashable, Run | None] = {}  # None: as it is

    def __len__(self) -> int:
        return sum(run is not None for run in self._chosen.values())

    def run(self, kind: Hashable, z: Tensor, plain: Run) -> Tensor:
        """The outputs of a tail, given what runs it as it is. They are valid until the next run."""
        key = kind, tuple(z.shape), z.dtype
        if key not in self._chosen:
            seen = self._seen[key] = self._seen.get(key, 0) + 1
            if seen < _SEEN or len(self) >= _MOST_GRAPHS:
                return plain(z)
            self._chosen[key] = self._faster(z, plain)
        chosen = self._chosen[key]
        return plain(z) if chosen is None else chosen(z)

    def _faster(self, z: Tensor, plain: Run) -> Run | None:
        try:
            captured = self._capture(plain, z)
        except RuntimeError:  # out of memory as well
            return None
        return captured if self._took_s(captured, z) <= _PAYS_FRAC * self._took_s(plain, z) else None

    def _took_s(self, run: Run, z: Tensor) -> float:
        """Least time of a few runs."""
        least_s = float("inf")
        for _ in range(_TIMED):
            self._finish()
            began_s = self._clock()
            run(z)
            self._finish()
            least_s = min(least_s, self._clock() - began_s)
        return least_s


def capture_on(place: torch.device) -> Capture:
    """Captures on a GPU. All graphs share one pool of memory: only one runs at a time, and its outputs are read before
    the next one starts."""
    pool = torch.cuda.graph_pool_handle()

    def capture(plain: Run, z: Tensor) -> Run:
        held = z.to(place, copy=True)
        beside = torch.cuda.Stream(place)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(place))
        with torch.cuda.stream(beside):  # libraries set themselves up before the capture, not in it
            for _ in range(_SEEN):
                plain(held)
        torch.cuda.current_stream(place).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Of this thread only: another one may load a release onto the GPU meanwhile, which a capture of all would fail.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            outputs = plain(held)

        def replay(z: Tensor) -> Tensor:
            held.copy_(z, non_blocking=z.is_pinned())
            graph.replay()
            return outputs

        return replay

    return capture
