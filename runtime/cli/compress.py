"""``mecpilot models compress``: compressed variants of the models of a bundle, in a new bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from runtime.bundles.bundle import open_bundle, open_pair
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.cli.bundle_tables import accuracy_table, cost_table, emit, summary_of
from runtime.cli.console import task_bar
from runtime.cli.shared_options import DataDir, DecoderCode, JsonOut, ScorerCode
from runtime.files.atomic import check_writable


def compress(
    base: Annotated[str, typer.Argument(help="Bundle to extend: a workload's shipped one, or a directory.")],
    model: Annotated[list[str], typer.Option(help="Compress this model; may be repeated.")],
    scheme: Annotated[
        list[str],
        typer.Option(
            help="prune50: channels are taken out until 50 % of the multiply-accumulates are left. bits4, bits1: "
            "weights of so many bits. int8: 8 bits in OpenVINO. May be repeated: each model gets a variant per scheme."
        ),
    ],
    workload: Annotated[str | None, typer.Option(help="As of other commands (default: the bundle's workload).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle (default: runs/models-WORKLOAD).")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the fine-tuning.")] = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of fine-tuning; overrides each scheme's default.")
    ] = None,
    made: Annotated[
        Path | None, typer.Option(help="Folder with the variants' .safetensors files, which are then not made anew.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Variants that are worked on at the same time.")] = 2,
    data: DataDir = None,
    decode: DecoderCode = None,
    scorer: ScorerCode = None,
    json: JsonOut = None,
) -> None:
    """Write a new bundle: the models of an existing one as they are, and compressed variants of some."""
    from runtime.compression.fine_tuning import Variant
    from runtime.compression.run import CompressionPlan, run_compression
    from runtime.compression.schemes import scheme_named
    from runtime.decoders.given import give_all

    give_all(decode, scorer)
    schemes = [scheme_named(name) for name in scheme]
    opened, work = open_pair(base, workload, data)
    variants = tuple(Variant(opened.info(name), chosen) for name in model for chosen in schemes)
    check_writable(json, "--json")
    directory = out or Path("runs") / f"models-{work.name}"
    plan = CompressionPlan(opened, workload or opened.reference, directory, variants, seed, epochs, jobs, data, made)
    plan.check(work)
    check_writable(directory / MANIFEST_FILE, "--out", make_folder=True)
    with task_bar() as progress:
        run_compression(plan, progress)
    bundle = open_bundle(directory)
    print(f"bundle {directory}", file=sys.stderr)
    tables = [*(accuracy_table(bundle, split) for split in bundle.manifest.recorded), cost_table(bundle)]
    emit(summary_of(bundle), tables, json)
