"""Adds a user's own controllers to a comparison: Python objects, and saved agents of stable-baselines3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.compare.evaluation import Entrants, compare_in_twin, entrants_of
from agents.compare.report import as_json
from agents.compare.traces import BUILTIN_TEST
from controller.controllers.base import Controller
from controller.costs import CostTable
from controller.errors import UsageError
from controller.scenario import ScenarioRange
from envs.setup import Setup, open_setup, traces_of
from envs.techniques import Techniques
from envs.twin.shortcut import TableShortcut
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.config.sections.device import PrivacySection
from runtime.device.controllers import Decides, OwnController
from runtime.files.provenance import GIVEN, used
from runtime.regions.costs import crops_if

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


def with_agents(entrants: Entrants, paths: Sequence[Path], algorithm: str | None) -> Entrants:
    """Add saved agents of stable-baselines3, each as a controller ``sb3-<file>``.

    The files must be trusted, because they contain pickles. UsageError for a file that cannot be used.
    """
    from agents.compare.sb3 import load_agent

    own, notes = dict(entrants.own), list(entrants.own_notes)
    for path in paths:
        name = f"sb3-{path.stem}"
        if name in own:
            raise UsageError(f"got two agents called {name}; rename one of the files")
        agent = load_agent(path, algorithm)
        own[name] = partial(_sb3_controller, name, agent)
        file = used(path, GIVEN)
        notes.append(f"{name}: {type(agent).__name__} from {file.text}; unknown which traces it was trained on")
    return replace(entrants, own=own, own_notes=tuple(notes))


def _sb3_controller(name: str, agent: BaseAlgorithm, setup: Setup) -> Controller:
    from agents.compare.sb3 import Sb3Controller

    return Sb3Controller(agent, setup.costs, setup.range.utility, name)


def check_own(entrants: Entrants, setup: Setup) -> None:
    """Make the user's controllers once, so that errors are reported before anything is played."""
    for make in entrants.own.values():
        make(setup)


def _own_controller(name: str, decider: Decides | Callable[[CostTable], Decides], setup: Setup) -> Controller:
    return OwnController(name, decider, setup.costs)


def compare(
    bundle: str | Path | Bundle = "campus",
    controllers: Sequence[str] = ("ppo", "greedy"),
    own: Mapping[str, Decides | Callable[[CostTable], Decides]] | None = None,
    *,
    traces: Sequence[str | Path] = (),
    scenario: ScenarioRange | Mapping[str, Any] | None = None,
    seeds: int = 1,
    profile: str | Path | None = None,
    no_raw_upload: bool = False,
    shortcuts: Sequence[TableShortcut] = (),
    forecast: bool | None = None,
    roi: bool = False,
) -> dict[str, Any]:
    """Play mecpilot's controllers and your own ones on the same episodes in the twin.

    bundle       name of a shipped bundle, the directory of one, or an opened one
    controllers  mecpilot's controllers by name
    own          your controllers by name: objects with ``decide(state)``, or classes or functions that make one from
                 the cost table: ``{"mine": MyController}``
    traces       files and folders of uplink traces; default: the built-in test traces
    scenario     a ScenarioRange, or a mapping of the fields that differ from the workload's default range
    seeds        scenarios per trace
    no_raw_upload  no decision sends an image
    shortcuts    what may answer a frame of the twin before it is decided, see docs/extending.md
    forecast     answers that stand for later frames move on (docs/forecast.md); default: if the bundle can say what
                 that scores
    roi          decisions may run a part of the picture, where something moves, see docs/roi.md
    profile      file of ``mecpilot profile``, or "shipped"; default: this machine's, else the shipped one

    Returns the report that ``mecpilot evaluate --json`` writes: ``report["controllers"]["mine"]["utility"]["mean"]``.
    UsageError for an unknown name, field or file; ValueError if one of your controllers returns a row that does not
    exist.
    """
    privacy = PrivacySection(no_raw_upload=no_raw_upload)
    bank = traces_of(traces, "test")
    opened = open_bundle(bundle)
    techniques = Techniques(forecast=forecast, crops=crops_if(roi, opened.work))
    setup = open_setup(opened, bank, "test", scenario, profile, privacy, shortcuts, techniques=techniques)
    entrants = entrants_of(setup.workload, ",".join(controllers), privacy=privacy) if controllers else Entrants(())
    makers = {name: partial(_own_controller, name, decider) for name, decider in (own or {}).items()}
    sources = [str(trace) for trace in traces] or [BUILTIN_TEST]
    return as_json(compare_in_twin(setup, replace(entrants, own=makers), sources, seeds))
