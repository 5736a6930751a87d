"""``mecpilot tune``: its options, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from agents.cli.options import Conditions, Frames, TechniqueOptions, Workers, takes
from controller.errors import unknown_name
from runtime.cli.console import task_bar, write_json
from runtime.cli.shared_options import JsonOut
from runtime.config.privacy import check_controller, may_run
from runtime.files.atomic import check_writable
from runtime.observe.tables import table_console


@dataclass(frozen=True, kw_only=True)
class TuneOptions(Workers, TechniqueOptions, Conditions):
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
    techniques = options.techniques()
    setup = open_setup(bundle, bank, "validation", range_, options.profile, options.privacy, techniques=techniques)
    sources = [str(path) for path in options.traces or ()] or [BUILTIN_TRAIN]
    episodes, most = options.episodes or EPISODES, tries(setup, names)
    with task_bar() as bar, options.spread(most * episodes * range_.frames) as spread:
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
