"""``mecpilot models``: list, show and train the models of bundles, and add models to a bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from controller.errors import UsageError, unknown_name
from controller.records import Decision
from runtime.bundles.bundle import Bundle, open_bundle, shipped_bundles
from runtime.bundles.manifest import LOSSLESS, MANIFEST_FILE, ExitInfo, ModelInfo, PayloadInfo
from runtime.cli.console import task_bar, write_json
from runtime.cli.shared_options import DataDir, JsonOut, Wide, WorkloadName
from runtime.config.tree import DEFAULT_WORKLOAD
from runtime.files.atomic import check_writable
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
    tables += [
        _model_table(opened),
        _cut_table(opened),
        _cost_table(opened),
        *(_payload_tables(opened, wide) if payloads else ()),
    ]
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
            found = [scores.get((model.name, exit_branch, px)) for px in resolutions]
            cells = ["-" if score is None else f"{score * 100:.2f}" for score in found]
            table.add_row(model.name, str(exit_branch), *cells, end_section=_is_last(model, exit_branch))
    return table


def _model_table(bundle: Bundle) -> Table:
    """What each model is, and what runs it."""
    headings = ("model", "family", "precision", "engine", "parameters")
    table = new_table("models", headings, text=headings[:4])
    for model in bundle.manifest.models:
        table.add_row(model.name, model.family, model.precision, model.engine, f"{model.parameters / 1e6:.2f} M")
    return table


def _cut_table(bundle: Bundle) -> Table:
    """Where each model may be cut, and what may cross there: a line per model; --payloads has the bytes."""
    table = new_table("cuts and codecs (stages on the device: codecs)", ("model", "cuts"), text=("model", "cuts"))
    for model in bundle.model_names:
        codecs: dict[int, list[str]] = {}
        for payload in bundle.manifest.payloads:
            if payload.model == model and payload.codec not in codecs.setdefault(payload.partition_point, []):
                codecs[payload.partition_point].append(payload.codec)
        table.add_row(model, _cuts_text(codecs))
    return table


def _cuts_text(codecs: Mapping[int, Sequence[str]]) -> str:
    """Cuts with the same codecs stand together: "0: jpeg75, raw; 1, 2: u8"."""
    cuts: dict[tuple[str, ...], list[str]] = {}
    for cut, names in sorted(codecs.items()):
        cuts.setdefault(tuple(names), []).append(str(cut))
    return "; ".join(f"{', '.join(at)}: {', '.join(names)}" for names, at in cuts.items()) or "none"


def _cost_table(bundle: Bundle) -> Table:
    """MMAC up to and with each exit."""
    table = _table_by_px("million multiply-accumulates up to an exit", ("model", "exit", "stages"), bundle)
    for model in bundle.manifest.models:
        for exit_branch, exit_info in enumerate(model.exits):
            macs = [_macs(model, exit_info, px) for px in bundle.manifest.resolutions_px]
            cells = (str(exit_branch), str(exit_info.after), *("-" if m is None else f"{m / 1e6:.2f}" for m in macs))
            table.add_row(model.name, *cells, end_section=_is_last(model, exit_branch))
    return table


def _macs(model: ModelInfo, exit_info: ExitInfo, px: int) -> int | None:
    """Multiply-accumulates up to and with an exit; None at a resolution that the model does not have."""
    if px not in exit_info.macs:
        return None
    return sum(stage.macs[px] for stage in model.stages[: exit_info.after]) + exit_info.macs[px]


def _payload_tables(bundle: Bundle, wide: bool) -> list[Table]:
    """Bytes per cut and codec, and what the last exit answers after it: in two tables, or side by side.

    With a table of bytes by the age of the reference, where payloads refer to earlier ones.
    """
    by_age = [_age_table(bundle)] if bundle.manifest.reference_ages else []
    sizes = "payload bytes per cut, mean of the validation samples"
    scores = "score of the last exit after that payload, in percent"
    if wide:
        spread = f"{sizes} ± standard deviation; and {scores}"
        both = _payload_table(bundle, spread, lambda p: f"{p.mean_bytes:.0f} ± {p.std_bytes:.0f} ({_score(bundle, p)})")
        return [both, *by_age]
    return [
        _payload_table(bundle, sizes, lambda payload: f"{payload.mean_bytes:.0f}"),
        _payload_table(bundle, scores, lambda payload: _score(bundle, payload)),
        *by_age,
    ]


def _payload_table(bundle: Bundle, title: str, cell_of: Callable[[PayloadInfo], str]) -> Table:
    table = _table_by_px(title, ("model", "cut", "shape", "codec"), bundle)
    rows: dict[tuple[str, int, str], dict[int, str]] = {}
    for payload in bundle.manifest.payloads:
        found = rows.setdefault((payload.model, payload.partition_point, payload.codec), {})
        found[payload.resolution_px] = cell_of(payload)
    for (model, cut, codec), cells in rows.items():
        shape = bundle.payload_shape(model, max(cells), cut)
        by_px = (cells.get(px, "-") for px in bundle.manifest.resolutions_px)
        table.add_row(model, str(cut), "x".join(map(str, shape)), codec, *by_px)
    return table


def _age_table(bundle: Bundle) -> Table:
    """Bytes of payloads that may refer to an earlier one, by the age of that reference."""
    ages = [f"{age} frame{'s' if age > 1 else ''}" for age in bundle.manifest.reference_ages]
    headings = ("model", "px", "cut", "codec", "alone", *ages)
    title = "payload bytes by the age of the reference, mean of the validation samples"
    table = new_table(title, headings, text=("model", "codec"))
    for payload in bundle.manifest.payloads:
        if payload.mean_bytes_by_age:
            where = (str(payload.resolution_px), str(payload.partition_point), payload.codec)
            table.add_row(payload.model, *where, *(f"{mean:.0f}" for mean in payload.mean_bytes_by_age))
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
    with task_bar() as progress:
        run_plan(plan, progress)
    bundle = open_bundle(directory)
    print(f"bundle {directory}, TensorBoard logs {plan.logs}", file=sys.stderr)
    _emit(_summary(bundle), [_accuracy_table(bundle, split) for split in bundle.manifest.recorded], json)


@app.command()
def add(
    base: Annotated[str, typer.Argument(help="Bundle to add to: a workload's shipped one, or a directory.")],
    workload: Annotated[
        str | None, typer.Option(help="A name or package.module:Class (default: the bundle's workload).")
    ] = None,
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
            "--forecast", help="Add the scores of forecasts, and nothing else: all answers are computed again."
        ),
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Models that are worked on at the same time.")] = 2,
    data: DataDir = None,
    json: JsonOut = None,
) -> None:
    """Write a new bundle: the models of an existing one as they are, and the families and codecs that it lacks."""
    from runtime.building.extension import Extension, missing_families, run_extension
    from runtime.building.forecasts import run_forecasts
    from runtime.building.training_run import TrainingPlan
    from runtime.bundles.bundle import open_pair

    if forecast and (family or trained):
        raise UsageError("got --forecast with --family or --trained; expected one after the other")
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
    plan = TrainingPlan(workload or opened.workload, directory, families, seed, epochs, jobs, data, samples)
    with task_bar() as progress:
        if forecast:
            run_forecasts(opened, plan, progress)
        else:
            run_extension(Extension(opened, plan, None if trained is None else open_bundle(trained)), progress)
    bundle = open_bundle(directory)
    print(f"bundle {directory}", file=sys.stderr)
    _emit(_summary(bundle), [_accuracy_table(bundle, split) for split in bundle.manifest.recorded], json)


def _emit(document: Any, tables: list[Table], json_target: str | None, wide: bool = False) -> None:
    """Tables on stdout; or JSON there with `-`; or tables on stdout and JSON in a file."""
    if write_json(document, json_target):
        return
    console = table_console(wide)
    for table in tables:
        console.print(table)
        console.print()
