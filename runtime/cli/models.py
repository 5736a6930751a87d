"""``mecpilot models``: list, show and train the models of bundles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from controller.errors import UsageError, unknown_name
from controller.records import Decision
from runtime.bundles.bundle import Bundle, open_bundle, shipped_bundles
from runtime.bundles.manifest import LOSSLESS, MANIFEST_FILE, ModelInfo, PayloadInfo
from runtime.cli.shared_options import DataDir, JsonOut, Wide, WorkloadName
from runtime.config.tree import DEFAULT_WORKLOAD
from runtime.files.atomic import check_writable, write_whole
from runtime.observe.tables import new_table, table_console

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Bundles: models, exits, accuracy.")

BundleArgument = Annotated[str, typer.Argument(help="A workload's shipped bundle, or a bundle's directory.")]


@app.command("list")
def list_bundles(json: JsonOut = None) -> None:
    """Shipped bundles and their models."""
    bundles = [open_bundle(name) for name in shipped_bundles()]
    summaries = [_summary(bundle) for bundle in bundles]
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
    _emit(summaries, [table], json)


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
) -> None:
    """Stages, exits, and accuracy per resolution and exit of a bundle; or one frame, drawn."""
    opened = open_bundle(bundle)
    if draw is not None:
        _draw_exits(opened, draw, resolution_px, out)
        return
    tables = [_accuracy_table(opened, split) for split in opened.manifest.recorded]
    tables += [_model_table(opened), _cost_table(opened), *(_payload_tables(opened, wide) if payloads else ())]
    document = msgspec.to_builtins(opened.manifest, str_keys=True) | {"digest": opened.digest}
    for model, info in zip(document["models"], opened.manifest.models, strict=True):
        model |= {"precision": info.precision, "engine": info.engine}  # the manifest leaves defaults out
    _emit(document, tables, json, wide)


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
    resolutions = bundle.manifest.resolutions_px
    count = bundle.manifest.sample_counts[split]
    table = _table_by_px(f"mean score on {count} {split} samples, in percent", ("model", "exit"), bundle)
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


def _model_table(bundle: Bundle) -> Table:
    """What each model is, and what runs it."""
    headings = ("model", "family", "precision", "engine", "parameters")
    table = new_table("models", headings, text=headings[:4])
    for model in bundle.manifest.models:
        table.add_row(model.name, model.family, model.precision, model.engine, f"{model.parameters / 1e6:.2f} M")
    return table


def _cost_table(bundle: Bundle) -> Table:
    """MMAC up to and with each exit."""
    table = _table_by_px("million multiply-accumulates up to an exit", ("model", "exit", "stages"), bundle)
    for model in bundle.manifest.models:
        for exit_branch, exit_info in enumerate(model.exits):
            macs = [
                sum(stage.macs[px] for stage in model.stages[: exit_info.after]) + exit_info.macs[px]
                for px in bundle.manifest.resolutions_px
            ]
            cells = (str(exit_branch), str(exit_info.after), *(f"{m / 1e6:.2f}" for m in macs))
            table.add_row(model.name, *cells, end_section=_is_last(model, exit_branch))
    return table


def _payload_tables(bundle: Bundle, wide: bool) -> list[Table]:
    """Bytes per cut and codec, and what the last exit answers after it: in two tables, or side by side."""
    sizes = "payload bytes per cut, mean of the validation samples"
    scores = "score of the last exit after that payload, in percent"
    if wide:
        spread = f"{sizes} ± standard deviation; and {scores}"
        both = _payload_table(bundle, spread, lambda p: f"{p.mean_bytes:.0f} ± {p.std_bytes:.0f} ({_score(bundle, p)})")
        return [both]
    return [
        _payload_table(bundle, sizes, lambda payload: f"{payload.mean_bytes:.0f}"),
        _payload_table(bundle, scores, lambda payload: _score(bundle, payload)),
    ]


def _payload_table(bundle: Bundle, title: str, cell_of: Callable[[PayloadInfo], str]) -> Table:
    table = _table_by_px(title, ("model", "cut", "shape", "codec"), bundle)
    rows: dict[tuple[str, int, str], list[str]] = {}
    for payload in bundle.manifest.payloads:
        rows.setdefault((payload.model, payload.partition_point, payload.codec), []).append(cell_of(payload))
    for (model, cut, codec), cells in rows.items():
        shape = bundle.payload_shape(model, bundle.manifest.resolutions_px[0], cut)
        table.add_row(model, str(cut), "x".join(map(str, shape)), codec, *cells)
    return table


def _table_by_px(title: str, headings: Sequence[str], bundle: Bundle) -> Table:
    """An empty table with the given columns, and a column for each resolution."""
    columns = [*headings, *(f"{px} px" for px in bundle.manifest.resolutions_px)]
    return new_table(title, columns, text=("model", "codec"))


def _score(bundle: Bundle, payload: PayloadInfo) -> str:
    last = len(bundle.info(payload.model).exits) - 1
    sent = (payload.partition_point, payload.codec)
    row = bundle.variant(Decision(payload.model, payload.resolution_px, last, *sent))
    return f"{bundle.manifest.variants[row].accuracy['validation'] * 100:.2f}"


def _is_last(model: ModelInfo, exit_branch: int) -> bool:
    return exit_branch == len(model.exits) - 1


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


def _emit(document: Any, tables: list[Table], json_target: str | None, wide: bool = False) -> None:
    """Tables on stdout; or JSON there with `-`; or tables on stdout and JSON in a file."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=1).decode()
    if json_target == "-":
        print(text)
        return
    console = table_console(wide)
    for table in tables:
        console.print(table)
        console.print()
    if json_target is not None:
        write_whole(Path(json_target), text.encode() + b"\n")
