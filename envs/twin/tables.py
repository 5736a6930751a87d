"""What is the same for every environment of a twin: costs, traces, recorded scores, noise and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.costs import CostTable
from controller.errors import UsageError
from controller.fallback import FallbackTable, fallback_table
from controller.loads import load_draws
from controller.predict.uplink import TraceBank
from controller.records import Bools, Floats, Ints, PayloadKey
from controller.references import NO_STREAM
from controller.scenario import HEAD_NOISE_FRAC
from controller.utility import Utility
from envs.twin.mec_queue import neighbour_queue
from envs.twin.regions import CropColumns, crop_columns, part_bytes
from envs.twin.shortcut import TableShortcut
from envs.twin.state import record_type
from runtime.bundles.recorded import Recorded

_NOISE_SEED = 1
#: Records of the noise table; frame i of an episode uses record (start + i) modulo this.
NOISE_ROWS = 1 << 16


class TwinCalibration(NamedTuple):
    """What only a comparison with the live backend can tell."""

    head_noise_frac: float = HEAD_NOISE_FRAC
    mec_noise_frac: float = 0.05  # likewise of the MEC's time
    overhead_s: float = 0.0015  # serialisation, sockets and wake-ups of one request; most of it before it is served
    decide_s: float = 0.0015  # from the decision point to the begin of the head: waking up and deciding


#: A row of the cost table, or a path that ends at an exit on the way (``controller.gates``).
DECISION = record_type(
    offload="?",
    stride="i8",  # frames until the next decision
    accuracy="f8",
    head_s="f8",
    mec_s="f8",
    payload_std_bytes="f8",  # from the figure in TwinTables.payload_bytes
    payload_start="i8",  # where the row's payloads start in TwinTables.payload_bytes
    stream="i8",  # in which it sends; NO_STREAM where its payloads stand alone
    score_start="i8",  # where the scores of the row's variant start in TwinTables.aged_score
    taken_start="i8",  # where the paths of a gated row's samples start in TwinTables.taken; NOT_GATED for others
    crop_start="i8",  # path of a cropped row at the first age; NOT_CROPPED for others
    usable_start="i8",  # where the row's ages start in TwinTables.usable
    whole_row="i8",  # that is carried out where a part cannot be run
    is_part="?",  # a path whose answer is to a part of the picture, completed
)
NOT_GATED = -1

#: The chance of a frame.
NOISE = record_type(
    head="f8",  # factor on the device time of the head
    fallback="f8",  # and of the fallback
    mec="f8",  # factor on the MEC's time
    payload="f8",  # standard deviations from the mean payload
)

#: A trace of the bank.
TRACE = record_type(
    start_s="f8",  # where it starts in the bank
    start_bits="f8",
    duration_s="f8",
    bits="f8",  # that cross in one lap
    first="i8",  # of its steps
    last="i8",
)

#: A step of a trace, from the start of the bank.
STEP = record_type(
    start_s="f8",
    start_bits="f8",
    bps="f8",
    s_per_bit="f8",
)


class TwinTables(NamedTuple):
    """C rows of the cost table; V variants of S samples were recorded."""

    decisions: Any  # (C + P,) DECISION: the rows to their ends, then the paths that end at an exit on the way
    rows: int  # C
    taken: Ints  # the path of each sample, gated row by gated row
    usable: Bools  # whether a part is run, cropped row by cropped row, by age and sample
    crop_column: Ints  # the column of each age of the answer to a whole picture; WHOLE where there is none
    noise: Any  # (NOISE_ROWS,) NOISE
    load_draws: Floats  # that loads are made of
    traces: Any  # (traces,) TRACE
    steps: Any  # (steps of all traces,) STEP
    queue: Any  # the workload of other devices, see ``mec_queue``
    queue_started: Any
    #: Scores by the age of the answer in frames, from 0 to the last lag: replayed (lags + 1, V * S) and expected
    #: (lags + 1, C + P). One lag where nothing is ever reused.
    aged_score: NDArray[np.float32]
    aged_accuracy: Floats
    expected_score: NDArray[np.float32]  # (V * S,) of each answer, as a device knows it; empty where it does not
    tracked_speed: NDArray[np.float32]  # (V * S,) heights per frame, after each answer; empty without forecasts
    #: By row, then by column of ``controller.references`` if it has a stream, then by sample: as recorded, or means
    #: where not every sample's bytes were recorded.
    payload_bytes: Floats
    column_of_age: Ints  # the column for each age of a reference; the last one holds for all older ones
    chained: Bools  # (streams,) whether payloads refer to the one sent just before
    local: FallbackTable  # what the device answers when the MEC cannot be asked
    samples: int  # S
    payload_samples: int  # S or 1
    fastest: int  # the local row of a fallback at the last moment
    queue_limit: int
    reuses: bool  # whether an earlier answer may ever stand for a frame
    replayed: bool  # utility from the recorded score of each sample; otherwise from the expected accuracy
    calibration: TwinCalibration
    energy_weight_per_j: float
    drop_penalty: float
    compute_power_w: float
    radio_power_w: float


def sample_of(t: TwinTables, conditions: Any, frame: Any) -> Any:
    """Column of the recorded scores that a frame of an episode shows; arrays broadcast."""
    return (conditions["first_sample"] + frame) % t.samples


def aged_score(t: TwinTables, row: Any, sample: Any, lag: Any) -> Any:
    """What the answer of ``row``, or of a path, to ``sample`` scores for the frame that comes ``lag`` frames later;
    arrays broadcast."""
    lag = np.minimum(lag, len(t.aged_score) - 1)
    if t.replayed:
        return t.aged_score[lag, t.decisions["score_start"][row] + sample]
    return t.aged_accuracy[lag, row]


def make_tables(
    costs: CostTable,
    bank: TraceBank,
    recorded: Recorded,
    utility: Utility,
    calibration: TwinCalibration,
    *,
    queue_limit: int,
    replayed: bool,
    shortcuts: Sequence[TableShortcut],
) -> TwinTables:
    """Check and lay out what a twin needs."""
    variants, samples = recorded.score.shape
    _check(costs, variants)
    every = costs.every_path
    payloads, payload_std_bytes = _payloads(every, recorded, len(costs.paths))
    taken_start, taken = _taken(costs, recorded)
    cropped = crop_columns(costs, recorded)
    # What a viewer of a stream sees is an earlier answer, too, even where every frame is run.
    ages = recorded.lagged is not None
    needs_ages = ages or costs.longest_stride > 1 or any(shortcut.needs_newest for shortcut in shortcuts)
    aged, accuracy = _aged(every, recorded, needs_ages)
    expected, speed = _of_answers(costs, recorded)
    queue, queue_started = neighbour_queue()
    traces, steps = _traces(bank)
    local = fallback_table(costs, utility, queue_limit)
    return TwinTables(
        decisions=_decisions(every, payload_std_bytes, payloads, samples, taken_start, cropped),
        rows=len(costs),
        taken=taken,
        usable=cropped.usable,
        crop_column=cropped.column_of_age,
        noise=_draw_noise(calibration),
        load_draws=load_draws(),
        traces=traces,
        steps=steps,
        queue=queue,
        queue_started=queue_started,
        aged_score=aged,
        aged_accuracy=accuracy,
        expected_score=expected,
        tracked_speed=speed,
        payload_bytes=np.concatenate([table.ravel() for table in payloads]).astype(np.float64),
        column_of_age=np.array(costs.column_of_age, order="C"),
        chained=_chained(costs),
        # Copies of a kind that is the same in every twin, so that the twin is compiled once:
        local=FallbackTable._make(np.array(c, order="C") if isinstance(c, np.ndarray) else c for c in local),
        samples=samples,
        payload_samples=payloads[0].shape[1],
        fastest=int(costs.local_frontier[0]),
        queue_limit=queue_limit,
        reuses=needs_ages or bool(shortcuts),
        replayed=replayed,
        calibration=TwinCalibration._make(map(float, calibration)),
        energy_weight_per_j=float(utility.energy_weight_per_j),
        drop_penalty=float(utility.drop_penalty),
        compute_power_w=float(utility.compute_power_w),
        radio_power_w=float(utility.radio_power_w),
    )


def _check(costs: CostTable, variants: int) -> None:
    space = costs.space
    if not space.device_only.any():
        raise UsageError("no decision runs on the device alone; expected at least one, for the fallback")
    if costs.every_path.space.variant.max() >= variants:
        raise UsageError(
            f"got recorded predictions of {variants} variants; expected {costs.every_path.space.variant.max() + 1}: "
            "take them and the decision space from one bundle"
        )


def records_of(kind: np.dtype[Any], **columns: Any) -> Any:
    """(N,) records of their columns (N,)."""
    records = np.zeros(len(next(iter(columns.values()))), kind)
    for name, column in columns.items():
        records[name] = column
    return records


def _decisions(
    costs: CostTable,
    payload_std_bytes: Floats,
    payloads: Sequence[Floats],
    samples: int,
    taken_start: Ints,
    cropped: CropColumns,
) -> Any:
    return records_of(
        DECISION,
        offload=~costs.space.device_only,
        stride=costs.space.frame_stride,
        accuracy=costs.accuracy,
        head_s=costs.head_s,
        mec_s=costs.mec_s,
        payload_std_bytes=payload_std_bytes,
        payload_start=np.cumsum([0, *(table.size for table in payloads)])[:-1],
        stream=costs.stream,
        score_start=costs.space.variant * samples,
        taken_start=taken_start,
        crop_start=cropped.crop_start,
        usable_start=cropped.usable_start,
        whole_row=cropped.whole_row,
        is_part=cropped.is_part,
    )


def _taken(costs: CostTable, recorded: Recorded) -> tuple[Ints, Ints]:
    """(C + P,) where the samples of each gated row start in the second; that holds the paths they take."""
    start = np.full(len(costs.every_path), NOT_GATED)
    if costs.gates is None:
        return start, np.zeros(0, np.int64)
    gated = np.flatnonzero(costs.space.gated)
    start[gated] = np.arange(len(gated)) * recorded.score.shape[1]
    return start, np.array(costs.gates.taken(recorded.confidence)[gated].ravel(), np.int64)


def _traces(bank: TraceBank) -> tuple[Any, Any]:
    """(traces,) TRACE and (steps,) STEP of the bank, with its own figures."""
    counts = np.array([len(trace.t_s) for trace in bank.traces])
    last = np.cumsum(counts) - 1
    _, start_s, start_bits, bps = bank.bits_of_time
    steps = records_of(STEP, start_s=start_s, start_bits=start_bits, bps=bps, s_per_bit=bank.time_of_bits[3])
    first = last - counts + 1
    traces = records_of(
        TRACE,
        start_s=start_s[first],
        start_bits=start_bits[first],
        duration_s=bank.duration_s,
        bits=bank.total_bits,
        first=first,
        last=last,
    )
    return traces, steps


def _payloads(costs: CostTable, recorded: Recorded, plain: int) -> tuple[list[Floats], Floats]:
    """Bytes of every row's payload, arrays (columns, S), and no deviation (C,); or its means (columns, 1) and
    deviation. There is one column, or one for each age of the reference if the row has a stream. The paths
    from ``plain`` on are those of cropped rows, age by age."""
    has_stream = costs.stream != NO_STREAM
    if recorded.payload_bytes is None:
        means = zip(costs.payload_bytes, costs.payload_bytes_by_age, has_stream, strict=True)
        tables = [(by_age if aged else np.array([mean]))[:, None] for mean, by_age, aged in means]
        return tables, costs.payload_std_bytes
    nothing = np.zeros((1, recorded.score.shape[1]))
    tables = [nothing] * len(costs)
    for row in np.flatnonzero(~costs.space.device_only):
        if costs.space.decisions[row].crop:
            tables[row] = part_bytes(recorded, costs.space.decisions[row], int(row) - plain)
            continue
        key = costs.space.decisions[row].payload_key
        tables[row] = _aged_payloads(costs, recorded, key) if has_stream[row] else recorded.payload_bytes[key][None]
    return tables, np.zeros(len(costs))


def _aged_payloads(costs: CostTable, recorded: Recorded, key: PayloadKey) -> Floats:
    """(1 + ages, S) recorded bytes of a payload with a stream."""
    found, columns = (recorded.aged_bytes or {}).get(key), 1 + len(costs.ages)
    if found is None or len(found) != columns:
        got = "none" if found is None else f"{len(found)} columns"
        raise UsageError(
            f"got {got} of recorded bytes of {key} by the age of the reference; expected {columns} columns: "
            "take recorded answers and costs from one bundle"
        )
    return np.asarray(found)


def _chained(costs: CostTable) -> Bools:
    """(streams,) whether each stream is chained."""
    found = np.zeros(costs.streams, np.bool_)
    rows = costs.stream != NO_STREAM
    found[costs.stream[rows]] = costs.chained[rows]
    return found


def _aged(costs: CostTable, recorded: Recorded, needs_ages: bool) -> tuple[NDArray[np.float32], Floats]:
    """The tables of ageing answers; UsageError when answers may be reused and nothing says what that costs."""
    score = np.array(recorded.score, np.float32).reshape(1, -1)
    if not needs_ages:
        return score, np.array(costs.accuracy[None])
    lagged = recorded.lagged
    if lagged is None:
        raise UsageError(
            "got decisions or shortcuts that reuse answers, but no lagged scores; expected scores of older answers: "
            "take both from one bundle of a stream"
        )
    expected = np.stack([costs.accuracy_at(lag) for lag in range(len(lagged) + 1)])
    return np.concatenate((score, lagged.reshape(len(lagged), -1)), dtype=np.float32), expected


def _of_answers(costs: CostTable, recorded: Recorded) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Expected score and speed of the objects of every answer; empty where a device does not know them."""
    nothing = np.zeros(0, np.float32)
    if costs.lagged_accuracy is None:
        return nothing, nothing
    expected = recorded.confidence if recorded.expected_score is None else recorded.expected_score
    speed = recorded.tracked_speed if recorded.moves_on else None
    return expected.astype(np.float32).ravel(), nothing if speed is None else speed.astype(np.float32).ravel()


def _draw_noise(calibration: TwinCalibration) -> Any:
    """(NOISE_ROWS,) NOISE, the same in every twin of this calibration."""
    drawn = np.random.default_rng(_NOISE_SEED).standard_normal((4, NOISE_ROWS))
    head, fallback, mec, payload = drawn
    return records_of(
        NOISE,
        head=np.exp(calibration.head_noise_frac * head),
        fallback=np.exp(calibration.head_noise_frac * fallback),
        mec=np.exp(calibration.mec_noise_frac * mec),
        payload=payload,
    )
