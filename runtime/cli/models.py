"""``mecpilot models``: list, show and train the models of bundles, and add models to a bundle; see also `compress`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from controller.errors import UsageError, unknown_name
from runtime.bundles.bundle import Bundle, open_bundle, shipped_bundles
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.cli.bundle_tables import (
    accuracy_table,
    cost_table,
    cut_table,
    emit,
    model_table,
    payload_tables,
    summary_of,
)
from runtime.cli.compress import compress
from runtime.cli.console import task_bar
from runtime.cli.empty import empty
from runtime.cli.shared_options import DataDir, DecoderCode, JsonOut, ScorerCode, Wide, WorkloadName
from runtime.config.sections.fields import DEFAULT_WORKLOAD
from runtime.files.atomic import check_writable
from runtime.observe.tables import new_table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Bundles: models, exits, accuracy.")
app.command()(compress)
app.command()(empty)

BundleArgument = Annotated[str, typer.Argument(help="A workload's shipped bundle, or a bundle's directory.")]


@app.command("list")
def list_bundles(json: JsonOut = None) -> None:
    """Shipped bundles and their models."""
    bundles = [open_bundle(name) for name in shipped_bundles()]
    summaries = [summary_of(bundle) for bundle in bundles]
    headings = ("bundle", "models", "resolutions px", "decisions", "weights MB", "digest")
    table = new_table("bundles", headings, text=("bundle", "models", "digest"))
    for bundle, summary in zip(bundles, summaries, strict=True):
        table.add_row(
            bundle.workload,
            ", ".join(bundle.model_names),
            ", ".join(map(str, bundle.manifest.resolutions_px)),
            str(summary["decisions"]),
            f"{summary['weights_bytes'] / 1e6:.2f}",
            bundle.digest[:12],
        )
    emit(summaries, [table], json)


@app.command()
def show(
    bundle: BundleArgument = DEFAULT_WORKLOAD,
    json: JsonOut = None,
    draw: Annotated[
        int | None, typer.Option(min=0, help="Draw what every exit answers for this test image or video frame.")
    ] = None,
    resolution_px: Annotated[int | None, typer.Option(help="Resolution to draw at (default: the largest).")] = None,
    out: Annotated[Path, typer.Option(help="Picture to draw, a .png.")] = Path("exits.png"),
    payloads: Annotated[
        bool, typer.Option("--payloads", help="Bytes and scores of every payload too: a row per cut and codec.")
    ] = False,
    wide: Wide = False,
    decode: DecoderCode = None,
) -> None:
    """Stages, exits, and accuracy per resolution and exit of a bundle; or one frame, drawn."""
    from runtime.decoders.given import give_all

    give_all(decode)
    opened = open_bundle(bundle)
    if draw is not None:
        _draw_exits(opened, draw, resolution_px, out)
        return
    tables = [accuracy_table(opened, split) for split in opened.manifest.recorded]
    tables += [
        model_table(opened),
        cut_table(opened),
        cost_table(opened),
        *(payload_tables(opened, wide) if payloads else ()),
    ]
    document = msgspec.to_builtins(opened.manifest, str_keys=True) | {"digest": opened.digest}
    for model, info in zip(document["models"], opened.manifest.models, strict=True):
        model |= {"precision": info.precision, "engine": info.engine}  # the manifest leaves defaults out
    emit(document, tables, json, wide)


def _draw_exits(bundle: Bundle, frame: int, resolution_px: int | None, out: Path) -> None:
    from runtime.observe.exit_sheet import exit_sheet
    from runtime.observe.pictures import write_png

    known = bundle.manifest.resolutions_px
    px = max(known) if resolution_px is None else resolution_px
    if px not in known:
        raise UsageError(f"--resolution-px {px}; expected one of: {', '.join(map(str, known))}")
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}; expected a name that ends in .png")
    check_writable(out, "--out")
    write_png(out, exit_sheet(bundle, bundle.work, frame, px))
    print(out)


@app.command()
def train(
    workload: WorkloadName = DEFAULT_WORKLOAD,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle (default: runs/models-WORKLOAD).")] = None,
    seed: Annotated[int, typer.Option(help="Random seed: the same one gives the same weights on a like machine.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; overrides each family's default.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Train only this family; may be repeated.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Families trained at the same time.")] = 2,
    data: DataDir = None,
    max_samples: Annotated[
        int | None, typer.Option(min=2, help="Samples per split to measure on (default: all); few give a quick look.")
    ] = None,
    json: JsonOut = None,
) -> None:
    """Train all exits of every family jointly, measure them, and write a bundle."""
    from runtime.building.training_run import TrainingPlan, run_plan
    from runtime.workloads.registry import get_workload

    work = get_workload(workload, data)
    if work.description_sha256:
        raise UsageError(f"{workload} is an adopted bundle; `mecpilot adopt` made its models, and makes them anew")
    known = work.families
    for name in family or []:
        if name not in known:
            raise unknown_name("family", name, known)
    check_writable(json, "--json")
    directory = out or Path("runs") / f"models-{work.name}"
    check_writable(directory / MANIFEST_FILE, "--out", make_folder=True)
    families = tuple(name for name in known if not family or name in family)
    plan = TrainingPlan(workload, directory, families, seed, epochs, jobs, data, max_samples)
    with task_bar() as progress:
        run_plan(plan, progress)
    bundle = open_bundle(directory)
    print(f"bundle {directory}, TensorBoard logs {plan.logs}", file=sys.stderr)
    emit(summary_of(bundle), [accuracy_table(bundle, split) for split in bundle.manifest.recorded], json)


@app.command()
def add(
    base: Annotated[str, typer.Argument(help="Bundle to add to: a workload's shipped one, or a directory.")],
    workload: Annotated[str | None, typer.Option(help="As of other commands (default: the bundle's workload).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle (default: runs/models-WORKLOAD).")] = None,
    family: Annotated[
        list[str] | None, typer.Option(help="Add this family; may be repeated (default: all that the bundle lacks).")
    ] = None,
    trained: Annotated[
        Path | None, typer.Option(help="Bundle from which the weights of the families are taken, instead of training.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the training.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; overrides each family's default.")] = None,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast",
            help="Add the scores of forecasts and the speeds of what they follow, and nothing else: all answers are "
            "computed again.",
        ),
    ] = False,
    roi: Annotated[
        bool,
        typer.Option(
            "--roi",
            help="Add what parts of pictures score (docs/roi.md), and nothing else; takes one core and some minutes.",
        ),
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Models that are worked on at the same time.")] = 2,
    data: DataDir = None,
    decode: DecoderCode = None,
    scorer: ScorerCode = None,
    json: JsonOut = None,
) -> None:
    """Write a new bundle: the models of an existing one as they are, and the families and codecs that it lacks."""
    from runtime.building.crops import run_crops
    from runtime.building.extension import Extension, missing_families, run_extension
    from runtime.building.forecasts import run_forecasts
    from runtime.building.training_run import TrainingPlan
    from runtime.bundles.bundle import open_pair
    from runtime.decoders.given import give_all

    give_all(decode, scorer)
    if forecast + roi + bool(family or trained) > 1:
        raise UsageError("got two of --forecast, --roi, and --family or --trained; expected one after the other")
    opened, work = open_pair(base, workload, data)
    missing = missing_families(opened, work)
    for name in family or []:
        if name not in missing:
            raise unknown_name("family", name, missing or ("none: the bundle has all families",))
    check_writable(json, "--json")
    directory = out or Path("runs") / f"models-{work.name}"
    check_writable(directory / MANIFEST_FILE, "--out", make_folder=True)
    families = tuple(name for name in missing if not family or name in family)
    samples = max(opened.manifest.sample_counts.values())
    plan = TrainingPlan(workload or opened.reference, directory, families, seed, epochs, jobs, data, samples)
    with task_bar() as progress:
        if roi:
            run_crops(opened, work, directory, progress)
        elif forecast:
            run_forecasts(opened, plan, progress)
        else:
            run_extension(Extension(opened, plan, None if trained is None else open_bundle(trained)), progress)
    bundle = open_bundle(directory)
    print(f"bundle {directory}", file=sys.stderr)
    emit(summary_of(bundle), [accuracy_table(bundle, split) for split in bundle.manifest.recorded], json)
