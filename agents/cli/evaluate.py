"""``mecpilot evaluate`` and ``mecpilot tune``: what the user may say, and what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from controller.errors import unknown_name
from controller.scenario import ScenarioRange
from runtime.cli.shared_options import ProfileFile
from runtime.files.atomic import check_writable, write_whole
from runtime.files.trace_formats import TRACE_HELP
from runtime.workloads.registry import workload_name

if TYPE_CHECKING:
    from agents.compare.evaluation import Entrants, LiveEpisodes
    from agents.compare.report import Comparison
    from agents.compare.setup import Setup

Traces = Annotated[
    list[Path] | None, typer.Option(help=f"Trace files or folders; may be repeated. Default: built-in. {TRACE_HELP}")
]
ScenarioFile = Annotated[Path | None, typer.Option(help="JSON file that overrides fields of the scenario range.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames per episode; default: as the scenario range says.")]


def evaluate(
    workload: Annotated[str, typer.Option(help="What the camera sees.")] = "garments",
    controllers: Annotated[str | None, typer.Option(help="Comma-separated; default: all that can run.")] = None,
    policy: Annotated[
        list[Path] | None, typer.Option(help="Policy file of ppo, repeated for several seeds; default: shipped.")
    ] = None,
    traces: Traces = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Scenarios per trace (default: up to 8); with --live in all (default: 3).")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Real processes, in real time, instead of the twin.")] = False,
    frames: Frames = None,
    scenario: ScenarioFile = None,
    profile: ProfileFile = None,
    tuning: Annotated[Path | None, typer.Option(help="File of `mecpilot tune`; default: the shipped one.")] = None,
    json: Annotated[str | None, typer.Option(help="Write the report as JSON to this file, or - for stdout.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report and the plots.")] = None,
    wide: Annotated[bool, typer.Option("--wide", help="Tables of 160 columns: intervals, all controllers.")] = False,
) -> None:
    """Compare controllers on the same scenarios; without --traces on ones that nothing was trained on."""
    from agents.compare.evaluation import entrants_of
    from agents.compare.report import as_json
    from agents.compare.setup import BUILTIN_TEST, open_setup, traces_of
    from agents.runs.run_lock import locked

    check_writable(json, "--json", make_folder=True)
    check_writable(None if out is None else out / "evaluation.json", "--out", make_folder=True)
    workload = workload_name(workload)
    entrants = entrants_of(workload, controllers, policy or (), tuning, live=live)
    setup = open_setup(workload, traces_of(traces or [], "test"), "test", _range(workload, scenario, frames), profile)
    sources = [str(path) for path in traces or ()] or [BUILTIN_TEST]
    with nullcontext() if out is None else locked(out, "evaluating"):
        if live:
            comparison, episodes = _compare_live(setup, entrants, sources, seeds, profile)
        else:
            comparison, episodes = _compare_in_twin(setup, entrants, sources, seeds), None
        report = as_json(comparison)
        if json != "-":
            _show(comparison, report, wide)
        _write_json(report, json, out)
        if out is not None:
            _draw(setup, entrants, comparison, report, episodes, out)


def _range(workload: str, scenario: Path | None, frames: int | None) -> ScenarioRange:
    from agents.compare.setup import scenario_range

    chosen = scenario_range(workload, scenario)
    return chosen if frames is None else replace(chosen, frames=frames)


def _compare_in_twin(setup: Setup, entrants: Entrants, sources: Sequence[str], seeds: int | None) -> Comparison:
    from agents.compare.evaluation import compare_in_twin, default_seeds

    seeds = seeds or default_seeds(len(setup.bank))
    with _bar() as bar:
        task = bar.add_task("evaluating", total=entrants.total * seeds * len(setup.bank) * setup.range.frames)
        return compare_in_twin(setup, entrants, sources, seeds, lambda done: bar.advance(task, done))


def _compare_live(
    setup: Setup, entrants: Entrants, sources: Sequence[str], seeds: int | None, profile: Path | None
) -> tuple[Comparison, LiveEpisodes]:
    from agents.compare.evaluation import LIVE_SCENARIOS, compare_live
    from agents.compare.rollout import spread_scenarios

    scenarios = spread_scenarios(setup, seeds or LIVE_SCENARIOS)
    with _bar() as bar:
        task = bar.add_task("evaluating live", total=entrants.total * len(scenarios) * setup.range.frames)
        return compare_live(setup, entrants, sources, scenarios, profile, lambda done: bar.advance(task, done))


def _write_json(report: dict[str, Any], json: str | None, out: Path | None) -> None:
    text = msgspec.json.format(msgspec.json.encode(report), indent=1)
    for path in (Path(json) if json not in (None, "-") else None, None if out is None else out / "evaluation.json"):
        if path is not None:
            write_whole(path, text + b"\n", make_folder=True)
    if json == "-":
        print(text.decode())


def _show(comparison: Comparison, report: dict[str, Any], wide: bool) -> None:
    from agents.compare.report import verdict
    from agents.compare.tables import table_console, tables

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
    """The comparison, and what every controller does on one typical and one hard episode; live, also as pictures."""
    from agents.compare.plots import draw_comparison, draw_timeline
    from agents.compare.report import example_episodes
    from agents.compare.timelines import timeline
    from runtime.observe.pictures import draw_strip

    draw_comparison(
        report["controllers"],
        f"{setup.workload}, {comparison.backend}: {comparison.episodes} episodes",
        out / "compared.png",
    )
    for earlier in (*out.glob("timeline_*.png"), *out.glob("strip_*.png")):  # of an evaluation that this one replaces
        earlier.unlink()
    episodes = example_episodes(comparison)
    with _bar() as bar:
        for name in bar.track(comparison.runs, description="drawing"):
            for kind, episode in episodes.items():
                shown = timeline(setup, entrants, comparison, name, episode, live)
                draw_timeline(shown, out / f"timeline_{kind}_{name}.png")
                if live is not None:
                    draw_strip(setup.workload, live.outcomes[name][0][episode], out / f"strip_{kind}_{name}.png")
    Console(stderr=True).print(f"plots and evaluation.json are in {out}", highlight=False, soft_wrap=True)


def tune(
    workload: Annotated[str, typer.Option(help="What the camera sees.")] = "garments",
    controllers: Annotated[str | None, typer.Option(help="Comma-separated; default: all that have tunables.")] = None,
    traces: Traces = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Scenarios that every try plays; default: 192.")] = None,
    frames: Frames = None,
    scenario: ScenarioFile = None,
    profile: ProfileFile = None,
    out: Annotated[Path, typer.Option(help="Tuning file to write.")] = Path("tuning.json"),
    json: Annotated[str | None, typer.Option(help="Write the same as JSON to this file too, or - for stdout.")] = None,
) -> None:
    """Tune every classical controller on training traces in the twin."""
    from agents.compare.evaluation import Entrants, provenance_of
    from agents.compare.setup import BUILTIN_TRAIN, open_setup, traces_of
    from agents.compare.tables import table_console
    from agents.compare.tuning import EPISODES, TUNABLE, tries, tune_controllers, tuning_table
    from runtime.files.tuning_file import save_tunings

    names = TUNABLE if controllers is None else tuple(dict.fromkeys(name.strip() for name in controllers.split(",")))
    for name in names:
        if name not in TUNABLE:
            raise unknown_name("controller with tunables", name, TUNABLE)
    check_writable(json, "--json", make_folder=True)
    check_writable(out, "--out", make_folder=True)
    workload = workload_name(workload)
    range_ = _range(workload, scenario, frames)
    setup = open_setup(workload, traces_of(traces or [], "train"), "validation", range_, profile)
    sources = [str(path) for path in traces or ()] or [BUILTIN_TRAIN]
    with _bar() as bar:
        task = bar.add_task("tuning", total=tries(setup, names))

        def tell(name: str, done: int) -> None:
            bar.update(task, description=f"tuning {name:<14}", completed=done)

        found = tune_controllers(setup, names, sources, episodes or EPISODES, tell)
    provenance = provenance_of(setup, Entrants(names))
    found = msgspec.structs.replace(found, made_with=provenance.as_json())
    if json != "-":
        console = table_console()
        console.print(tuning_table(found))
        for line in provenance.lines:
            console.print(line, highlight=False)
    _write_json(msgspec.to_builtins(found), json, None)
    save_tunings(out, found)
    Console(stderr=True).print(f"written to {out}; use it with --tuning {out}", highlight=False, soft_wrap=True)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
