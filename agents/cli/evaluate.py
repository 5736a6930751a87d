"""``mecpilot evaluate`` and ``mecpilot tune``: their options, and what they show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console

from agents.cli.options import Conditions, Frames, Workers, takes
from controller.errors import UsageError, unknown_name
from runtime.cli.console import task_bar, write_json
from runtime.cli.shared_options import JsonOut, Wide
from runtime.config.privacy import check_controller, may_run
from runtime.files.atomic import check_writable
from runtime.observe.tables import table_console

if TYPE_CHECKING:
    from agents.compare.evaluation import Entrants, LiveEpisodes
    from agents.compare.report import Comparison
    from agents.compare.spread import Spread
    from envs.setup import Setup
    from runtime.bundles.bundle import Bundle

#: More frames take longer than to start processes: about ten seconds on one core.
LARGE_FRAMES = 3_000_000


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Workers, Conditions):
    """``mecpilot evaluate``."""

    controllers: Annotated[
        str | None, typer.Option(help="Controllers, separated by commas (default: all that can run).")
    ] = None
    policy: Annotated[
        list[Path] | None,
        typer.Option(help="Policy file of ppo; repeat it for several training seeds (default: the shipped one)."),
    ] = None
    sb3: Annotated[
        list[Path] | None,
        typer.Option(
            help="Agent of stable-baselines3, saved with agent.save(): one more controller; may be repeated. The file "
            "contains pickles, which can run any code: give only files that you trust."
        ),
    ] = None
    algorithm: Annotated[
        str | None,
        typer.Option(help="Algorithm of --sb3: PPO, DQN, A2C, or package.module:Class (default: detected)."),
    ] = None
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Scenarios per trace (default: up to 8); with --live in all (default: 3).")
    ] = None
    live: Annotated[bool, typer.Option("--live", help="Real processes and real time instead of the emulated twin.")] = (
        False
    )
    bound: Annotated[
        bool,
        typer.Option(
            "--bound",
            help="Also search for the best that could have been done, with the future known: rows `bound`, the same "
            "without knowing which answers will be right (`bound-expected`), and on a stream for utility plus "
            "streaming accuracy (`bound-streaming`). Takes about 0.2 s of one core per episode.",
        ),
    ] = False
    frames: Frames = None
    tuning: Annotated[Path | None, typer.Option(help="Tuning file of `mecpilot tune` (default: the shipped one).")] = (
        None
    )
    json: JsonOut = None
    out: Annotated[Path | None, typer.Option(help="Folder for the report and the plots.")] = None
    wide: Wide = False

    def entrants(self, bundle: Bundle) -> Entrants:
        """The controllers that take part."""
        from agents.compare.evaluation import entrants_of
        from agents.compare.own import with_agents

        if self.algorithm and not self.sb3:
            raise UsageError("got --algorithm without --sb3; expected both, or neither")
        if self.bound and self.live:
            raise UsageError("got --bound with --live; expected one of them: only the twin knows the future")
        files = (self.policy or (), self.tuning)
        named = entrants_of(bundle.workload, self.controllers, *files, live=self.live, privacy=self.privacy)
        return with_agents(named, self.sb3, self.algorithm) if self.sb3 else named


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> int:
    """Compare controllers on the same scenarios, by default on traces that nothing was trained on."""
    from agents.compare.bound import bounds_of
    from agents.compare.own import check_own
    from agents.compare.report import as_json
    from agents.compare.traces import BUILTIN_TEST
    from agents.runs.run_lock import locked
    from envs.setup import open_setup, traces_of

    out = options.out
    if options.live:
        options.refuse_workers("with --live; expected one of the two: real processes run one after the other")
    check_writable(options.json, "--json", make_folder=True)
    check_writable(None if out is None else out / "evaluation.json", "--out", make_folder=True)
    bundle = options.open()
    entrants, bank = options.entrants(bundle), traces_of(options.traces or [], "test")
    range_ = options.range_of(bundle, options.frames)
    setup = open_setup(bundle, bank, "test", range_, options.profile, options.privacy)
    check_own(entrants, setup)
    if options.bound:
        entrants = replace(entrants, bounds=bounds_of(setup))
    sources = [str(path) for path in options.traces or ()] or [BUILTIN_TEST]
    with nullcontext() if out is None else locked(out, "evaluating"):
        if options.live:
            comparison, episodes = _compare_live(setup, entrants, sources, options.seeds)
        else:
            comparison, episodes = _compare_in_twin(setup, entrants, sources, options), None
        report = as_json(comparison)
        if options.json != "-":
            _show(comparison, report, options.wide)
        write_json(report, options.json, make_folder=True)
        write_json(report, None if out is None else out / "evaluation.json", make_folder=True)
        if out is not None:
            _draw(setup, entrants, comparison, report, episodes, out)
    return 0


def _compare_in_twin(setup: Setup, entrants: Entrants, sources: Sequence[str], options: EvaluateOptions) -> Comparison:
    from agents.compare.evaluation import compare_in_twin, default_seeds

    seeds = options.seeds or default_seeds(len(setup.bank))
    frames = entrants.total * seeds * len(setup.bank) * setup.range.frames
    with task_bar() as bar, _spread(options, frames) as spread:
        task = bar.add_task("evaluating", total=frames)
        return compare_in_twin(setup, entrants, sources, seeds, lambda done: bar.advance(task, done), spread.play)


@contextmanager
def _spread(options: EvaluateOptions | TuneOptions, frames: int) -> Iterator[Spread]:
    """Plays that many frames: large work on several workers and so that an interrupted command can go on."""
    from agents.compare.spread import Spread
    from agents.scale.kept import kept_until_done

    large = frames > LARGE_FRAMES

    def say(text: str) -> None:
        Console(stderr=True).print(text, highlight=False, soft_wrap=True)

    with options.workers(worth_it=large) as runner:
        if large:
            with kept_until_done(say) as kept:
                yield Spread(runner, kept)
        else:
            yield Spread(runner)


def _compare_live(
    setup: Setup, entrants: Entrants, sources: Sequence[str], seeds: int | None
) -> tuple[Comparison, LiveEpisodes]:
    from agents.compare.evaluation import LIVE_SCENARIOS, compare_live
    from agents.compare.rollout import spread_scenarios

    scenarios = spread_scenarios(setup, seeds or LIVE_SCENARIOS)
    with task_bar() as bar:
        task = bar.add_task("evaluating live", total=entrants.total * len(scenarios) * setup.range.frames)
        return compare_live(setup, entrants, sources, scenarios, lambda done: bar.advance(task, done))


def _show(comparison: Comparison, report: dict[str, Any], wide: bool) -> None:
    from agents.compare.report import verdict
    from agents.compare.tables import tables

    console = table_console(wide)
    for table in tables(comparison, report, wide):
        console.print(table)
        console.print()
    for line in (verdict(comparison), *(comparison.provenance.lines if comparison.provenance else ())):
        if line:
            console.print(line, highlight=False)


def _draw(
    setup: Setup,
    entrants: Entrants,
    comparison: Comparison,
    report: dict[str, Any],
    live: LiveEpisodes | None,
    out: Path,
) -> None:
    """Draw the comparison, and each controller on a typical and a hard episode; after live episodes also pictures."""
    from agents.compare.plots import draw_comparison, draw_timeline
    from agents.compare.report import example_episodes
    from agents.compare.timelines import timeline
    from runtime.observe.pictures import draw_strip

    draw_comparison(
        report["controllers"],
        f"{comparison.subject or setup.workload}, {comparison.backend}: {comparison.episodes} episodes",
        out / "compared.png",
    )
    for earlier in (*out.glob("timeline_*.png"), *out.glob("strip_*.png")):  # of an earlier evaluation in this folder
        earlier.unlink()
    episodes = example_episodes(comparison)
    with task_bar() as bar:
        for name in bar.track(comparison.runs, description="drawing"):
            for kind, episode in episodes.items():
                shown = timeline(setup, entrants, comparison, name, episode, live)
                draw_timeline(shown, out / f"timeline_{kind}_{name}.png")
                if live is not None:
                    draw_strip(setup.workload, live.outcomes[name][0][episode], out / f"strip_{kind}_{name}.png")
    Console(stderr=True).print(f"plots and evaluation.json are in {out}", highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class TuneOptions(Workers, Conditions):
    """``mecpilot tune``."""

    controllers: Annotated[
        str | None, typer.Option(help="Controllers, separated by commas (default: all that have tunables).")
    ] = None
    episodes: Annotated[int | None, typer.Option(min=1, help="Scenarios that every try plays (default: 192).")] = None
    frames: Frames = None
    out: Annotated[Path, typer.Option(help="Tuning file to write.")] = Path("tuning.json")
    json: JsonOut = None

    @property
    def names(self) -> tuple[str, ...]:
        """The controllers to tune; UsageError for one without tunables."""
        from agents.compare.tuning import TUNABLE

        if self.controllers is None:
            return tuple(name for name in TUNABLE if may_run(name, self.privacy))
        names = tuple(dict.fromkeys(name.strip() for name in self.controllers.split(",")))
        for name in names:
            if name not in TUNABLE:
                raise unknown_name("controller with tunables", name, TUNABLE)
            check_controller(name, self.privacy)
        return names


@takes(TuneOptions)
def tune(options: TuneOptions) -> int:
    """Tune the classical controllers on training traces in the twin."""
    from agents.compare.evaluation import Entrants, provenance_of
    from agents.compare.traces import BUILTIN_TRAIN
    from agents.compare.tuning import EPISODES, tries, tune_controllers, tuning_table
    from envs.setup import open_setup, traces_of
    from runtime.files.tuning_file import save_tunings

    names, out = options.names, options.out
    check_writable(options.json, "--json", make_folder=True)
    check_writable(out, "--out", make_folder=True)
    bundle, bank = options.open(), traces_of(options.traces or [], "train")
    range_ = options.range_of(bundle, options.frames)
    setup = open_setup(bundle, bank, "validation", range_, options.profile, options.privacy)
    sources = [str(path) for path in options.traces or ()] or [BUILTIN_TRAIN]
    episodes, most = options.episodes or EPISODES, tries(setup, names)
    with task_bar() as bar, _spread(options, most * episodes * range_.frames) as spread:
        task = bar.add_task("tuning", total=most)
        found = tune_controllers(setup, names, sources, episodes, lambda done: bar.advance(task, done), spread.score)
        bar.update(task, completed=most)  # fewer tries may have been needed
    provenance = provenance_of(setup, Entrants(names, tunings=found.controllers))
    found = msgspec.structs.replace(found, made_with=provenance.as_json())
    if options.json != "-":
        console = table_console()
        console.print(tuning_table(found))
        for line in provenance.lines:
            console.print(line, highlight=False)
    write_json(msgspec.to_builtins(found), options.json, make_folder=True)
    save_tunings(out, found)
    Console(stderr=True).print(f"written to {out}; use it with --tuning {out}", highlight=False, soft_wrap=True)
    return 0
