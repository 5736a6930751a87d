"""``mecpilot evaluate``: its options, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console

from agents.cli.options import Conditions, Frames, TechniqueOptions, Workers, takes
from controller.controllers.registry import LEARNED
from controller.errors import UsageError
from runtime.cli.console import task_bar, write_json
from runtime.cli.shared_options import JsonOut, Wide
from runtime.config.rules import check_cache, is_roi
from runtime.config.sections.shortcuts import CacheSection
from runtime.config.tree import DEFAULTS
from runtime.files.atomic import check_writable
from runtime.files.policy_file import shipped_policy
from runtime.observe.tables import table_console

if TYPE_CHECKING:
    from agents.compare.evaluation import Entrants, LiveEpisodes, Player, Progress
    from agents.compare.report import Comparison
    from envs.networks import NetworkName
    from envs.setup import Setup
    from envs.techniques import Techniques
    from runtime.bundles.bundle import Bundle

#: What an ablation plays where there is no policy.
RULE = "expected-utility"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Workers, TechniqueOptions, Conditions):
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
    network: Annotated[
        str | None,
        typer.Option(
            help="With --live, what is between device and MEC: emulated, which shapes messages in the device; lab, the "
            "kernel's TCP between namespaces (root; docs/lab.md); or lab-kernel, shaped by the kernel too (default: "
            "emulated)."
        ),
    ] = None
    bound: Annotated[
        bool,
        typer.Option(
            "--bound",
            help="Also search for the best that could have been done, with the future known: rows `bound`, the same "
            "without knowing which answers will be right (`bound-expected`), and on a stream for utility plus "
            "streaming accuracy (`bound-streaming`). Takes about 0.2 s of one core per episode.",
        ),
    ] = False
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="What each technique is worth to one controller (default: ppo, else expected-utility): all of them, "
            "without each, each alone, none.",
        ),
    ] = False
    guard: Annotated[
        bool,
        typer.Option("--guard/--no-guard", help="ppo is guarded by expected-utility, as on a device (docs/policy.md)."),
    ] = False
    roi: Annotated[
        str,
        typer.Option(help="auto: decisions may run a part of the picture, where something moves (docs/roi.md)."),
    ] = DEFAULTS.device.roi
    cache: Annotated[
        str,
        typer.Option(
            help="Memory for answers that stand for later pictures much like theirs, such as 32MB; 0: none (see "
            "docs/cache.md)."
        ),
    ] = DEFAULTS.cache.size
    repetition: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.99,
            help="Share of the frames that show an item shown before, changed a little; only garments (default: its "
            "samples one after another, none of which comes again).",
        ),
    ] = None
    frames: Frames = None
    tuning: Annotated[Path | None, typer.Option(help="Tuning file of `mecpilot tune` (default: the shipped one).")] = (
        None
    )
    json: JsonOut = None
    out: Annotated[Path | None, typer.Option(help="Folder for the report and the plots.")] = None
    wide: Wide = False

    def techniques(self) -> Techniques:
        """What is switched on beside the decisions; in training there is no cache."""
        cache = CacheSection(size=self.cache)
        check_cache(cache)
        return replace(super().techniques(), cache=cache)

    def techniques_on(self, bundle: Bundle) -> Techniques:
        """What is switched on beside the decisions, parts of pictures included."""
        from runtime.regions.costs import crops_if

        return replace(self.techniques(), crops=crops_if(is_roi(self.roi), bundle.work))

    def entrants(self, bundle: Bundle) -> Entrants:
        """The controllers that take part."""
        from agents.compare.evaluation import entrants_of
        from agents.compare.own import with_agents

        if self.algorithm and not self.sb3:
            raise UsageError("got --algorithm without --sb3; expected both, or neither")
        if self.bound and self.live:
            raise UsageError("got --bound with --live; expected one of them: only the twin knows the future")
        if self.bound and is_roi(self.roi):
            raise UsageError(
                "got --bound with --roi; expected one of them: the search does not compare what crops know"
            )
        files = (self.policy or (), self.tuning)
        guard = DEFAULTS.controller.guard_controller if self.guard else ""
        named = entrants_of(
            bundle.workload, self._names(bundle), *files, live=self.live, privacy=self.privacy, guard=guard
        )
        return with_agents(named, self.sb3, self.algorithm) if self.sb3 else named

    @property
    def network_name(self) -> NetworkName:
        """What is between device and MEC; UsageError for an unknown network, or without real processes."""
        from envs.networks import checked_name

        if self.network is not None and not self.live:
            raise UsageError(f"got --network {self.network} without --live; expected both: the twin has its own uplink")
        return checked_name(self.network or "emulated")

    def _names(self, bundle: Bundle) -> str | None:
        """The controllers as given; of an ablation one, by default the policy if there is one."""
        if not self.ablate:
            return self.controllers
        for option, given in (("--live", self.live), ("--bound", self.bound), ("--sb3", self.sb3)):
            if given:
                raise UsageError(f"got --ablate with {option}; expected one of them")
        if self.controllers is None:
            return LEARNED if self.policy or shipped_policy(bundle.workload) else RULE
        if len(self.controllers.split(",")) != 1:
            raise UsageError(f"got --ablate with the controllers {self.controllers}; expected one controller")
        return self.controllers


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> int:
    """Compare controllers on the same scenarios, by default on traces that nothing was trained on."""
    from agents.compare.bound import bounds_of
    from agents.compare.own import check_own
    from agents.compare.traces import BUILTIN_TEST
    from agents.runs.run_lock import locked
    from envs.setup import open_setup, traces_of

    out, _ = options.out, options.network_name  # refused before anything is opened
    if options.live:
        options.refuse_workers("with --live; expected one of the two: real processes run one after the other")
    check_writable(options.json, "--json", make_folder=True)
    check_writable(None if out is None else out / "evaluation.json", "--out", make_folder=True)
    bundle = options.open()
    entrants, bank = options.entrants(bundle), traces_of(options.traces or [], "test")
    range_ = options.range_of(bundle, options.frames)
    files = (options.profile, options.privacy)
    techniques, repetition = options.techniques_on(bundle), options.repetition
    setup = open_setup(bundle, bank, "test", range_, *files, techniques=techniques, repetition=repetition)
    check_own(entrants, setup)
    if options.bound:
        entrants = replace(entrants, bounds=bounds_of(setup))
    sources = [str(path) for path in options.traces or ()] or [BUILTIN_TEST]
    with nullcontext() if out is None else locked(out, "evaluating"):
        done = (_ablated if options.ablate else _compared)(setup, entrants, sources, options)
        if options.json != "-":
            done.show(table_console(options.wide))
        write_json(done.report, options.json, make_folder=True)
        write_json(done.report, None if out is None else out / "evaluation.json", make_folder=True)
        if out is not None:
            done.draw(out)
            Console(stderr=True).print(f"plots and evaluation.json are in {out}", highlight=False, soft_wrap=True)
    return 0


class Done(NamedTuple):
    """A comparison, and how it is shown and drawn."""

    report: dict[str, Any]
    show: Callable[[Console], None]
    draw: Callable[[Path], None]  # into a folder


def _compared(setup: Setup, entrants: Entrants, sources: Sequence[str], options: EvaluateOptions) -> Done:
    """Controllers against each other."""
    from agents.compare.report import as_json

    episodes: LiveEpisodes | None = None
    if options.live:
        comparison, episodes = _compare_live(setup, entrants, sources, options)
    else:
        comparison = _compare_in_twin(setup, entrants, sources, options)
    report = as_json(comparison)
    return Done(
        report,
        partial(_show, comparison, report, options.wide),
        partial(_draw, setup, entrants, comparison, report, episodes),
    )


def _ablated(setup: Setup, entrants: Entrants, sources: Sequence[str], options: EvaluateOptions) -> Done:
    """One controller with and without each technique."""
    from agents.compare.ablate import compare_techniques, draw_techniques, report_of, table_of, variations

    names = setup.technique_names
    with _playing(setup, entrants, options, len(variations(names))) as (seeds, progress, play):
        comparison = compare_techniques(setup, names, entrants, sources, seeds, progress, play)
    report = report_of(comparison, entrants.names[0])

    def show(console: Console) -> None:
        console.print(table_of(report))
        _print_lines(console, comparison, "")

    return Done(report, show, lambda out: draw_techniques(report, out / "techniques.png"))


def _compare_in_twin(setup: Setup, entrants: Entrants, sources: Sequence[str], options: EvaluateOptions) -> Comparison:
    from agents.compare.evaluation import compare_in_twin

    with _playing(setup, entrants, options) as (seeds, progress, play):
        return compare_in_twin(setup, entrants, sources, seeds, progress, play)


@contextmanager
def _playing(
    setup: Setup, entrants: Entrants, options: EvaluateOptions, times: int = 1
) -> Iterator[tuple[int, Progress, Player]]:
    """Scenarios per trace, and what shows the progress and plays, if all controllers play everything so many times."""
    from agents.compare.evaluation import default_seeds

    seeds = options.seeds or default_seeds(len(setup.bank))
    frames = times * entrants.total * seeds * len(setup.bank) * setup.range.frames
    with task_bar() as bar, options.spread(frames) as spread:
        task = bar.add_task("evaluating", total=frames)
        yield seeds, lambda done: bar.advance(task, done), spread.play


def _compare_live(
    setup: Setup, entrants: Entrants, sources: Sequence[str], options: EvaluateOptions
) -> tuple[Comparison, LiveEpisodes]:
    from agents.compare.evaluation import LIVE_SCENARIOS, compare_live
    from agents.compare.rollout import spread_scenarios

    scenarios = spread_scenarios(setup, options.seeds or LIVE_SCENARIOS)
    with task_bar() as bar:
        task = bar.add_task("evaluating live", total=entrants.total * len(scenarios) * setup.range.frames)
        return compare_live(
            setup, entrants, sources, scenarios, lambda done: bar.advance(task, done), options.network_name
        )


def _show(comparison: Comparison, report: dict[str, Any], wide: bool, console: Console) -> None:
    from agents.compare.report import verdict
    from agents.compare.tables import tables

    for table in tables(comparison, report, wide):
        console.print(table)
        console.print()
    _print_lines(console, comparison, verdict(comparison))


def _print_lines(console: Console, comparison: Comparison, verdict: str) -> None:
    for line in (verdict, *(comparison.provenance.lines if comparison.provenance else ())):
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
