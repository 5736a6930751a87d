"""``mecpilot models empty``: learn from footage of a camera which frames are empty."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from controller.errors import UsageError
from runtime.bundles.bundle import open_pair
from runtime.cli.console import task_bar
from runtime.cli.shared_options import BundleDir, DataDir, WorkloadName
from runtime.config.sections.fields import DEFAULT_WORKLOAD
from runtime.files.atomic import check_writable

#: Share of the footage that the network is fitted to; the threshold is set on what comes after it.
FITTED_FRAC = 0.7


def empty(
    workload: WorkloadName = DEFAULT_WORKLOAD,
    bundle: BundleDir = None,
    source: Annotated[
        str | None,
        typer.Option(help="Video, folder, camera or URL, a few minutes of it. Default: the workload's own frames."),
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Part of the frame that counts: x,y,w,h in pixels. Default: all of it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model that labels the frames (default: the best on validation frames).")
    ] = None,
    recall: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Share of the frames with a target that shall be run.")
    ] = 0.98,
    out: Annotated[Path, typer.Option(help="File to write, for `mecpilot device --filter-empty`.")] = Path(
        "empty.safetensors"
    ),
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    data: DataDir = None,
) -> None:
    """Train a tiny classifier that knows empty frames, from footage without labels."""
    from runtime.building.emptiness.footage import frames_of, labelled, labeller, samples_of
    from runtime.building.emptiness.training import calibrated, fit
    from runtime.emptiness.file import EmptyManifest, save_empty, small_step
    from runtime.sources.window import Window, window_of

    opened, work = open_pair(bundle, workload, data)
    if work.nothing() is None:
        raise UsageError(f"got workload {work.name!r}, whose frames are never empty; expected boxes, such as campus")
    height, width = opened.frame_shape[:2]
    step = small_step(height)
    place = window_of(window, (height, width)) if window else Window(0, 0, width, height)
    if window and any(side % step for side in place):
        raise UsageError(f"--window {window}; expected multiples of {step} pixels here")
    decision = labeller(opened, model)
    check_writable(out, "--out", make_folder=True)
    with task_bar() as progress:
        task = progress.add_task("labelling frames", total=None)
        seen = lambda: progress.advance(task)  # noqa: E731 - one line
        if source:
            footage = labelled(frames_of(source, opened.frame_shape), opened, work, decision, seen)
            at = int(FITTED_FRAC * len(footage.boxes))
            first, rest = footage.part(0, at), footage.part(at, len(footage.boxes))
        else:
            first = labelled(samples_of(work, "train"), opened, work, decision, seen)
            rest = labelled(samples_of(work, "validation"), opened, work, decision, seen)
        progress.update(task, description="training the network")
        network = fit(first, step, seed)
        found = calibrated(network, rest, place, recall)
    manifest = EmptyManifest(
        workload=work.name,
        frame=(height, width),
        window=place,
        threshold=found.threshold,
        recall=recall,
        calibrated_on=found.counted,
        bundle_digest=opened.digest,
        model=decision.model,
        arrays_sha256="",
    )
    save_empty(out, manifest, network.weights, found.level)
    print(
        f"{out}: of the later frames {found.filtered:.1%} of the empty ones look empty, and {1 - found.recall:.1%} of "
        f"those with a target (threshold set on {found.counted} frames with a target in {found.windows} windows)",
        file=sys.stderr,
    )
    if found.counted < 1.0 / (1.0 - recall):
        print(f"these are too few for a recall of {recall:g}: the lowest score is the threshold", file=sys.stderr)
