"""``mecpilot adopt``: a bundle from a foreign model and the user's footage."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.errors import UsageError
from runtime.cli.console import task_bar, write_json
from runtime.cli.shared_options import JsonOut
from runtime.files.atomic import check_writable
from runtime.observe.tables import table_console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from runtime.adoption.report import Report

HELP = {
    "footage": "Video file or folder of images, without labels; the bundle is measured on it.",
    "task": "What the model does: detect, classify, text (boxes of lines of text) or custom.",
    "decode": "How its outputs are read: yolov5, yolov8 (also v11), yolox, ssd, detr, db, classify, or "
    "file.py:function.",
    "decode_option": "An option of the decoder, name=value, such as unclip=1.5; may be repeated.",
    "codec": "One more payload codec to try, such as that of an installed package; may be repeated.",
    "labels": "Labels to score against: COCO JSON, a folder of YOLO text files, or folders of classes. Default: the "
    "answers of the whole model at its largest resolution.",
    "classes": "Names of the classes: a,b,c or a text file with one per line.",
    "resolutions": "Widths in pixels, such as 640,480,320 (default: what the model and the footage allow).",
    "colours": "Order of the model's channels: rgb, bgr or grey (default: as usual for the decoder).",
    "scale": "Pixels are multiplied by it first, such as 0.00392 (default: as usual for the decoder).",
    "mean": "Subtracted after --scale: one number, or one per channel.",
    "std": "Divided by after --mean: one number, or one per channel.",
    "fit": "How frames fill the input: stretch, letterbox (padded, centred) or corner (padded, top left).",
    "threshold": "Score from which a candidate is an answer, 0 to 1 (default: the decoder's).",
    "scorer": "file.py:function that scores an answer against the truth, 0 to 1; for --task custom.",
    "budget": "Time for training all relatives: 20m, 90s, 1h.",
    "no_relatives": "Train no exit heads, bottleneck and student.",
    "no_profile": "Do not profile this machine; `mecpilot profile` does it later.",
    "fps": "Frames per second to use; of a faster video only every n-th picture is a frame (default: 10 of a video; "
    "pictures of a folder are unrelated).",
    "frames": "Use only the first frames of the footage (default: as many as the whole model answers in some minutes).",
    "samples": "Frames per split to measure on (default: as many as some minutes allow).",
    "data": "A recipe's model, or a folder that holds it, if it shall not be downloaded.",
    "name": "Name of the workload (default: that of the folder --out).",
    "jobs": "Processes that measure at the same time (default: one per core, up to 4); 0: none, all is done in one.",
    "seed": "Random seed of the training.",
    "out": "Folder of the new bundle.",
}


def _option(name: str, *flags: str, **limits: Any) -> Any:
    return typer.Option(*flags, help=HELP[name], **limits)


def adopt(
    model: Annotated[
        str, typer.Argument(help="An ONNX file, file.py:function that returns an nn.Module, or a recipe: labels.")
    ],
    out: Annotated[Path, _option("out")],
    footage: Annotated[Path | None, _option("footage")] = None,
    task: Annotated[str | None, _option("task")] = None,
    decode: Annotated[str | None, _option("decode")] = None,
    decode_option: Annotated[list[str] | None, _option("decode_option")] = None,
    codec: Annotated[list[str] | None, _option("codec")] = None,
    labels: Annotated[Path | None, _option("labels")] = None,
    classes: Annotated[str | None, _option("classes")] = None,
    resolutions: Annotated[str | None, _option("resolutions")] = None,
    colours: Annotated[str | None, _option("colours")] = None,
    scale: Annotated[float | None, _option("scale")] = None,
    mean: Annotated[str | None, _option("mean")] = None,
    std: Annotated[str | None, _option("std")] = None,
    fit: Annotated[str | None, _option("fit")] = None,
    threshold: Annotated[float | None, _option("threshold", min=0.001, max=0.999)] = None,
    scorer: Annotated[str | None, _option("scorer")] = None,
    budget: Annotated[str, _option("budget")] = "20m",
    no_relatives: Annotated[bool, _option("no_relatives", "--no-relatives")] = False,
    no_profile: Annotated[bool, _option("no_profile", "--no-profile")] = False,
    fps: Annotated[float | None, _option("fps", min=0.1, max=1000.0)] = None,
    frames: Annotated[int | None, _option("frames", min=8)] = None,
    samples: Annotated[int | None, _option("samples", min=8)] = None,
    data: Annotated[Path | None, _option("data")] = None,
    name: Annotated[str | None, _option("name")] = None,
    jobs: Annotated[int | None, _option("jobs", min=0, max=256)] = None,
    seed: Annotated[int, _option("seed", min=0)] = 0,
    json: JsonOut = None,
) -> None:
    """Make a bundle of a model that was made elsewhere: cut it, train cheaper relatives, measure all on your footage.

    No labels are needed: the answers of the whole model are the truth.
    """
    from runtime.adoption.request import (
        Request,
        parse_classes,
        parse_numbers,
        parse_options,
        parse_time_s,
        parse_widths,
    )

    given = {
        "footage": footage,
        "task": task,
        "decode": decode,
        "decode_options": parse_options(decode_option),
        "codecs": tuple(codec or ()),
        "labels": labels,
        "classes": parse_classes(classes),
        "resolutions_px": parse_widths(resolutions),
        "colours": colours,
        "scale": scale,
        "mean": parse_numbers(mean, "--mean"),
        "std": parse_numbers(std, "--std"),
        "fit": fit,
        "threshold": threshold,
        "scorer": scorer,
        "budget_s": parse_time_s(budget, "--budget"),
        "relatives": not no_relatives,
        "profile": not no_profile,
        "fps": fps,
        "frames": frames,
        "samples": samples,
        "jobs": jobs,
        "seed": seed,
        "data": data,
    }
    check_writable(json, "--json")
    _check_out(out)
    from runtime.adoption.run import run_adoption

    with task_bar() as progress:
        request = Request.of(model, out, name or out.resolve().name, given, _counting(progress, "footage"))
        request.check()
        report = run_adoption(request, progress)
    _print_next(out, profiled=not no_profile)
    _show(report, json)


def _check_out(out: Path) -> None:
    """UsageError when the bundle cannot be written, or something else would be overwritten."""
    from runtime.workloads.registry import is_adopted

    check_writable(out / "manifest.json", "--out", make_folder=True)
    if out.is_dir() and any(out.iterdir()) and not is_adopted(out):
        raise UsageError(f"--out {out}: a folder with other files; expected a new one, or an adopted bundle to replace")


def _counting(progress: Progress, what: str) -> Callable[[int, int], None]:
    """A bar that appears with the first count."""
    bars: list[TaskID] = []

    def advance(done: int, total: int) -> None:
        if not bars:
            bars.append(progress.add_task(what, total=total))
        progress.update(bars[0], completed=done, total=total)

    return advance


def _show(report: Report, json: str | None) -> None:
    from runtime.adoption.report import sheets_of, words_of

    if write_json(report, json):
        return
    console = table_console()
    for sheet in sheets_of(report):
        console.print(sheet.table())
        console.print()
    for line in words_of(report):
        console.print(line, highlight=False, soft_wrap=True)


def _print_next(out: Path, *, profiled: bool) -> None:
    """The commands that follow, on stderr, because stdout may be JSON."""
    lines = (
        f"bundle {out}; next:",
        *(() if profiled else (f"  mecpilot profile --workload {out}",)),
        f"  mecpilot train --workload {out} --out runs/{out.name}",
        f"  mecpilot export runs/{out.name} --out {out.name}.safetensors",
        f"  mecpilot mec --workload {out}",
        f"  mecpilot device --workload {out} --policy {out.name}.safetensors --source rtsp://CAMERA",
    )
    print("\n".join(lines), file=sys.stderr)
