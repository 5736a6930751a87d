"""The tables and documents that ``mecpilot models`` prints about a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controller.records import Decision
from runtime.bundles.bundle import Bundle
from runtime.bundles.manifest import LOSSLESS, ExitInfo, ModelInfo, PayloadInfo
from runtime.cli.console import write_json
from runtime.observe.tables import new_table, table_console

if TYPE_CHECKING:
    from rich.table import Table


def emit(document: Any, tables: list[Table], json_target: str | None, wide: bool = False) -> None:
    """Tables on stdout; or JSON there with `-`; or tables on stdout and JSON in a file."""
    if write_json(document, json_target):
        return
    console = table_console(wide)
    for table in tables:
        console.print(table)
        console.print()


def summary_of(bundle: Bundle) -> dict[str, Any]:
    """One bundle in the list of bundles, and after one was written."""
    return {
        "workload": bundle.workload,
        "directory": str(bundle.directory),
        "digest": bundle.digest,
        "models": list(bundle.model_names),
        "resolutions_px": list(bundle.manifest.resolutions_px),
        "decisions": len(bundle.space),
        "weights_bytes": sum(model.file.size_bytes for model in bundle.manifest.models),
    }


def accuracy_table(bundle: Bundle, split: str) -> Table:
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


def model_table(bundle: Bundle) -> Table:
    """What each model is, and what runs it."""
    headings = ("model", "family", "precision", "engine", "parameters")
    table = new_table("models", headings, text=headings[:4])
    for model in bundle.manifest.models:
        table.add_row(model.name, model.family, model.precision, model.engine, f"{model.parameters / 1e6:.2f} M")
    return table


def cut_table(bundle: Bundle) -> Table:
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


def cost_table(bundle: Bundle) -> Table:
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


def payload_tables(bundle: Bundle, wide: bool) -> list[Table]:
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
