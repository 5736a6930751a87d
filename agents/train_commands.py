"""``mecpilot train`` and ``mecpilot export``: what the user may say, and what is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from controller.errors import UsageError
from runtime.atomic import check_writable
from runtime.device_options import PROFILE_HELP


def train(
    out: Annotated[Path, typer.Option(help="Run folder: checkpoints, TensorBoard logs, configuration.")],
    workload: Annotated[str, typer.Option(help="What the camera sees.")] = "garments",
    steps: Annotated[int, typer.Option(min=1, help="Frames to decide, over all environments.")] = 300_000,
    seed: Annotated[int, typer.Option(help="Of weights, scenarios and exploration.")] = 0,
    traces: Annotated[list[Path] | None, typer.Option(help="Trace files or folders; default: built-in.")] = None,
    scenario: Annotated[Path | None, typer.Option(help="JSON file that overrides fields of the range.")] = None,
    profile: Annotated[Path | None, typer.Option(help=PROFILE_HELP)] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of torch, for the updates.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Go on with real processes, in real time; implies --resume.")
    ] = False,
) -> None:
    """Train a policy on the twin, or continue one on real processes."""
    from agents.run_folder import RunFolder, TrainingConfig
    from agents.training import Options
    from agents.training import train as run
    from agents.world import scenario_range

    folder = RunFolder(out)
    if resume or live:
        if traces or scenario:
            raise UsageError("--traces and --scenario belong to the run's first part; drop them to go on with it")
        config = replace(folder.config(), steps=steps)
    else:
        sources = tuple(str(path) for path in traces or ())
        range_ = scenario_range(workload, scenario)
        config = TrainingConfig(workload, steps, seed, sources, threads=threads, scenario=range_)
    console = Console(stderr=True)
    with _bar(console) as bar:
        task = bar.add_task("training live" if live else "training", total=steps)
        began: list[int] = []

        def advance(done: int) -> None:
            began.append(done) if not began else None
            bar.update(task, completed=min(done - (began[0] if resume or live else 0), steps))

        run(config, folder, Options(profile, resume or live, live, advance))
    figures = folder.held_out()
    Console().print(
        f"held-out traces, {figures['episodes']} episodes: utility {figures['utility']:.4f} "
        f"({figures['gap_to_hindsight']:.4f} below hindsight), deadline met {100 * figures['slo_attainment']:.2f} %\n"
        f"run folder {out}; look: tensorboard --logdir {folder.tensorboard}; "
        f"freeze: mecpilot export {out} --out policy.safetensors",
        highlight=False,
        soft_wrap=True,
    )


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of `mecpilot train`.")],
    out: Annotated[Path, typer.Option(help="Policy file to write.")] = Path("policy.safetensors"),
) -> None:
    """Freeze a trained policy into one file that the daemon runs with numpy alone."""
    from agents.export import export as freeze
    from agents.run_folder import RunFolder

    check_writable(out, "--out", make_folder=True)
    manifest = freeze(RunFolder(run), out)
    Console().print(
        f"{out}: policy for {manifest.workload}, feature schema {manifest.schema_digest[:12]}, "
        f"weights {manifest.weights_sha256[:12]}, {out.stat().st_size} bytes",
        highlight=False,
        soft_wrap=True,
    )


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
