"""``mecpilot train`` and ``mecpilot export``: their options, and what they show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from agents.cli.options import Conditions, TechniqueOptions, Workers, takes
from controller.errors import UsageError
from runtime.cli.console import task_bar
from runtime.files.atomic import check_writable

if TYPE_CHECKING:
    from agents.runs.run_folder import RunFolder, TrainingConfig
    from controller.controllers.learned import FrozenPolicy

#: Unless the user gives a number.
STEPS = 300_000
MOST_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Workers, TechniqueOptions, Conditions):
    """``mecpilot train``."""

    out: Annotated[Path, typer.Option(help="Run folder: checkpoints, TensorBoard logs, configuration.")]
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Frames to decide, over all environments (default: {STEPS:,}); rounded up to whole rollouts of PPO. "
            "With --resume: how many more (default: what an interrupted run lacks).",
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed of weights, scenarios and exploration (default: 0).")
    ] = None
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Several seeds, such as 0-4 or 0,2,7: a training each, side by side, in folders seed-0, ... of --out. "
            "The same command goes on where it was interrupted; with --overwrite every seed is trained again."
        ),
    ] = None
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of torch for the updates.")] = 1
    start: Annotated[
        Path | None,
        typer.Option("--from", help='Policy file to continue, or "shipped"; the best weights found are kept.'),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that --out holds, or those of --seeds.")
    ] = False
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")] = False
    live: Annotated[
        bool, typer.Option("--live", help="Continue with real processes, in real time; implies --resume.")
    ] = False

    @property
    def continues(self) -> bool:
        """Whether a run that exists is continued; UsageError for options that only a new run takes."""
        if not (self.resume or self.live):
            return False
        from envs.techniques import Techniques

        new = self.traces or self.scenario or self.start or self.overwrite or self.bundle
        if new or self.no_raw_upload or self.hardware_encoder or self.techniques() != Techniques():
            raise UsageError(
                "--traces, --scenario, --bundle, --from, --gate, --forecast, --filter, --overwrite, "
                "--hardware-encoder and --no-raw-upload belong to a new run; drop them to continue this one"
            )
        return True


@takes(TrainOptions)
def train(options: TrainOptions) -> int:
    """Train a policy in the twin, or continue one with real processes.

    Ctrl-C keeps what was learned: continue with --resume, or export it.
    """
    from agents.runs.run_folder import RunFolder  # loads quickly: a folder that cannot be used is refused at once

    if options.seeds is not None:
        return _train_seeds(options, _seeds(options))
    options.refuse_workers("without --seeds; expected several trainings: one alone runs in one process")
    folder, continues = RunFolder(options.out), options.continues
    folder.check(resume=continues, overwrite=options.overwrite)
    if continues:
        return _run(_resumed(folder, options), folder, options, None, folder.reached().steps)
    config, policy = _fresh(options)
    return _run(config, folder, options, policy, 0)


def _run(
    config: TrainingConfig, folder: RunFolder, options: TrainOptions, policy: FrozenPolicy | None, before: int
) -> int:
    """Train and show it. ``before``: the steps that were made already."""
    from agents.runs.interruption import Interrupted, interruptible
    from agents.training.training import Options
    from agents.training.training import train as run

    console, facts = Console(stderr=True), dict[str, Any]()
    bar = task_bar(console)
    task = bar.add_task("training live" if options.live else "training", total=before + config.steps)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    with interruptible() as interruption:

        def advance(done: int) -> None:
            bar.update(task, completed=min(done, before + config.steps))
            interruption.check()

        def opened(found: dict[str, Any]) -> None:
            facts.update(found)
            say(_rests_on(config.workload, found))
            bar.start()

        how = Options(options.profile, options.continues, options.live, options.overwrite, policy, advance, opened, say)
        try:
            run(replace(config, threads=options.threads), folder, how)
        except Interrupted as stop:
            bar.stop()
            say(_kept(folder, options.out))
            return stop.exit_code
        finally:
            bar.stop()
    Console().print(_result(folder, options.out, facts), highlight=False, soft_wrap=True)
    return 0


def _seeds(options: TrainOptions) -> list[int]:
    """The seeds of --seeds; UsageError for a list that is none, and for options that belong to one training."""
    if options.seed is not None or options.resume or options.live:
        raise UsageError(
            "got --seeds with --seed, --resume or --live; expected --seeds alone: the same command goes on"
        )
    found = list[int]()
    for part in str(options.seeds).split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last or first).isdecimal() and bool(dash) == bool(last)):
            raise UsageError(f"got --seeds {options.seeds}; expected numbers and ranges, such as 0-4 or 0,2,7")
        begin, end = int(first), int(last or first)
        if not begin <= end < begin + MOST_SEEDS:
            raise UsageError(f"got --seeds {options.seeds}; expected ranges of 1 to {MOST_SEEDS} seeds")
        found += range(begin, end + 1)
    return list(dict.fromkeys(found))


def _train_seeds(options: TrainOptions, seeds: list[int]) -> int:
    """Train several seeds and show their held-out figures."""
    from agents.runs.seed_folders import check_seeds

    check_seeds(options.out, seeds, options.overwrite)

    from agents.runs.run_lock import SEVERAL, locked
    from agents.training.seeds import train_seeds
    from agents.training.training import Options

    config, policy = _fresh(options)
    replace(config, seed=max(seeds))  # checks it
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    how = Options(options.profile, overwrite=options.overwrite, start=policy, say=say)
    with options.workers(worth_it=len(seeds) > 1) as runner, locked(options.out, SEVERAL), task_bar(console) as bar:
        task = bar.add_task(f"training {len(seeds)} seeds", total=len(seeds) * config.steps)
        try:
            folders = train_seeds(
                config,
                seeds,
                options.out,
                how,
                runner,
                lambda done: bar.advance(task, done),
                again=options.overwrite,
            )
        except (KeyboardInterrupt, SystemExit):
            bar.stop()
            rest = "the seeds that are not named above" if options.overwrite else "the same command"
            say(f"interrupted; {options.out} keeps the trainings that are finished: go on with {rest}")
            raise
    for seed, folder in zip(seeds, folders, strict=True):
        Console().print(
            f"seed {seed}: {_figures(folder.held_out(), folder.description())}", highlight=False, soft_wrap=True
        )
    Console().print(
        f"run folders {options.out}/seed-...; freeze one: mecpilot export {folders[0].root}", soft_wrap=True
    )
    return 0


def _fresh(options: TrainOptions) -> tuple[TrainingConfig, FrozenPolicy | None]:
    """A new training, and the policy that it starts from, if one was named."""
    from agents.runs.run_folder import TrainingConfig
    from runtime.files.policy_file import load_policy

    bundle = options.open()
    config = TrainingConfig(
        bundle.workload,
        options.steps or STEPS,
        options.seed or 0,
        tuple(map(str, options.traces or ())),
        bundle=str(bundle.directory) if options.bundle is not None or bundle.is_adopted else "",
        no_raw_upload=options.no_raw_upload,
        threads=options.threads,
        scenario=options.range_of(bundle),
        techniques=options.techniques(),
    )
    if options.start is None:
        return config, None
    path = _policy_path(options.start, bundle.workload)
    policy, manifest = load_policy(path, bundle.workload)
    continues = f"{path.name} {manifest.weights_sha256[:12]}"
    return replace(config, continues=continues), policy


def _policy_path(start: Path, workload: str) -> Path:
    from runtime.files.policy_file import shipped_policy

    if start != Path("shipped"):
        return start
    path = shipped_policy(workload)
    if path is None:
        raise UsageError(f"--from shipped: no policy for {workload} comes with mecpilot; expected a policy file")
    return path


def _resumed(folder: RunFolder, options: TrainOptions) -> TrainingConfig:
    """The training that the folder holds, with the number of steps that are to come."""
    from runtime.workloads.registry import workload_name

    config, reached = folder.config(), folder.reached()
    workload = options.workload and workload_name(options.workload)
    for name, got, stored in (("workload", workload, config.workload), ("seed", options.seed, config.seed)):
        if got is not None and got != stored:
            raise UsageError(
                f"--{name} {got}: {folder.root} holds a run with {name} {stored}; drop --{name} to resume it"
            )
    steps = options.steps
    if steps is None and reached.finished:
        raise UsageError(f"{folder.root} holds a finished run ({reached.steps} steps); give --steps for more")
    return replace(config, steps=reached.goal - reached.steps if steps is None else steps)


def _rests_on(workload: str, facts: dict[str, Any]) -> str:
    """The profile and the traces of a training, in one line."""
    profile, learnt, judged = facts["profile"], len(facts["trained_on"]), len(facts["judged_on"])
    named = profile["path"] if profile["origin"] == "given" else profile["origin"]
    apart = f"{judged} held out" if facts["held_out"] else "none held out: too few"
    return f"{workload}: profile {named} ({profile['digest']}), {learnt} traces to learn from, {apart}"


def _kept(folder: RunFolder, out: Path) -> str:
    """Text about what an interrupted training keeps."""
    reached = folder.reached()
    return (
        f"interrupted; {out} keeps the training as it was after {reached.steps} of {reached.goal} steps: go on with "
        f"`mecpilot train --resume --out {out}`, or freeze it with `mecpilot export {out}`"
    )


def _result(folder: RunFolder, out: Path, facts: dict[str, Any]) -> str:
    return (
        f"{_figures(folder.held_out(), facts)}\n"
        f"run folder {out}; look: tensorboard --logdir {folder.tensorboard}; "
        f"freeze: mecpilot export {out} --out policy.safetensors"
    )


def _figures(figures: dict[str, Any], facts: dict[str, Any]) -> str:
    gap = figures["gap_to_oracle"]
    judged = "held-out traces" if facts["held_out"] else "the traces that it was trained on (too few to hold any out)"
    return (
        f"{judged}, {figures['episodes']} episodes: utility {figures['utility']:.4f} "
        f"({abs(gap):.4f} {'below' if gap >= 0 else 'above'} greedy-oracle), "
        f"deadline met {100 * figures['slo_attainment']:.2f} %"
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
