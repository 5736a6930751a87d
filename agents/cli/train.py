"""``mecpilot train`` and ``mecpilot export``: what the user may say, and what is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from controller.errors import UsageError
from runtime.cli.shared_options import ProfileFile
from runtime.files.atomic import check_writable
from runtime.files.trace_formats import TRACE_HELP
from runtime.workloads.registry import workload_name

if TYPE_CHECKING:
    from agents.runs.run_folder import RunFolder, TrainingConfig
    from controller.controllers.learned import FrozenPolicy

#: Unless the user says how many.
STEPS = 300_000


def train(
    out: Annotated[Path, typer.Option(help="Run folder: checkpoints, TensorBoard logs, configuration.")],
    workload: Annotated[str | None, typer.Option(help="What the camera sees; default: garments.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Frames to decide, over all environments; default: 300,000. With --resume: how many more; default: "
            "those that an interrupted run lacks.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, scenarios and exploration; default: 0.")] = None,
    traces: Annotated[
        list[Path] | None, typer.Option(help=f"Trace files or folders; default: built-in. {TRACE_HELP}")
    ] = None,
    scenario: Annotated[Path | None, typer.Option(help="JSON file that overrides fields of the range.")] = None,
    profile: ProfileFile = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Of torch, for the updates.")] = 1,
    start: Annotated[
        Path | None,
        typer.Option("--from", help='Policy file to continue, or "shipped"; the best weights found are kept.'),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Go on with real processes, in real time; implies --resume.")
    ] = False,
) -> int:
    """Train a policy on the twin, or continue one on real processes.

    Ctrl-C keeps what was learned: go on with --resume, or export it.
    """
    from agents.learn.training import Options
    from agents.learn.training import train as run
    from agents.runs.interruption import Interrupted, interruptible
    from agents.runs.run_folder import RunFolder

    workload = workload and workload_name(workload)
    folder = RunFolder(out)
    if resume or live:
        if traces or scenario or start or overwrite:
            raise UsageError(
                "--traces, --scenario, --from and --overwrite belong to a new run; drop them to go on with this one"
            )
        config, policy = _resumed(folder, workload, seed, steps), None
        before = folder.reached().steps
    else:
        config, policy = _fresh(workload, seed, steps, traces or [], scenario, threads, start)
        before = 0
    console, facts = Console(stderr=True), dict[str, Any]()
    bar = _bar(console)
    task = bar.add_task("training live" if live else "training", total=before + config.steps)
    with interruptible() as interruption:

        def advance(done: int) -> None:
            bar.update(task, completed=min(done, before + config.steps))
            interruption.check()

        def opened(found: dict[str, Any]) -> None:
            facts.update(found)
            console.print(_rests_on(config.workload, found), highlight=False, soft_wrap=True)
            bar.start()

        options = Options(profile, resume or live, live, overwrite, policy, advance, opened)
        try:
            run(replace(config, threads=threads), folder, options)
        except Interrupted as stop:
            bar.stop()
            console.print(_kept(folder, out), highlight=False, soft_wrap=True)
            return stop.exit_code
        finally:
            bar.stop()
    Console().print(_result(folder, out, facts), highlight=False, soft_wrap=True)
    return 0


def _fresh(
    workload: str | None,
    seed: int | None,
    steps: int | None,
    traces: list[Path],
    scenario: Path | None,
    threads: int,
    start: Path | None,
) -> tuple[TrainingConfig, FrozenPolicy | None]:
    """A new training, and the policy that it starts from, if one was named."""
    from agents.compare.setup import scenario_range
    from agents.learn.warm_start import WarmStartConfig
    from agents.runs.run_folder import TrainingConfig
    from runtime.files.policy_file import load_policy

    workload = workload or "garments"
    range_ = scenario_range(workload, scenario)
    config = TrainingConfig(
        workload, steps or STEPS, seed or 0, tuple(map(str, traces)), threads=threads, scenario=range_
    )
    if start is None:
        return config, None
    path = _policy_path(start, workload)
    policy, manifest = load_policy(path, workload)
    continues = f"{path.name} {manifest.weights_sha256[:12]}"
    return replace(config, continues=continues, warm_start=WarmStartConfig(rounds=0)), policy


def _policy_path(start: Path, workload: str) -> Path:
    from runtime.files.policy_file import shipped_policy

    if start != Path("shipped"):
        return start
    path = shipped_policy(workload)
    if path is None:
        raise UsageError(f"--from shipped: no policy for {workload} comes with mecpilot; expected a policy file")
    return path


def _resumed(folder: RunFolder, workload: str | None, seed: int | None, steps: int | None) -> TrainingConfig:
    """The training that the folder holds, with as many steps as are to come."""
    config, reached = folder.config(), folder.reached()
    for name, got, held in (("workload", workload, config.workload), ("seed", seed, config.seed)):
        if got is not None and got != held:
            raise UsageError(
                f"--{name} {got}: {folder.root} holds a run with {name} {held}; drop --{name} to resume it"
            )
    if steps is None and reached.finished:
        raise UsageError(
            f"{folder.root} holds a finished run ({reached.steps} steps); say with --steps how many more it shall make"
        )
    return replace(config, steps=reached.goal - reached.steps if steps is None else steps)


def _rests_on(workload: str, facts: dict[str, Any]) -> str:
    """What a training uses, in one line."""
    profile, learnt, judged = facts["profile"], len(facts["trained_on"]), len(facts["judged_on"])
    named = profile["path"] if profile["origin"] == "given" else profile["origin"]
    apart = f"{judged} held out" if facts["held_out"] else "none held out: too few"
    return f"{workload}: profile {named} ({profile['digest']}), {learnt} traces to learn from, {apart}"


def _kept(folder: RunFolder, out: Path) -> str:
    """What an interrupted training leaves."""
    reached = folder.reached()
    return (
        f"interrupted; {out} keeps the training as it was after {reached.steps} of {reached.goal} steps: go on with "
        f"`mecpilot train --resume --out {out}`, or freeze it with `mecpilot export {out}`"
    )


def _result(folder: RunFolder, out: Path, facts: dict[str, Any]) -> str:
    figures = folder.held_out()
    judged = "held-out traces" if facts["held_out"] else "the traces that it was trained on (too few to hold any out)"
    return (
        f"{judged}, {figures['episodes']} episodes: utility {figures['utility']:.4f} "
        f"({figures['gap_to_hindsight']:.4f} below hindsight), deadline met {100 * figures['slo_attainment']:.2f} %\n"
        f"run folder {out}; look: tensorboard --logdir {folder.tensorboard}; "
        f"freeze: mecpilot export {out} --out policy.safetensors"
    )


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of `mecpilot train`.")],
    out: Annotated[Path, typer.Option(help="Policy file to write.")] = Path("policy.safetensors"),
) -> None:
    """Freeze a trained policy into one file that the daemon runs with numpy alone."""
    from agents.runs.export import export as freeze
    from agents.runs.run_folder import RunFolder

    check_writable(out, "--out", make_folder=True)
    folder = RunFolder(run)
    manifest = freeze(folder, out)
    reached = folder.reached()
    Console().print(
        f"{out}: policy for {manifest.workload}, feature schema {manifest.schema_digest[:12]}, "
        f"weights {manifest.weights_sha256[:12]}, {out.stat().st_size} bytes"
        + ("" if reached.finished else f"; the training is at {reached.steps} of {reached.goal} steps"),
        highlight=False,
        soft_wrap=True,
    )


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *times, console=console, disable=not console.is_terminal)
