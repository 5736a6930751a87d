"""Measures bytes on the uplink against score on the test split: splits, video codec, JPEG and WebP.

``python -m benchmarks.bench_payloads --workload W`` reads the answers and bytes that were recorded with the bundle. For
several levels of score it prints the fewest bytes with which each kind of payload reaches the level, each with its best
model, resolution and exit: for the payload alone, and for the whole message (``controller.packets``). The verdict
compares splits with the video codec. ``--measure h264q31,h264q48,jpeg2`` runs image codecs that the bundle lacks, which
takes minutes. ``--markdown FILE`` writes a table of all payloads (docs/payloads.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.support.kinds import COLOURS, H264, LOSSY_KINDS, PLAIN_SPLIT, SPLIT
from benchmarks.support.payload_offers import ALONE, SHOWN_AGES, Offer, measured_offers, recorded_offers
from runtime.bundles.bundle import open_bundle
from runtime.workloads.registry import get_workload

#: A split's whole messages, relative to those of the video codec at equal score.
TARGET_RATIO = 0.4
LEVELS = (0.92, 0.93, 0.94, 0.95)

Size = Callable[[Offer], float]
SIZES: dict[str, Size] = {"payload": lambda o: o.payload_bytes, "whole message": lambda o: o.message_bytes}


def frontier(offers: Iterable[Offer], size: Size) -> list[Offer]:
    """Non-dominated offers by bytes and score, the smallest first."""
    best: list[Offer] = []
    for offer in sorted(offers, key=lambda o: (size(o), -o.score)):
        if not best or offer.score > best[-1].score:
            best.append(offer)
    return best


def smallest(offers: Iterable[Offer], level: float, size: Size) -> Offer | None:
    """The smallest offer that reaches a score; None if none does."""
    return min((offer for offer in offers if offer.score >= level), key=size, default=None)


def groups(offers: Sequence[Offer]) -> dict[str, list[Offer]]:
    """The offers that are compared, by the headings of their columns: every lossy kind, with references of one age.

    A video codec refers to the frame before. A split refers to an answered frame, so the age depends on how long
    answers take.
    """
    found = {f"{SPLIT}, age {age}": [o for o in offers if (o.kind, o.age) == (SPLIT, age)] for age in SHOWN_AGES}
    for kind in LOSSY_KINDS[1:]:
        wanted = SHOWN_AGES[0] if kind == H264 else ALONE
        found[kind] = [o for o in offers if (o.kind, o.age) == (kind, wanted)]
    return {name: members for name, members in found.items() if members}


def at_equal_score(grouped: Mapping[str, Sequence[Offer]], size: Size) -> list[dict[str, Any]]:
    """Per level: the smallest offer of each group (None where none reaches the level)."""
    return [
        {"level": level} | {name: smallest(offers, level, size) for name, offers in grouped.items()} for level in LEVELS
    ]


def ratios(row: Mapping[str, Any], size: Size) -> dict[str, float]:
    """Bytes of the groups of splits relative to the video codec, where both reach the level."""
    video = row.get(H264)
    splits = {name: offer for name, offer in row.items() if name.startswith(SPLIT) and offer is not None}
    return {} if video is None else {name: size(offer) / size(video) for name, offer in splits.items()}


def level_table(grouped: Mapping[str, Sequence[Offer]], what: str) -> Table:
    """Fewest bytes per level and group."""
    size = SIZES[what]
    table = Table("score at least", title=f"Fewest bytes at equal score, {what}", box=box.MARKDOWN)
    splits = [name for name in grouped if name.startswith(SPLIT)] if H264 in grouped else []
    for heading in (*grouped, *(f"{name} / {H264}" for name in splits)):
        table.add_column(heading, justify="right")
    for row in at_equal_score(grouped, size):
        found, ratio = [row[name] for name in grouped], ratios(row, size)
        cells = ["" if offer is None else f"{size(offer):,.0f}" for offer in found]
        cells += [f"{ratio[name]:.2f}" if name in ratio else "" for name in splits]
        table.add_row(f"{row['level']:.2f}", *cells)
    return table


def best_table(grouped: Mapping[str, Sequence[Offer]]) -> Table:
    """Which decisions the figures of whole messages belong to."""
    table = Table("score at least", "kind", "decision", title="Smallest whole messages", box=box.MARKDOWN)
    for heading in ("score", "payload", "message"):
        table.add_column(heading, justify="right")
    for row in at_equal_score(grouped, SIZES["whole message"]):
        for name in grouped:
            if (o := row[name]) is not None:
                figures = f"{o.score:.4f}", f"{o.payload_bytes:,.0f}", f"{o.message_bytes:,.0f}"
                table.add_row(f"{row['level']:.2f}", name, o.decision.label, *figures)
    return table


def draw(grouped: Mapping[str, Sequence[Offer]], title: str, path: Path) -> None:
    """Bytes against score: every offer, and the frontier of each group, for payloads and for whole messages."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    for axis, (what, size) in zip(figure.subplots(1, 2, sharey=True), SIZES.items(), strict=True):
        for name, offers in grouped.items():
            kind = name.partition(",")[0]
            style = "--" if kind == SPLIT and not name.endswith(f"age {SHOWN_AGES[0]}") else "-"
            axis.scatter([size(o) for o in offers], [o.score for o in offers], 6, color=COLOURS[kind], alpha=0.35)
            line = [(size(o), o.score) for o in frontier(offers, size)]
            x, y = zip(*line, strict=True)
            axis.step(x, y, style, where="post", color=COLOURS[kind], linewidth=1.6, label=name)
        axis.set_xscale("log")
        axis.set_xlabel(f"bytes per frame, {what}")
        axis.grid(alpha=0.3)
    best = max(o.score for offers in grouped.values() for o in offers)
    axis.set_ylim(best - 0.15, best + 0.01)
    axis.legend(fontsize=9, loc="lower right")
    figure.supylabel("score, test", fontsize=10)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def markdown(offers: Sequence[Offer], tables: Sequence[Table], workload: str, plot: str, measured: str = "") -> str:
    """The tables, the plot, and every payload: a table per model, a row per resolution, cut, codec and age of the
    reference, a column per exit. ``measured``: codecs that were run, as on the command line."""
    options = f"--workload {workload}" + (f" --measure {measured}" if measured else "")
    lines = [
        f"# Payload sizes and accuracy: {workload}",
        "",
        f"`python -m benchmarks.bench_payloads {options} --markdown FILE --plot {plot}`",
        "",
        "Bytes per frame and scores are means over the test split. A message is what a frame sends up in all: payload,",
        "headers, and acknowledgement of the answer ([bytes on the wire](protocol.md#bytes-on-the-wire)). Age: frames",
        "from the reference of a payload to its own frame; empty where a payload stands alone. Cut 0 sends the image.",
        "",
        f"![Bytes per frame against score]({plot})",
    ]
    for table in tables:
        lines += ["", f"## {table.title}", "", *_plain_lines(table)]
    for model in dict.fromkeys(o.decision.model for o in offers):
        lines += ["", f"## {model}", "", *_model_table([o for o in offers if o.decision.model == model])]
    return "\n".join(lines) + "\n"


def _plain_lines(table: Table) -> list[str]:
    rows = zip(*(column.cells for column in table.columns), strict=True)
    heads = [str(column.header) for column in table.columns]
    return [f"| {' | '.join(map(str, cells))} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _model_table(offers: Sequence[Offer]) -> list[str]:
    exits = sorted({o.decision.exit_branch for o in offers})
    lines = ["| px | cut | codec | age | payload | message | " + " | ".join(f"exit {e}" for e in exits) + " |"]
    lines += ["|---|---|---|---|---|---|" + "---|" * len(exits)]
    rows: dict[tuple[int, int, str, int], list[Offer]] = {}
    for o in sorted(offers, key=lambda o: (-o.decision.resolution_px, o.decision.partition_point, -o.payload_bytes)):
        d = o.decision
        rows.setdefault((d.resolution_px, d.partition_point, d.payload, o.age), []).append(o)
    for (px, cut, codec, age), found in rows.items():
        score = {o.decision.exit_branch: f"{o.score:.3f}" for o in found}
        sizes = f"{found[0].payload_bytes:,.0f} | {found[0].message_bytes:,.0f}"
        cells = " | ".join(score.get(e, "") for e in exits)
        lines.append(f"| {px} | {cut} | {codec} | {age or ''} | {sizes} | {cells} |")
    return lines


def report(grouped: Mapping[str, Sequence[Offer]], offers: Sequence[Offer], workload: str) -> dict[str, Any]:
    """All results as JSON."""
    levels = {
        what: [
            {name: found.plain() if isinstance(found, Offer) else found for name, found in row.items()}
            | {"ratios": ratios(row, size)}
            for row in at_equal_score(grouped, size)
        ]
        for what, size in SIZES.items()
    }
    plain = {"workload": workload, "target_ratio": TARGET_RATIO, "at_equal_score": levels}
    return plain | {"offers": [offer.plain() for offer in offers]}


def verdict(grouped: Mapping[str, Sequence[Offer]], console: Console) -> int:
    """Print the verdict; 1 if whole messages of splits miss the target at a level that both reach, or if the best split
    scores less than the best image."""
    size = SIZES["whole message"]
    rows = {row["level"]: ratios(row, size) for row in at_equal_score(grouped, size)}
    found = {level: min(ratio.values()) for level, ratio in rows.items() if ratio}
    if not found:
        console.print("no verdict: splits with a reference and the video codec reach no level both")
        return 1
    reached = max(found.values()) <= TARGET_RATIO
    ratio = ", ".join(f"{value:.2f} at {level:.2f}" for level, value in found.items())
    best = {name: max(o.score for o in offers) for name, offers in grouped.items()}
    splits = max(value for name, value in best.items() if name.startswith((SPLIT, PLAIN_SPLIT)))
    images = max(value for name, value in best.items() if not name.startswith((SPLIT, PLAIN_SPLIT)))
    console.print(
        f"whole messages of splits / {H264}: {ratio}; target {TARGET_RATIO}: {'reached' if reached else 'MISSED'}. "
        f"Best score: split {splits:.4f}, image {images:.4f}",
        soft_wrap=True,
    )
    return 0 if reached and splits >= images else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--bundle", help="a bundle's directory; default: the one shipped for the workload")
    parser.add_argument("--measure", default="", help="image codecs to run in addition, separated by commas; slow")
    parser.add_argument("--frames", type=int, help="first frames of the test split for --measure; default: all")
    parser.add_argument("--markdown", type=Path, help="write all tables to this file")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    parser.add_argument("--plot", type=Path, help="default: runs/payloads/WORKLOAD.png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, progress = Console(width=180), Console(stderr=True)
    bundle, workload = open_bundle(options.bundle or options.workload), get_workload(options.workload)
    offers = recorded_offers(bundle)
    codecs = [name for name in options.measure.split(",") if name]
    with progress.status("running image codecs") as status:
        offers += measured_offers(bundle, workload, codecs, options.frames, status.update)
    grouped = groups(offers)
    tables = [*(level_table(grouped, what) for what in SIZES), best_table(grouped)]
    for table in tables:
        console.print(table)
    plot = options.plot or Path("runs/payloads") / f"{options.workload}.png"
    draw(grouped, f"{options.workload}: what an answer costs on the uplink", plot)
    if options.markdown:
        options.markdown.write_text(markdown(offers, tables, options.workload, plot.name, options.measure))
    if options.json:
        options.json.write_text(json.dumps(report(grouped, offers, options.workload), indent=1) + "\n")
    console.print(f"plot: {plot}", soft_wrap=True)
    return verdict(grouped, console)


if __name__ == "__main__":
    sys.exit(main())
