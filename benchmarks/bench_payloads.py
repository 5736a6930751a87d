"""Measures bytes against score of every payload: images, and tensors from inside the network.

``python -m benchmarks.bench_payloads --workload W`` prints bytes per frame, bits per element and score of the
non-dominated payloads over all models, partition points, resolutions and codecs, JPEG and WebP of quality 2 to 90
included; ``--markdown FILE`` writes all payloads (docs/payloads.md). The verdict compares at equal score: the smallest
split payload that comes within 0.01 of a level, divided by the smallest JPEG or WebP that reaches it, each with the
best model, resolution and exit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.support.payload_offers import SPLITS, Offer, live_offers, recorded_offers
from controller.records import Decision
from runtime.bundles.bundle import open_bundle
from runtime.codecs import TENSOR, get_codec
from runtime.workloads.registry import get_workload

EQUAL_SCORE = 0.01
TARGET_RATIO = 0.4
LEVEL_STEP = 0.01
LEVELS = 12
COLOURS = {"raw": "black", "png": "dimgray", "jpeg": "tab:red", "webp": "tab:orange"}
COLOURS |= {"u8": "tab:cyan", "u4": "tab:blue", "u2": "tab:green", "u1": "darkgreen"}


def frontier(offers: Iterable[Offer], split: str) -> list[Offer]:
    """Non-dominated offers by bytes and score, the smallest first."""
    best: list[Offer] = []
    for offer in sorted(offers, key=lambda o: (o.mean_bytes, -o.score[split])):
        if not best or offer.score[split] > best[-1].score[split]:
            best.append(offer)
    return best


def smallest(offers: Iterable[Offer], split: str, score: float) -> Offer | None:
    """The smallest offer that reaches a score; None if none does."""
    reaching = [offer for offer in offers if offer.score[split] >= score]
    return min(reaching, key=lambda o: o.mean_bytes, default=None)


def comparison(offers: Sequence[Offer], split: str) -> list[dict[str, Any]]:
    """For levels of score, from the highest that both kinds reach downwards: the smallest offer of each kind and the
    ratio of their bytes."""
    tensors = [offer for offer in offers if offer.is_split]
    images = [offer for offer in offers if offer.is_lossy_image]
    if not tensors or not images:
        return []
    top = min(max(o.score[split] for o in tensors) + EQUAL_SCORE, max(o.score[split] for o in images))
    rows = []
    for level in top - LEVEL_STEP * np.arange(LEVELS):
        tensor, image = smallest(tensors, split, level - EQUAL_SCORE), smallest(images, split, level)
        if tensor is not None and image is not None:
            ratio = tensor.mean_bytes / image.mean_bytes
            rows.append({"level": float(level), "tensor": tensor, "image": image, "ratio": ratio})
    return rows


def offers_table(offers: Sequence[Offer], title: str) -> Table:
    table = Table("model", "px", "exit", "split after stage", "codec", title=title)
    for heading in ("bytes", "bits/element", "MMAC on device", *(f"score, {split}" for split in SPLITS)):
        table.add_column(heading, justify="right")
    for o in offers:
        figures = [f"{o.mean_bytes:,.0f}", f"{o.bits_per_element:.3f}", f"{o.device_macs / 1e6:,.1f}"]
        figures += [f"{o.score[split]:.4f}" for split in SPLITS]
        table.add_row(o.model, *map(str, (o.resolution_px, o.exit_branch, o.partition_point)), o.codec, *figures)
    return table


def comparison_table(rows: Sequence[dict[str, Any]], split: str) -> Table:
    table = Table("split payload", "bytes", "smallest JPEG or WebP", "bytes", "ratio", title=f"At equal score, {split}")
    table.add_column("at least", justify="right")
    for row in rows:
        tensor, image = row["tensor"], row["image"]
        figures = f"{row['ratio']:.3f}", f"{row['level']:.4f}"
        table.add_row(_named(tensor), f"{tensor.mean_bytes:,.0f}", _named(image), f"{image.mean_bytes:,.0f}", *figures)
    return table


def _named(o: Offer) -> str:
    decision = Decision(o.model, o.resolution_px, o.exit_branch, o.partition_point, o.codec)
    return decision.label


def family_of(codec: str) -> str:
    """The codec without its quality."""
    return codec if get_codec(codec).kind == TENSOR else codec.rstrip("0123456789")


def draw(offers: Sequence[Offer], split: str, title: str, path: Path) -> None:
    """Bytes against score of every offer, and the frontier of images and of tensors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axis = figure.subplots()
    for family, colour in COLOURS.items():
        found = [o for o in offers if family_of(o.codec) == family]
        if found:
            x, y = [o.mean_bytes for o in found], [o.score[split] for o in found]
            axis.scatter(x, y, 9, color=colour, alpha=0.6, label=family)
    for chosen, colour, label in (
        ([o for o in offers if o.is_split], "darkgreen", "best split payloads"),
        ([o for o in offers if o.is_lossy_image], "tab:red", "best JPEG or WebP"),
    ):
        line = [(o.mean_bytes, o.score[split]) for o in frontier(chosen, split)]
        if line:
            axis.step(*zip(*line, strict=True), where="post", color=colour, linewidth=1.5, label=label)
    axis.set_xscale("log")
    axis.set_xlabel("bytes per frame")
    axis.set_ylabel(f"score, {split}")
    axis.set_title(title)
    axis.legend(fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def markdown(offers: Sequence[Offer], workload: str, plot: str) -> str:
    """Every payload: a table per model, a row per resolution, cut and codec, a column per exit; the plot above."""
    lines = [
        f"# Payload sizes and accuracy: {workload}",
        "",
        f"`python -m benchmarks.bench_payloads --workload {workload} --markdown FILE --plot {plot}`",
        "",
        "Bytes per frame and bits per element (of the image or the tensor) are means over the validation split.",
        "Scores are means over the test split, for every exit after the cut. Cut 0 sends the image.",
        "",
        f"![Bytes per frame against score]({plot})",
    ]
    for model in dict.fromkeys(o.model for o in offers):
        mine = [o for o in offers if o.model == model]
        exits = sorted({o.exit_branch for o in mine})
        lines += ["", f"## {model}", ""]
        lines += ["| px | cut | codec | bytes | bits/element | " + " | ".join(f"exit {e}" for e in exits) + " |"]
        lines += ["|---|---|---|---|---|" + "---|" * len(exits)]
        rows: dict[tuple[int, int, str], list[Offer]] = {}
        for o in sorted(mine, key=lambda o: (-o.resolution_px, o.partition_point, -o.mean_bytes)):
            rows.setdefault((o.resolution_px, o.partition_point, o.codec), []).append(o)
        for (px, cut, codec), found in rows.items():
            score = {o.exit_branch: f"{o.score['test']:.3f}" for o in found}
            cells = [
                f"{found[0].mean_bytes:,.0f}",
                f"{found[0].bits_per_element:.3f}",
                *(score.get(e, "") for e in exits),
            ]
            lines.append(f"| {px} | {cut} | {codec} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def report(offers: Sequence[Offer], compared: dict[str, list[dict[str, Any]]], workload: str) -> dict[str, Any]:
    """All results as JSON."""
    levels = {
        split: [row | {"tensor": row["tensor"].plain(), "image": row["image"].plain()} for row in rows]
        for split, rows in compared.items()
    }
    return {"workload": workload, "target_ratio": TARGET_RATIO, "at_equal_score": levels} | {
        "offers": [offer.plain() for offer in offers]
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--bundle", help="a bundle's directory; default: the one shipped for the workload")
    parser.add_argument("--frames", type=int, help="frames of each split for qualities that the bundle does not have")
    parser.add_argument("--markdown", type=Path, help="write a table of all payloads to this file")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    parser.add_argument("--plot", type=Path, help="default: runs/payloads/WORKLOAD.png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, progress = Console(width=136), Console(stderr=True)
    bundle, workload = open_bundle(options.bundle or options.workload), get_workload(options.workload)
    offers = recorded_offers(bundle)
    with progress.status("running image codecs") as status:
        offers += live_offers(bundle, workload, options.frames, status.update)
    for kind, is_split in (("split payloads", True), ("images", False)):
        best = frontier((o for o in offers if o.is_split == is_split), "validation")
        console.print(offers_table(best, f"Best {kind} of {options.workload}, chosen on validation"))
    compared = {str(split): comparison(offers, split) for split in SPLITS}
    for split, rows in compared.items():
        console.print(comparison_table(rows, split))
    plot = options.plot or Path("runs/payloads") / f"{options.workload}.png"
    draw(offers, "test", f"{options.workload}: what an answer costs on the uplink", plot)
    if options.markdown:
        options.markdown.write_text(markdown(offers, options.workload, plot.name))
    if options.json:
        options.json.write_text(json.dumps(report(offers, compared, options.workload), indent=1) + "\n")
    return verdict(compared["test"], console, plot)


def verdict(rows: Sequence[dict[str, Any]], console: Console, plot: Path) -> int:
    """Print the verdict. Returns exit code 1 if split payloads miss the target at the highest score of both kinds."""
    if not rows:
        console.print("no verdict: the bundle has no split payloads, or no image codec was run")
        return 1
    ratios = [row["ratio"] for row in rows]
    reached = ratios[0] <= TARGET_RATIO
    console.print(
        f"at {rows[0]['level']:.4f}, the highest score that both reach on test, the best split payload takes "
        f"{ratios[0]:.3f} of the smallest JPEG or WebP; median over {len(rows)} levels {np.median(ratios):.3f}; "
        f"target {TARGET_RATIO}: {'reached' if reached else 'MISSED'}; plot: {plot}",
        soft_wrap=True,
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
