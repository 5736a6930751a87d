"""One bundle that a MEC serves: which of its requests are legal, how they are answered, and its warm-up.

The loop (``runtime.mec.loop``) holds one for each bundle. Bundles share nothing: each has its own loaded models, costs,
receivers and kept outputs, so what is asked of one never changes an answer of another.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from controller.costs import CostTable
from controller.records import Decision
from runtime.inference.segments import Outputs, Pause, Segments
from runtime.mec.batches import BatchTimes
from runtime.mec.receivers import Receivers
from runtime.mec.tails import Tails
from runtime.mec.warm_up import WarmUp
from runtime.protocol import wire
from runtime.protocol.mec_session import Admit
from runtime.protocol.wire import RejectReason


class StoppedError(Exception):
    """A pause raises it when the MEC stops, and the current requests take too long to finish."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The outputs of a request."""

    outputs: Outputs  # (1, ...)
    cached: bool  # they were known from an equal request
    key: bytes | None = (
        None  # under which they can be kept (``Served.learn``); None if they are known or cannot be kept
    )


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A request whose outputs must be computed."""

    array: NDArray[Any]
    key: bytes | None  # as in ``Ran``


#: Weight of the newest tail in the mean of those before.
_LEARN_FRAC = 0.1


class Served:
    """Owns the loaded models of one bundle, what payloads may refer to, and the outputs that are kept.

    ``costs`` have the profiled times; None: this bundle was not profiled. ``tails`` are outputs that are kept for
    requests that come again; None: none are. ``batch`` is how many requests of one kind are computed together at most;
    None: as many as the engine gains by.
    """

    def __init__(
        self,
        segments: Segments,
        costs: CostTable | None,
        *,
        warm_up: WarmUp | None = None,
        tails: Tails | None = None,
        batch: int | None = 1,
    ) -> None:
        self._segments, self._costs = segments, costs
        self._space = segments.bundle.space if costs is None else costs.space
        self._warm_up, self._tails = warm_up, tails
        self._receivers = Receivers(segments.bundle)  # what payloads may refer to, by peer
        self._typical_s = 0.0  # of a tail, in the profile's time
        self._batch, self.batches = batch, BatchTimes()

    def load(self) -> None:
        """Load every model, and what a handshake compares; any thread may do it before the first request."""
        for model in self._segments.bundle.model_names:
            self._segments.loaded(model)
        _ = self.held

    @property
    def held(self) -> wire.Held:
        """What a device must hold so that its rows mean the same here."""
        return self._segments.bundle.held

    def decision(self, row: int) -> Decision | None:
        """The decision of a row; None if there is no such row."""
        decisions = self._space.decisions
        return decisions[row] if row < len(decisions) else None

    def profiled_s(self, row: int) -> float | None:
        """Time of a row's tail in the profile; None if the bundle was not profiled."""
        return None if self._costs is None else float(self._costs.mec_s[row])

    def expected_s(self, row: int) -> float:
        """Time of a row's tail to plan with: the profiled one, else the mean of this bundle's last tails, else 0."""
        profiled_s = self.profiled_s(row)
        return self._typical_s if profiled_s is None else profiled_s

    def fault(self, request: wire.InferRequest, payload_bytes: int) -> tuple[RejectReason, str] | None:
        """Why a request can never be served; None if it can."""
        row, space = request.row, self._space
        if row >= len(space) or space.device_only[row]:
            return RejectReason.ILLEGAL, f"got row {row}; expected one of {len(space)} that sends a payload"
        if payload_bytes > (most := wire.most_payload_bytes(self._shape(space.decisions[row]))):
            return RejectReason.PAYLOAD, f"got a payload of {payload_bytes} bytes; expected at most {most}"
        return None

    def _shape(self, d: Decision) -> tuple[int, ...]:
        return self._segments.bundle.payload_shape(d.model, d.resolution_px, d.partition_point)

    def prefer(self, row: int) -> None:
        """A request for this row is about to run: warm up its model first."""
        if self._warm_up is not None:
            self._warm_up.prefer(self._space.decisions[row].model)

    def kind(self, row: int) -> tuple[str, int, int, int]:
        """What requests must have in common to be computed together: model, resolution, cut and exit."""
        d = self._space.decisions[row]
        return d.model, d.resolution_px, d.partition_point, d.exit_branch

    def most_together(self, row: int) -> int:
        """How many requests of the row's kind may be computed together."""
        if self._batch is not None:
            return self._batch
        return getattr(self._segments.engine(self._space.decisions[row].model), "usual_batch", 1)

    def run(self, jobs: Sequence[Admit], pause: Pause) -> list[Ran | Exception]:
        """The outputs of legal requests of one kind, or what failed, for each. ``pause`` is called between stages.

        UnknownReferenceError for a payload that refers to one that is not held, RemoteProtocolError for one that does
        not fit; neither concerns the other requests. StoppedError is raised, not returned.
        """
        found: list[Ran | Exception | _Decoded] = [self._decoded(job) for job in jobs]
        left = [(place, one) for place, one in enumerate(found) if isinstance(one, _Decoded)]
        if left:
            outputs = self._computed([one.array for _, one in left], jobs[0].request.row, pause)
            for (place, one), each in zip(left, outputs, strict=True):
                found[place] = each if isinstance(each, Exception) else Ran(each, cached=False, key=one.key)
        return [one for one in found if not isinstance(one, _Decoded)]

    def _decoded(self, job: Admit) -> Ran | Exception | _Decoded:
        """The payload of a request, its outputs if they are known, or what is wrong with it."""
        row, decision = job.request.row, self._space.decisions[job.request.row]
        try:
            decode_as = self._receivers.decode_as(job.peer, job.request, decision)
            key = None if self._tails is None or decode_as is not None else self._tails.key(row, job.payload)
            known = None if key is None or self._tails is None else self._tails.outputs(key)
            if known is not None:
                return Ran(known, cached=True)
            return _Decoded(self._segments.decoded(memoryview(job.payload), decision, decode_as), key)
        except Exception as error:  # noqa: BLE001 - concerns this request only
            return error

    def _computed(self, arrays: list[NDArray[Any]], row: int, pause: Pause) -> Sequence[Outputs | Exception]:
        """The outputs (1, ...) of each sample. Where a batch fails, its samples are computed one by one, so one of them
        cannot harm the others."""
        try:
            outputs = self._segments.tails(arrays, self._space.decisions[row], pause)
            if len(outputs) != len(arrays):
                raise ValueError(f"got outputs of {len(outputs)} samples; expected {len(arrays)}")
            return [outputs[place : place + 1] for place in range(len(arrays))]
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - of a single sample: concerns this request only
            if len(arrays) == 1:
                return [error]
        return [each for array in arrays for each in self._computed([array], row, pause)]

    def learn(self, row: int, found: Sequence[Ran | Exception], took_s: float) -> None:
        """Learn how long requests took together, in the profile's time, and keep outputs that can come again."""
        fresh = [one for one in found if isinstance(one, Ran) and not one.cached]
        if len(fresh) == len(found):
            self.batches.took(self.kind(row), len(found), took_s)
        for one in fresh:
            each_s = took_s / len(fresh)
            self._typical_s += (each_s - self._typical_s) * (_LEARN_FRAC if self._typical_s else 1.0)
            if one.key is not None and self._tails is not None:
                self._tails.add(one.key, one.outputs, each_s)

    def drop(self, peer: bytes) -> None:
        """A connection begins anew or ends."""
        self._receivers.drop(peer)

    def keep_only(self, peers: Container[bytes]) -> None:
        """Forget all other connections."""
        self._receivers.keep_only(peers)

    def warm_up(self, log: Callable[[str], None]) -> None:
        """Run the whole warm-up; any thread may do it before the first request."""
        while self.warm_up_step(log):
            pass

    def warm_up_step(self, log: Callable[[str], None]) -> bool:
        """Run one step of the warm-up; False when it is complete."""
        if self._warm_up is None:
            return False
        try:
            if self._warm_up.step():
                return True
        except Exception as error:  # noqa: BLE001 - only requests that need this model will fail
            log(f"cannot warm up: {type(error).__name__}: {error}")
        self._warm_up = None
        return False
