"""``mecpilot profile``: measure this machine, print the error of each way to predict, write the profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.errors import UsageError, unknown_name
from runtime.cli.console import log_as, write_json
from runtime.cli.shared_options import BundleDir, DataDir, DecoderCode, JsonOut, WorkloadName
from runtime.config.sections.fields import DEFAULT_WORKLOAD
from runtime.files.atomic import check_apart, check_writable
from runtime.observe.tables import new_table, table_console
from runtime.profiling.profile import (
    FORMAT_VERSION,
    SIDES,
    Choice,
    Profile,
    SegmentTime,
    Side,
    choice_of,
    default_out,
    merge,
    read_profile,
    write_profile,
)

if TYPE_CHECKING:
    from rich.table import Table

QUICK_BUDGET_S = 12.0
FULL_BUDGET_S = 75.0


def profile(
    workload: WorkloadName = DEFAULT_WORKLOAD,
    bundle: BundleDir = None,
    data: DataDir = None,
    decode: DecoderCode = None,
    side: Annotated[str | None, typer.Option(help="Side to measure: device or mec (default: both).")] = None,
    merge_file: Annotated[
        Path | None, typer.Option("--merge", help="Take the other side from this profile, of another machine.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Half as many rounds.")] = False,
    out: Annotated[Path | None, typer.Option(help="Profile to write; by default in the user's cache.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Engine to measure: auto, torch, onnxruntime, openvino or cuda (default: each model's own)."),
    ] = None,
    json_out: JsonOut = None,
) -> None:
    """Measure segments on this machine, fit the layer regressions, report their errors, write the profile.

    It takes some minutes; a bundle with few decisions takes 75 s, with --quick 12 s.
    """
    import torch

    from runtime.bundles.bundle import open_pair
    from runtime.decoders.given import give_all
    from runtime.inference.segments import Segments
    from runtime.profiling.measure import MIN_ROUNDS, QUICK_ROUNDS, THREADS, measure_sides

    sides = _sides(side, merge_file)
    give_all(decode)
    opened, source = open_pair(bundle, workload, data)
    path = out or default_out(opened)
    check_writable(path, "--out", make_folder=True)
    check_writable(json_out, "--json")
    check_apart({"--out": path, "--json": json_out}, {})
    other = None if merge_file is None else read_profile(merge_file, opened)
    budget_s, rounds = (QUICK_BUDGET_S, QUICK_ROUNDS) if quick else (FULL_BUDGET_S, MIN_ROUNDS)
    log = log_as("profile")
    torch.set_num_threads(THREADS)  # before --engine auto compares engines
    segments = Segments(opened, source, engine, log)
    log(f"measuring {' and '.join(sides)} with {opened.workload}: {budget_s:.0f} s at least")
    with _progress_bar(f"profiling {workload}") as progress:
        found = measure_sides(opened, source, sides, budget_s, progress, rounds, segments)
    measured = Profile(FORMAT_VERSION, opened.workload, opened.digest, found.get("device"), found.get("mec"))
    if other is not None:
        measured = merge(measured, other)
    write_profile(path, measured)
    report(measured, path, json_out, choice_of(opened, measured) if measured.has_both_sides else None)


def _sides(side: str | None, merge_file: Path | None) -> tuple[Side, ...]:
    if side is not None and side not in SIDES:
        raise unknown_name("side", side, SIDES)
    if merge_file is not None and side is None:
        raise UsageError("--merge without --side; expected --side device or --side mec, the side to measure here")
    return tuple(known for known in SIDES if side in (None, known))


@contextmanager
def _progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda done: bar.update(task, completed=done)


def report(measured: Profile, path: Path, json_out: str | None, choice: Choice | None = None) -> None:
    """Tables on stdout, or JSON where it was asked for."""
    chosen = {} if choice is None else {"choice": asdict(choice)}
    if write_json(_summary(measured, path) | chosen, json_out):
        return
    console = table_console()
    console.print(_error_table(measured))
    if measured.device is not None:
        console.print(_device_table(measured.device.segments))
    if choice is not None:
        console.print(_choice_table(choice))
    console.print(f"profile written to {path}", soft_wrap=True)


def _summary(measured: Profile, path: Path) -> dict[str, object]:
    """Everything but the single segments, which are in the profile."""
    summary: dict[str, object] = {
        "workload": measured.workload,
        "bundle_digest": measured.bundle_digest,
        "profile": str(path),
    }
    for name in SIDES:
        if (found := getattr(measured, name)) is not None:
            summary[name] = {
                "machine": found.machine,
                "segments": len(found.segments),
                "errors": found.errors,
                "regressions": found.regressions,
            }
    return summary


def _error_table(measured: Profile) -> Table:
    headings = ("side", "predicted by", "MAPE", "RMSE", "segments")
    table = new_table(f"How well the segments of {measured.workload} are predicted", headings, text=headings[:2])
    ways = {
        "regression": "layer regressions, summed (cuts not fitted on)",
        "layers": "measured layers, summed",
        "segments": "measured segments (second half by first)",
    }
    for name in SIDES:
        if (found := getattr(measured, name)) is None:
            continue
        for field, label in ways.items():
            error = getattr(found.errors, field)
            row = (f"{error.mape_frac:.1%}", f"{error.rmse_s * 1e3:.3f} ms", str(error.count))
            table.add_row(name, label, *row)
    return table


def _choice_table(choice: Choice) -> Table:
    headings = ("over", "loss of utility", "in 1 of 100 conditions, more than")
    title = f"Controllers choose from {choice.candidates} of {choice.legal} decisions"
    table = new_table(title, headings, text=headings[:1])
    for loss in choice.losses:
        table.add_row(loss.links, f"{loss.mean:.4f}", f"{loss.p99:.4f}")
    return table


def _device_table(segments: tuple[SegmentTime, ...]) -> Table:
    """What the device would need alone, per model and resolution, first and last exit."""
    headings = ("model", "px", "exit", "median", "p95", "by regression")
    table = new_table("Device-only, profiled machine, one thread", headings, text=("model",))
    alone = [segment for segment in segments if segment.key.exit_branch >= 0]
    last = {s.key.model: max(o.key.exit_branch for o in alone if o.key.model == s.key.model) for s in alone}
    for segment in alone:
        key = segment.key
        if key.exit_branch in (0, last[key.model]):
            times = (segment.median_s, segment.p95_s, segment.regression_s)
            row = (str(key.resolution_px), str(key.exit_branch), *(f"{t * 1e3:.3f} ms" for t in times))
            table.add_row(key.model, *row)
    return table
