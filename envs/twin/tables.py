"""What is the same for every environment of a twin: costs, traces, recorded scores, noise and limits, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from controller.costs import CostTable
from controller.errors import UsageError
from controller.fallback import Alone
from controller.predict.uplink import TraceBank
from controller.records import Bools, Floats, Ints, Status
from controller.scenario import HEAD_NOISE_FRAC
from controller.utility import Utility
from envs.twin.conditions import NOISE_ROWS
from envs.twin.mec_queue import NeighbourQueue, neighbour_queue
from runtime.bundles.recorded import PayloadBytes, payload_key

_NOISE_SEED = 1


class RecordedAnswers(Protocol):
    """What the twin needs of a bundle's recorded predictions."""

    @property
    def score(self) -> NDArray[np.float32]:
        """(variants, samples) in [0, 1]"""
        ...

    @property
    def lagged(self) -> NDArray[np.float32] | None:
        """(lags, variants, samples) against the truths 1, 2, ... samples later; asked for with frame intervals only"""
        ...

    @property
    def payload_bytes(self) -> PayloadBytes | None:
        """(samples,) of every payload, or None: then the cost table's mean and deviation stand for them"""
        ...


class TableShortcut(Protocol):
    """A shortcut (``runtime.shortcuts``) as the twin knows it: the rule of its device half, on recorded verdicts."""

    @property
    def reason(self) -> Status:
        """One of ``controller.reuse.REASONS``."""
        ...

    def stands(self, frame: Ints, sample: Ints, age: Ints) -> Bools:
        """(B,) whether the newest answer that is out may stand for each frame.

        ``frame`` is its number in the episode, ``sample`` its column in the recorded tables, ``age`` how many frames
        ago the frame of that answer was; all (B,).
        """
        ...


@dataclass(frozen=True, slots=True)
class TwinCalibration:
    """What only a comparison with the live backend can tell."""

    head_noise_frac: float = HEAD_NOISE_FRAC
    mec_noise_frac: float = 0.05  # likewise of the MEC's time
    overhead_s: float = 0.0015  # serialisation, sockets and wake-ups of one request; most of it before it is served
    decide_s: float = 0.0015  # from the decision point to the begin of the head: waking up and deciding
    header_bytes: float = 0.0  # what occupies the uplink besides the payload


class Cost:
    """Rows of TwinTables.costs."""

    HEAD_S: Final = 0
    PAYLOAD_STD_BYTES: Final = 1  # from the figure in TwinTables.payload_bytes
    MEC_S: Final = 2
    COUNT: Final = 3


class Noise:
    """Rows of TwinTables.luck: draws for (episode, frame), so that no choice changes the luck of a later frame."""

    HEAD: Final = 0  # factor of the head segment's time
    FALLBACK: Final = 1  # factor of the fallback's time
    MEC: Final = 2  # factor of the tail segment's time
    PAYLOAD: Final = 3  # standard deviations from the mean payload
    COUNT: Final = 4


@dataclass(frozen=True, slots=True)
class TwinTables:
    """C rows of the cost table, L of them on the local frontier; V variants of S samples were recorded.

    Single numbers are arrays without axes: numpy takes these into an operation without converting them.
    """

    costs: Floats  # (Cost.COUNT, C)
    offload: Bools  # (C,)
    accuracy: Floats  # (C,)
    interval: Ints  # (C,) frames until the next decision
    shortcuts: tuple[TableShortcut, ...]  # asked in order before a frame is decided
    reuses: bool  # whether an earlier answer may ever stand for a frame
    score_start: Ints  # (C,) where the row's variant starts in ``score``
    score: NDArray[np.float32]  # (V * S,)
    samples: Ints  # () S
    payload_start: Ints  # (C,) where the row's payloads start in ``payload_bytes``
    payload_bytes: Floats  # (C * S,) as recorded, or (C,) means where every sample's were not
    payload_samples: Ints  # () S or 1
    #: Scores by the age of the answer in frames, from 0 to the last lag: replayed (lags + 1, V * S) and expected
    #: (lags + 1, C). One lag where nothing is ever reused.
    aged_score: NDArray[np.float32]
    aged_accuracy: Floats
    alone: Alone  # what the device answers when the MEC cannot be asked
    fastest: Ints  # () the local row of a fallback at the last moment
    fastest_s: Floats  # () its device time
    luck: Floats  # (Noise.COUNT, NOISE_ROWS)
    bank: TraceBank
    queue: NeighbourQueue
    utility: Utility
    overhead_s: Floats  # ()
    decide_s: Floats  # ()
    header_bytes: Floats  # ()
    queue_limit: Ints  # ()
    max_in_flight: int
    replayed: bool  # utility from the recorded score of each sample; otherwise from the expected accuracy


def make_rules(
    costs: CostTable,
    bank: TraceBank,
    recorded: RecordedAnswers,
    utility: Utility,
    calibration: TwinCalibration,
    *,
    queue_limit: int,
    max_in_flight: int,
    replayed: bool,
    shortcuts: tuple[TableShortcut, ...] = (),
) -> TwinTables:
    """Check and lay out what a twin needs."""
    space, alone = costs.space, Alone(costs, utility, queue_limit)
    score = np.ascontiguousarray(recorded.score).ravel()
    variants, samples = recorded.score.shape
    if not alone.possible:
        raise UsageError("no decision runs on the device alone; expected at least one, for the fallback")
    if space.variant.max() >= variants:
        raise UsageError(
            f"got recorded predictions of {variants} variants; expected {space.variant.max() + 1}: "
            "take them and the decision space from one bundle"
        )
    payload_bytes, payload_std_bytes = _payloads(costs, recorded)
    rows, payload_samples = payload_bytes.shape
    reuses = costs.longest_interval > 1 or bool(shortcuts)
    return TwinTables(
        costs=np.array((costs.head_s, payload_std_bytes, costs.mec_s)),
        offload=~space.device_only,
        accuracy=costs.accuracy,
        interval=space.frame_stride,
        shortcuts=shortcuts,
        reuses=reuses,
        score_start=space.variant * samples,
        score=score,
        samples=np.array(samples),
        payload_start=np.arange(rows) * payload_samples,
        payload_bytes=payload_bytes.ravel(),
        payload_samples=np.array(payload_samples),
        **_aged(costs, recorded, score, reuses),
        alone=alone,
        fastest=np.array(alone.fastest),
        fastest_s=np.array(costs.head_s[alone.fastest]),
        luck=_draw_noise(calibration),
        bank=bank,
        queue=neighbour_queue(),
        utility=_without_axes(utility),
        overhead_s=np.array(calibration.overhead_s),
        decide_s=np.array(calibration.decide_s),
        header_bytes=np.array(calibration.header_bytes),
        queue_limit=np.array(queue_limit),
        max_in_flight=max_in_flight,
        replayed=replayed,
    )


def _payloads(costs: CostTable, recorded: RecordedAnswers) -> tuple[Floats, Floats]:
    """Bytes of every row's payload (C, S) and no deviation (C,), or its mean (C, 1) and deviation."""
    if recorded.payload_bytes is None:
        return costs.payload_bytes[:, None], costs.payload_std_bytes
    table = np.zeros((len(costs), recorded.score.shape[1]))
    for row in np.flatnonzero(~costs.space.device_only):
        table[row] = recorded.payload_bytes[payload_key(costs.space.decisions[row])]
    return table, np.zeros(len(costs))


def _aged(costs: CostTable, recorded: RecordedAnswers, score: NDArray[np.float32], reuses: bool) -> dict[str, Any]:
    """The tables of ageing answers; UsageError when answers may be reused and nothing says what that costs."""
    if not reuses:
        return {"aged_score": score[None], "aged_accuracy": costs.accuracy[None]}
    lagged = recorded.lagged
    if lagged is None:
        raise UsageError(
            "got decisions or shortcuts that reuse answers, but no lagged scores; expected scores of older answers: "
            "take both from one bundle of a stream"
        )
    return {
        "aged_score": np.concatenate((score[None], lagged.reshape(len(lagged), -1))),
        "aged_accuracy": np.stack([costs.accuracy_at(lag) for lag in range(len(lagged) + 1)]),
    }


def _without_axes(utility: Utility) -> Utility:
    """The same weights as arrays without axes, which numpy takes into an operation without converting them."""
    weights: Any = {field.name: np.array(getattr(utility, field.name)) for field in fields(utility)}
    return Utility(**weights)


def _draw_noise(calibration: TwinCalibration) -> Floats:
    luck = np.random.default_rng(_NOISE_SEED).standard_normal((Noise.COUNT, NOISE_ROWS))
    for row, noise_frac in (
        (Noise.HEAD, calibration.head_noise_frac),
        (Noise.FALLBACK, calibration.head_noise_frac),
        (Noise.MEC, calibration.mec_noise_frac),
    ):
        luck[row] = np.exp(noise_frac * luck[row])
    return luck
