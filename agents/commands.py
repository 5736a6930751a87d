"""``mecpilot evaluate`` and ``mecpilot tune``: what the user may say, and what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from controller.errors import FailureError

if TYPE_CHECKING:
    from agents.evaluation import Entrants
    from agents.report import Comparison
    from agents.world import World

Traces = Annotated[list[Path] | None, typer.Option(help="Trace files or folders; may be repeated. Default: built-in.")]
ScenarioFile = Annotated[Path | None, typer.Option(help="JSON file that overrides fields of the scenario range.")]
ProfileFile = Annotated[Path | None, typer.Option(help="Profile file; default: this machine's, else shipped.")]
#: A narrower terminal wraps the tables rather than cutting figures off.
TABLE_COLUMNS = 136
BUILTIN_TEST, BUILTIN_TRAIN = "built-in test traces", "built-in training traces"


def evaluate(
    workload: Annotated[str, typer.Option(help="What the camera sees.")] = "garments",
    controllers: Annotated[str | None, typer.Option(help="Comma-separated; default: all that can run.")] = None,
    policy: Annotated[list[Path] | None, typer.Option(help="Policy file of ppo; repeat for several seeds.")] = None,
    traces: Traces = None,
    seeds: Annotated[int, typer.Option(min=1, help="Scenarios per trace; with --live, scenarios in all.")] = 5,
    live: Annotated[bool, typer.Option("--live", help="Real processes, in real time, instead of the twin.")] = False,
    scenario: ScenarioFile = None,
    profile: ProfileFile = None,
    tuning: Annotated[Path | None, typer.Option(help="File of `mecpilot tune`; default: shipped.")] = None,
    json: Annotated[str | None, typer.Option(help="Write the report as JSON to this file, or - for stdout.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report and the plots.")] = None,
) -> None:
    """Compare controllers on the same scenarios, on traces that nothing was trained on."""
    from agents.evaluation import Entrants, chosen_names
    from agents.world import open_world, scenario_range, traces_of
    from runtime.policy_file import load_policy
    from runtime.tuning_file import load_tunings

    names = chosen_names(controllers, bool(policy), live)
    policies = [load_policy(path)[0] for path in policy or ()]
    world = open_world(workload, traces_of(traces or [], "test"), "test", scenario_range(scenario), profile)
    entrants = Entrants(names, policies, load_tunings(workload, tuning))
    sources = [str(path) for path in traces or ()] or [BUILTIN_TEST]
    if live:
        report = _evaluate_live(world, entrants, sources, seeds, profile, out)
    else:
        report = _evaluate_twin(world, entrants, sources, seeds, out)
    _write_json(report[1], json, out)
    if json != "-":
        _show(*report)


def _evaluate_twin(
    world: World, entrants: Entrants, sources: Sequence[str], seeds: int, out: Path | None
) -> tuple[Comparison, dict[str, Any]]:
    from agents.evaluation import compare_in_twin
    from agents.report import as_json

    with _bar() as bar:
        task = bar.add_task("episodes", total=entrants.total * seeds * len(world.bank))
        comparison = compare_in_twin(world, entrants, sources, seeds, lambda done: bar.advance(task, done))
    if out is not None:
        _draw_twin(world, entrants, comparison, out)
    return comparison, as_json(comparison)


def _draw_twin(world: World, entrants: Entrants, comparison: Comparison, out: Path) -> None:
    """The comparison, and what the learned policy, its best opponent and the bound do on one typical episode."""
    from agents.plots import draw_comparison, draw_timeline
    from agents.report import BOUND, LEARNED, as_json, typical_episode
    from agents.rollout import paired_scenarios
    from agents.timelines import of_twin

    draw_comparison(as_json(comparison)["controllers"], f"{world.workload}, twin", out / "compared.png")
    episode = typical_episode(comparison)
    scenario = paired_scenarios(world, range(comparison.seeds))[episode]
    for name in dict.fromkeys((LEARNED, *comparison.classical[:1], BOUND)):
        if name in comparison.runs:
            controller = entrants.make(name, world, batch=1)[0]
            timeline = of_twin(world, controller, scenario, oracle=name == BOUND)
            draw_timeline(timeline, out / f"timeline_{name}.png")


def _evaluate_live(
    world: World, entrants: Entrants, sources: Sequence[str], seeds: int, profile: Path | None, out: Path | None
) -> tuple[Comparison, dict[str, Any]]:
    from agents.evaluation import compare_live
    from agents.plots import draw_comparison, draw_timeline
    from agents.report import as_json
    from agents.timelines import of_outcomes

    with _bar() as bar:
        task = bar.add_task("live episodes", total=len(entrants.names) * seeds)
        comparison, outcomes, scenarios = compare_live(
            world, entrants, sources, seeds, profile, lambda done: bar.advance(task, done)
        )
    report = as_json(comparison)
    if out is not None:
        draw_comparison(report["controllers"], f"{world.workload}, live", out / "compared.png")
        trace = world.bank.traces[scenarios[0].trace_index]
        for name, episodes in outcomes.items():
            draw_timeline(of_outcomes(name, episodes[0], scenarios[0], trace), out / f"timeline_{name}.png")
    return comparison, report


def _write_json(report: dict[str, Any], json: str | None, out: Path | None) -> None:
    text = msgspec.json.format(msgspec.json.encode(report), indent=1)
    for path in (Path(json) if json not in (None, "-") else None, None if out is None else out / "evaluation.json"):
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text + b"\n")
        except OSError as error:
            raise FailureError(f"cannot write {path}: {error.strerror}; choose another file") from error
    if json == "-":
        print(text.decode())


def _show(comparison: Comparison, report: dict[str, Any]) -> None:
    from agents.report import family_table, ranking_table, verdict

    console = Console(width=max(Console().width, TABLE_COLUMNS))
    console.print(ranking_table(comparison, report))
    if len(comparison.by_family()) > 1:
        console.print(family_table(comparison))
    if sentence := verdict(comparison):
        console.print(sentence, highlight=False, soft_wrap=True)


def tune(
    workload: Annotated[str, typer.Option(help="What the camera sees.")] = "garments",
    controllers: Annotated[str | None, typer.Option(help="Comma-separated; default: all that have tunables.")] = None,
    traces: Traces = None,
    episodes: Annotated[int, typer.Option(min=1, help="Scenarios that every candidate plays.")] = 256,
    scenario: ScenarioFile = None,
    profile: ProfileFile = None,
    out: Annotated[Path, typer.Option(help="Tuning file to write.")] = Path("tuning.json"),
) -> None:
    """Tune every classical controller on training traces in the twin."""
    from agents.tuning import TUNABLE, tune_controllers
    from agents.world import open_world, scenario_range, traces_of
    from controller.errors import unknown_name
    from runtime.tuning_file import save_tunings

    names = TUNABLE if controllers is None else tuple(name.strip() for name in controllers.split(","))
    for name in names:
        if name not in TUNABLE:
            raise unknown_name("controller with tunables", name, TUNABLE)
    world = open_world(workload, traces_of(traces or [], "train"), "validation", scenario_range(scenario), profile)
    sources = [str(path) for path in traces or ()] or [BUILTIN_TRAIN]
    with _bar() as bar:
        task = bar.add_task("tuning", total=len(names))

        def tell(name: str) -> None:
            bar.update(task, description=f"tuning {name}", completed=names.index(name))

        found = tune_controllers(world, names, sources, episodes, tell)
        bar.update(task, completed=len(names))
    save_tunings(out, found)
    for name in names:
        shown = {key: value for key, value in found.controllers[name].items() if key != "states"}
        print(f"{name:<15} utility {found.utility[name]:.4f}  {msgspec.json.encode(shown).decode()}")
    print(f"written to {out}")


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
