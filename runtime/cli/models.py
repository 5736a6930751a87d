"""``mecpilot models``: list, show and train the models of bundles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from controller.errors import UsageError, unknown_name
from runtime.bundles.bundle import Bundle, open_bundle, shipped_bundles
from runtime.bundles.manifest import LOSSLESS, MANIFEST_FILE, ModelInfo
from runtime.cli.shared_options import DataDir, JsonOut, WorkloadName
from runtime.config.tree import DEFAULT_WORKLOAD
from runtime.files.atomic import check_writable, write_whole

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Bundles: models, exits, accuracy.")

BundleArgument = Annotated[str, typer.Argument(help="A workload's shipped bundle, or a bundle's directory.")]


@app.command("list")
def list_bundles(json: JsonOut = None) -> None:
    """Shipped bundles and their models."""
    from rich.table import Table

    bundles = [open_bundle(name) for name in shipped_bundles()]
    table = Table(title="bundles")
    for column in ("bundle", "models", "resolutions", "decisions", "weights", "digest"):
        table.add_column(column)
    for bundle in bundles:
        summary = _summary(bundle)
        table.add_row(
            bundle.workload,
            ", ".join(bundle.model_names),
            ", ".join(f"{px} px" for px in bundle.manifest.resolutions_px),
            str(summary["decisions"]),
            f"{summary['weights_bytes'] / 1e6:.2f} MB",
            bundle.digest[:12],
        )
    _emit([_summary(bundle) for bundle in bundles], [table], json)


def _summary(bundle: Bundle) -> dict[str, Any]:
    return {
        "workload": bundle.workload,
        "directory": str(bundle.directory),
        "digest": bundle.digest,
        "models": list(bundle.model_names),
        "resolutions_px": list(bundle.manifest.resolutions_px),
        "decisions": len(bundle.space),
        "weights_bytes": sum(model.file.size_bytes for model in bundle.manifest.models),
    }


@app.command()
def show(
    bundle: BundleArgument = "garments",
    json: JsonOut = None,
    draw: Annotated[
        int | None, typer.Option(min=0, help="Draw what every exit answers for this test image or video frame.")
    ] = None,
    resolution_px: Annotated[int | None, typer.Option(help="To draw at; default: the largest.")] = None,
    out: Annotated[Path, typer.Option(help="Picture to draw, a .png.")] = Path("exits.png"),
) -> None:
    """Stages, exits, accuracy per resolution and exit, and payloads of a bundle; or one frame, drawn."""
    opened = open_bundle(bundle)
    if draw is not None:
        _draw_exits(opened, draw, resolution_px, out)
        return
    tables = [_accuracy_table(opened, split) for split in opened.manifest.recorded]
    tables += [_cost_table(opened), _payload_table(opened)]
    document = msgspec.to_builtins(opened.manifest, str_keys=True) | {"digest": opened.digest}
    _emit(document, tables, json)


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


def _accuracy_table(bundle: Bundle, split: str) -> Table:
    """Mean score of exact variants, a row per model and exit."""
    from rich.table import Table

    resolutions = bundle.manifest.resolutions_px
    count = bundle.manifest.sample_counts[split]
    table = Table(title=f"mean score on {count} {split} samples, in percent")
    for column in ("model", "exit", *(f"{px} px" for px in resolutions)):
        table.add_column(column, justify="left" if column == "model" else "right")
    scores = {
        (v.model, v.exit_branch, v.resolution_px): v.accuracy[split]
        for v in bundle.manifest.variants
        if v.codec == LOSSLESS
    }
    for model in bundle.manifest.models:
        for exit_branch in range(len(model.exits)):
            cells = [f"{scores[model.name, exit_branch, px] * 100:.2f}" for px in resolutions]
            table.add_row(model.name, str(exit_branch), *cells, end_section=_is_last(model, exit_branch))
    return table


def _cost_table(bundle: Bundle) -> Table:
    """MMAC up to and with each exit."""
    from rich.table import Table

    resolutions = bundle.manifest.resolutions_px
    table = Table(title="million multiply-accumulates up to an exit")
    for column in ("model", "parameters", "weights", "exit", "stages", *(f"{px} px" for px in resolutions)):
        table.add_column(column, justify="left" if column == "model" else "right")
    for model in bundle.manifest.models:
        for exit_branch, exit_info in enumerate(model.exits):
            macs = [
                sum(stage.macs[px] for stage in model.stages[: exit_info.after]) + exit_info.macs[px]
                for px in resolutions
            ]
            table.add_row(
                model.name,
                f"{model.parameters:,}",
                f"{model.file.size_bytes / 1e6:.2f} MB",
                str(exit_branch),
                str(exit_info.after),
                *(f"{m / 1e6:.2f}" for m in macs),
                end_section=_is_last(model, exit_branch),
            )
    return table


def _payload_table(bundle: Bundle) -> Table:
    """Mean bytes per cut and codec, and what the last exit answers after it."""
    from rich.table import Table

    table = Table(title="validation: payload bytes per cut (mean ± std), and score of the last exit after it")
    for column in ("model", "cut", "shape", "codec", *(f"{px} px" for px in bundle.manifest.resolutions_px)):
        table.add_column(column, justify="left" if column in ("model", "codec") else "right")
    rows: dict[tuple[str, int, str], list[str]] = {}
    for payload in bundle.manifest.payloads:
        key = (payload.model, payload.partition_point, payload.codec)
        score = _score_after(bundle, *key, payload.resolution_px)
        cell = f"{payload.mean_bytes:.0f} ± {payload.std_bytes:.0f} ({score:.2%})"
        rows.setdefault(key, []).append(cell)
    for (model, cut, codec), cells in rows.items():
        shape = bundle.payload_shape(model, bundle.manifest.resolutions_px[0], cut)
        table.add_row(model, str(cut), "x".join(map(str, shape)), codec, *cells)
    return table


def _score_after(bundle: Bundle, model: str, cut: int, codec: str, px: int) -> float:
    from controller.records import Decision

    last = len(bundle.info(model).exits) - 1
    row = bundle.variant(Decision(model, px, last, cut, codec))
    return bundle.manifest.variants[row].accuracy["validation"]


def _is_last(model: ModelInfo, exit_branch: int) -> bool:
    return exit_branch == len(model.exits) - 1


@app.command()
def train(
    workload: WorkloadName = DEFAULT_WORKLOAD,
    out: Annotated[Path | None, typer.Option(help="Directory of the new bundle; runs/models-WORKLOAD.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same weights on the same kind of machine.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of each family's own number.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Train only this family; may be repeated.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Families trained at the same time.")] = 2,
    data: DataDir = None,
    max_samples: Annotated[
        int | None, typer.Option(min=2, help="Measure on so many samples per split only (a quick look).")
    ] = None,
    json: JsonOut = None,
) -> None:
    """Train all exits of every family jointly, measure them, and write a bundle."""
    from runtime.building.training_run import TrainingPlan, run_plan
    from runtime.workloads.registry import get_workload

    work = get_workload(workload, data)
    known = work.families
    for name in family or []:
        if name not in known:
            raise unknown_name("family", name, known)
    check_writable(json, "--json")
    directory = out or Path("runs") / f"models-{work.name}"
    check_writable(directory / MANIFEST_FILE, "--out", make_folder=True)
    families = tuple(name for name in known if not family or name in family)
    plan = TrainingPlan(workload, directory, families, seed, epochs, jobs, data, max_samples)
    with _progress() as progress:
        run_plan(plan, progress)
    bundle = open_bundle(directory)
    print(f"bundle {directory}, TensorBoard logs {plan.logs}", file=sys.stderr)
    _emit(_summary(bundle), [_accuracy_table(bundle, split) for split in bundle.manifest.recorded], json)


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _emit(document: Any, tables: list[Table], json_target: str | None) -> None:
    """Tables on stdout; or JSON there with `-`; or tables on stdout and JSON in a file."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=1).decode()
    if json_target == "-":
        print(text)
        return
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)
    if json_target is not None:
        write_whole(Path(json_target), text.encode() + b"\n")
