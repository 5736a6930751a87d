"""What an adoption found: the figures as they go into report.json, and as tables.

Every figure is taken from the finished bundle or was measured on the way; nothing is rated here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from runtime.observe.tables import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from runtime.workloads.adopted.description import Footage

REPORT_FILE, REPORT_TEXT = "report.json", "report.md"


class CutRow(msgspec.Struct, frozen=True):
    """One place where the foreign model is cut, at its largest resolution."""

    cut: int  # stages on the device
    place: str  # names of the tensors that cross
    tensors: int
    raw_bytes: int  # in float32
    device_macs: int  # before the cut
    device_macs_frac: float  # of the whole model


class PayloadRow(msgspec.Struct, frozen=True):
    """One payload, as the last exit of its model answers after it."""

    model: str
    resolution_px: int
    cut: int
    codec: str
    mean_bytes: float
    score: float  # on validation frames, against the truth
    jpeg: str  # the smallest JPEG after which the whole model scores at least as much, "320 px jpeg30"; "" if none
    jpeg_bytes: float | None
    bytes_frac: float | None  # of that JPEG


class ExitRow(msgspec.Struct, frozen=True):
    """One exit of a model without loss at one resolution."""

    model: str
    exit_branch: int
    resolution_px: int
    score: float  # on validation frames
    test_score: float
    macs: int  # up to and with the exit
    device_s: float | None  # on the profiled machine, one thread; None: not profiled


class LeftOut(msgspec.Struct, frozen=True):
    """What is not in the bundle, and why."""

    what: str
    why: str


class RelativeRow(msgspec.Struct, frozen=True):
    """A cheaper relative that reached its target."""

    name: str
    words: str


class Step(msgspec.Struct, frozen=True):
    """Wall-clock time of one step."""

    name: str
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """What an adoption found."""

    name: str
    task: str
    model: str  # as the user named it
    truth: str  # in words: what every score rests on
    footage: str  # in words
    frames: dict[str, int]  # per split
    measured_frames: dict[str, int]  # per split, on which the scores rest
    frames_with_boxes: dict[str, int]  # of these; {} for answers that are no boxes
    cuts: tuple[CutRow, ...]
    head_tail_error: float  # largest of all cuts and resolutions, as a share of the range of the outputs
    exits: tuple[ExitRow, ...]
    payloads: tuple[PayloadRow, ...]
    relatives: tuple[RelativeRow, ...]
    left_out: tuple[LeftOut, ...]
    decisions: int
    digest: str
    steps: tuple[Step, ...]
    peak_memory_bytes: int  # at most: the peak of this process, and for each of --jobs that of the largest child

    @property
    def seconds(self) -> float:
        """Wall-clock time of all steps."""
        return sum(step.seconds for step in self.steps)


@dataclass(frozen=True)
class Sheet:
    """A table that can be printed and written as Markdown. Columns in ``text`` are text, the others numbers."""

    title: str
    headings: tuple[str, ...]
    text: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def table(self) -> Table:
        table = new_table(self.title, self.headings, text=self.text)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        rule = ("---" if heading in self.text else "---:" for heading in self.headings)
        rows = (tuple(cell.replace("|", "\\|") for cell in row) for row in self.rows)
        lines = [" | ".join(cells) for cells in (self.headings, tuple(rule), *rows)]
        return "\n".join([f"## {self.title}", "", *(f"| {line} |" for line in lines), ""])


def sheets_of(report: Report) -> list[Sheet]:
    """The tables of a report; those without rows are left out."""
    return [sheet for sheet in _sheets(report) if sheet.rows]


#: Share of the measured frames that show objects, below which scores say little.
LEAST_WITH_BOXES = 1 / 3
NEARLY_EMPTY = (
    "Most of these frames are empty, and a model that finds nothing scores well there. Measure more with --samples, or "
    "bring footage that shows more."
)


def words_of(report: Report) -> list[str]:
    """What the tables cannot say, a sentence a line."""
    with_boxes = report.frames_with_boxes
    measured = ", ".join(
        f"{count} {split}" + (f" ({with_boxes[split]} with objects)" if split in with_boxes else "")
        for split, count in report.measured_frames.items()
    )
    few = any(count < LEAST_WITH_BOXES * report.measured_frames[split] for split, count in with_boxes.items())
    return [
        f"{report.model} as {report.name!r} ({report.task}); {report.footage}",
        f"Scores: {report.truth}; means of {measured} frames.",
        *((NEARLY_EMPTY,) if few else ()),
        f"Cut models equal the whole one to {report.head_tail_error:.1e} of the range of its outputs.",
        f"{report.decisions} decisions; {report.seconds / 60:.1f} minutes; "
        f"{report.peak_memory_bytes / 2**30:.2f} GiB of memory at most; bundle {report.digest[:12]}.",
    ]


def markdown_of(report: Report) -> str:
    """The whole report as a page."""
    words = "\n".join(f"- {line}" for line in words_of(report))
    return "\n".join([f"# Adoption of {report.model}", "", words, "", *(s.markdown() for s in sheets_of(report))])


def footage_words(footage: Footage) -> str:
    """What the footage is, for people."""
    every = "" if footage.step == 1 else f", every {footage.step}th picture"
    times = f" at {footage.fps:g} frames/s" if footage.fps else " without times"
    return f"{footage.frames} frames of {footage.file}{times}{every}"


def _sheets(report: Report) -> Iterator[Sheet]:
    yield Sheet(
        "Cuts of the whole model, at its largest resolution",
        ("cut", "tensors", "raw kB", "device MMAC", "share", "place"),
        ("place",),
        tuple(
            (
                str(row.cut),
                str(row.tensors),
                f"{row.raw_bytes / 1e3:.0f}",
                f"{row.device_macs / 1e6:.0f}",
                f"{row.device_macs_frac:.0%}",
                row.place,
            )
            for row in report.cuts
        ),
    )
    yield Sheet(
        "Exits without loss",
        ("model", "exit", "px", "validation", "test", "MMAC", "ms here"),
        ("model",),
        tuple(
            (
                row.model,
                str(row.exit_branch),
                str(row.resolution_px),
                f"{row.score:.3f}",
                f"{row.test_score:.3f}",
                f"{row.macs / 1e6:.0f}",
                "-" if row.device_s is None else f"{row.device_s * 1e3:.1f}",
            )
            for row in report.exits
        ),
    )
    yield Sheet(
        "Payloads, beside the smallest JPEG of at least the same score",
        ("model", "px", "cut", "codec", "bytes", "score", "of JPEG", "JPEG"),
        ("model", "codec", "JPEG"),
        tuple(_payload_cells(row) for row in report.payloads),
    )
    relatives = tuple((row.name, row.words) for row in report.relatives)
    yield Sheet("Relatives made from it", ("name", "how, and how well"), ("name", "how, and how well"), relatives)
    yield Sheet("Left out", ("what", "why"), ("what", "why"), tuple((row.what, row.why) for row in report.left_out))
    yield Sheet(
        "Time", ("step", "seconds"), ("step",), tuple((step.name, f"{step.seconds:.1f}") for step in report.steps)
    )


def _payload_cells(row: PayloadRow) -> tuple[str, ...]:
    share = "-" if row.bytes_frac is None else f"{row.bytes_frac:.2f}"
    jpeg = f"{row.jpeg}, {row.jpeg_bytes:.0f} bytes" if row.jpeg_bytes is not None else "none"
    where = (row.model, str(row.resolution_px), str(row.cut), row.codec)
    return (*where, f"{row.mean_bytes:.0f}", f"{row.score:.3f}", share, jpeg)


def smallest_jpeg(rows: Sequence[PayloadRow], score: float) -> PayloadRow | None:
    """The smallest JPEG among the payloads after which at least this score is reached."""
    enough = [row for row in rows if row.cut == 0 and row.codec.startswith("jpeg") and row.score >= score]
    return min(enough, key=lambda row: row.mean_bytes, default=None)
