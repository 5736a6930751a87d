"""What is observed, what is decided, what happened: the records that flow through mecpilot.

``SystemState -> Decision -> Outcome``, forward only. Records are frozen. A ``SystemState`` is a batch: each
field has a leading dimension, B environments in the twin, one in the daemon.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Float32s = NDArray[np.float32]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

#: How many uplink samples a SystemState carries, newest first.
UPLINK_HISTORY = 8


class Ending(NamedTuple):
    """What a status says about its frame."""

    on_time: bool  # answered before the deadline
    ran: bool  # something was computed for it
    reused: bool  # not run: an earlier answer stands for it (``controller.reuse``)
    has_decision: bool  # a decision was due for it
    moves_on: bool = False  # the earlier answer is of the same scene some frames ago, so a forecast may move it on


class Status(enum.StrEnum):
    """How one frame ended; exactly one per frame."""

    OK = "ok"  # answered before the deadline as decided
    LATE = "late"  # answered after the deadline, or never
    FALLBACK = "fallback"  # answered before the deadline by a local exit, because the MEC did not
    FILTERED = "filtered"  # reused: an input filter found nothing new in the picture
    CACHED = "cached"  # reused: a cache knew the answer
    DROPPED = "dropped"  # never started: the bounded queue was full
    SKIPPED = "skipped"  # reused: an earlier decision's frame stride covers the frame

    @property
    def on_time(self) -> bool:
        return ENDINGS[self].on_time

    @property
    def ran(self) -> bool:
        return ENDINGS[self].ran

    @property
    def reused(self) -> bool:
        return ENDINGS[self].reused

    @property
    def has_decision(self) -> bool:
        return ENDINGS[self].has_decision

    @property
    def moves_on(self) -> bool:
        return ENDINGS[self].moves_on

    @property
    def dropped(self) -> bool:
        """Neither run nor answered by an earlier answer."""
        return not (self.ran or self.reused)


#: The one table that says what a status means; nothing else lists statuses.
ENDINGS = {
    Status.OK: Ending(on_time=True, ran=True, reused=False, has_decision=True),
    Status.LATE: Ending(on_time=False, ran=True, reused=False, has_decision=True),
    Status.FALLBACK: Ending(on_time=True, ran=True, reused=False, has_decision=True),
    Status.FILTERED: Ending(on_time=True, ran=False, reused=True, has_decision=False, moves_on=True),
    Status.CACHED: Ending(on_time=True, ran=False, reused=True, has_decision=False),
    Status.DROPPED: Ending(on_time=False, ran=False, reused=False, has_decision=False),
    Status.SKIPPED: Ending(on_time=True, ran=False, reused=True, has_decision=False, moves_on=True),
}
#: Statuses by their number, where arrays hold numbers.
STATUSES = tuple(Status)

#: Where a row of the cost table would stand, if there were one.
NO_ROW = -1
#: Codec of a decision that sends nothing.
NO_PAYLOAD = "none"
#: Where a decision computes, in the words of ``Decision.side``.
SIDES = ("device", "split", "MEC")
#: Kinds of decision, in the order of SIDES. An offload sends the image, a split what a cut inside the network gives.
KINDS = ("device-only", "split", "offload")


#: What a decision sends: model, resolution, partition point, codec. Exits and strides do not matter.
PayloadKey: TypeAlias = tuple[str, int, int, str]


@dataclass(frozen=True, slots=True)
class Decision:
    """How one inference runs. ``partition_point`` stages run on the device, the rest on the MEC."""

    model: str
    resolution_px: int
    exit_branch: int
    partition_point: int
    payload: str  # codec of what crosses the uplink; "none" when the device answers alone
    frame_stride: int = 1  # run this frame, then skip frame_stride - 1
    #: Confidence from which on an exit before the cut answers on the device, and nothing is sent; 0: none is asked.
    gate: float = 0.0
    #: Share of the picture's width and height that is run, where something moves; 0: the whole picture
    #: (``controller.regions``). ``resolution_px`` is the width at which that part is run.
    crop: float = 0.0

    @property
    def payload_key(self) -> PayloadKey:
        """What it sends. A stream, too, has one model, resolution, partition point and codec."""
        return self.model, self.resolution_px, self.partition_point, self.payload

    @property
    def ungated(self) -> Decision:
        """The same without a gate: what the MEC knows of it, because a gate only matters on the device."""
        return replace(self, gate=0.0) if self.gate else self

    @property
    def whole(self) -> Decision:
        """The same for the whole picture: what the MEC knows of it, because only the device knows where a part lies."""
        return replace(self, crop=0.0) if self.crop else self

    @property
    def side(self) -> str:
        """Where it computes, one of SIDES."""
        if self.payload == NO_PAYLOAD:
            return "device"
        return "split" if self.partition_point else "MEC"

    @property
    def kind(self) -> str:
        """What it does, one of KINDS."""
        return KINDS[SIDES.index(self.side)]

    @property
    def label(self) -> str:
        """The decision in a few words."""
        split = f"split after stage {self.partition_point}, {self.payload}"
        where = {"device": "device only", "split": split, "MEC": f"whole image as {self._image_codec}"}[self.side]
        every = f", 1 of {self.frame_stride} frames" if self.frame_stride > 1 else ""
        gate = f", gate {self.gate:g}" if self.gate else ""
        crop = f", crop {self.crop:g}" if self.crop else ""
        return f"{self.model}, {self.resolution_px} px, exit {self.exit_branch}, {where}{every}{gate}{crop}"

    @property
    def _image_codec(self) -> str:
        """The codec's name and quality, such as "JPEG 5"."""
        kind = self.payload.rstrip("0123456789")
        written = {"jpeg": "JPEG", "webp": "WebP", "png": "PNG", "h264q": "H.264"}.get(kind, kind)
        return f"{written} {self.payload.removeprefix(kind)}".strip()


@dataclass(frozen=True, slots=True)
class BreakdownMs:
    """Where the latency of one frame went, in milliseconds."""

    wait: float = 0.0  # capture until the decision starts
    decide: float = 0.0
    head: float = 0.0  # resize, head segment and encoding on the device
    uplink: float = 0.0  # backlog, transmission and half the round trip
    queue: float = 0.0  # at the MEC
    tail: float = 0.0  # decoding and tail segment on the MEC
    downlink: float = 0.0


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a picture that was run, in its pixels."""

    x: float
    y: float
    width: float
    height: float
    seen: int  # how many items of the prediction were found in it; the others, behind them, are of an earlier answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one frame: the only source of every metric, one JSON line in the outcome log."""

    frame: int
    source_index: int  # test image or video frame
    status: Status
    latency_ms: float  # capture to answer
    deadline_ms: float
    payload_bytes: int
    energy_j: float  # modelled, see controller.utility
    utility: float | None  # None where no truth is known
    decision: Decision | None  # None where the status has no decision
    breakdown_ms: BreakdownMs
    prediction: Any
    truth: Any  # None where it is not known: frames that are not the workload's own samples
    score: float | None  # quality of the answer in [0, 1], whether or not it was in time; None without a truth
    captured_at: float | None = None  # Unix time of the capture in seconds, to the millisecond; None in the twin
    reused_frame: int | None = None  # whose answer stands for this one: itself if a shortcut knew it; None if it ran
    uplink_bytes: int = 0  # of the whole message on the wire (controller.packets), computed from ``payload_bytes``
    early_exit: int | None = None  # the exit before the cut that was sure enough to answer; None where none was
    #: The objects of the prediction, one number for each of its items; None where nothing is tracked
    #: (``controller.forecast``).
    track_ids: tuple[int, ...] | None = None
    region: Region | None = None  # of the picture that was run; None: the whole, or nothing was answered for the frame
    mec: str | None = None  # endpoint of the MEC that answered, where there may be several; None where none did


@dataclass(frozen=True, slots=True)
class SystemState:
    """What a controller sees before it decides one frame. Every array is (B,) unless said otherwise.

    Nothing here needs knowledge of the future, except ``true_latency_s`` which only the twin can fill and
    only the ``greedy-oracle`` controller reads.
    """

    deadline_s: Floats  # from capture
    capture_period_s: Floats
    frame_age_s: Floats  # time since capture
    uplink_bps: Floats  # (B, UPLINK_HISTORY) newest first; missing samples repeat the oldest
    uplink_sample_bytes: Floats  # (B, UPLINK_HISTORY) on the wire, in each of these; 0 before the first
    uplink_sample_age_s: Floats  # (B, UPLINK_HISTORY) since each of them
    uplink_sample_count: Ints  # samples seen so far
    uplink_age_s: Floats  # since the newest sample
    uplink_backlog_bytes: Floats  # own messages handed to the link and not yet answered or delivered
    rtt_s: Floats  # smallest round trip without payload
    device_slowdown: Floats  # measured / profiled device time, smoothed
    queued_frames: Ints  # frames waiting behind this one
    in_flight: Ints  # frames that wait for the MEC
    mec_queue_s: Floats  # reported by the last reply; fades when that is old
    mec_queue_mean_s: Floats  # over the last UPLINK_HISTORY replies; fades likewise
    mec_slowdown: Floats  # measured / profiled MEC time, smoothed; goes back to what the MEC announced
    mec_age_s: Floats  # since the last reply
    replied_row: Ints  # of the last request that the MEC replied to; -1 before the first reply
    replied_s: Floats  # from when its payload began to cross until the reply
    waiting_row: Ints  # of the oldest request without a reply; -1 without such a request
    waiting_s: Floats  # since its payload began to cross
    link_up: Bools  # the MEC answered lately
    on_time_frac: Floats  # smoothed over the last outcomes
    fallback_frac: Floats  # smoothed over the last outcomes
    # What the parts know of the scene. Not a number where it is not known: the part is off, or nothing came yet. None:
    # not known in any row.
    motion: Floats | None = None  # difference of this picture to that of the newest answer, as the input filter found
    confidence: Floats | None = None  # expected score of the newest answer that is out; only where samples are a stream
    reused_frac: Floats | None = None  # of the last frames, answered by shortcuts; those that a stride covers left out
    tracked_speed: Floats | None = None  # of the objects of that answer, in heights per frame; only with forecasts
    true_latency_s: Floats | None = None  # (B, C) latency each candidate would have; the twin only
    #: (B, streams) frames from the reference that each stream of the cost table has now to this frame. 0: it has none,
    #: and the next payload stands alone. None: not known or no stream; the steady state is assumed.
    reference_age: Ints | None = None
    #: Frames from the frame of the newest answer to a whole picture to this frame; 0: there is none. None: not known,
    #: or no row has a crop; the steady state is assumed.
    whole_age: Ints | None = None

    @property
    def batch(self) -> int:
        return int(self.deadline_s.shape[0])

    def take(self, rows: Ints) -> SystemState:
        """The states of the given rows (n,)."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: column[rows] for name, column in columns.items() if column is not None})
