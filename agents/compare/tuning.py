"""Tunes the parameters of classical controllers on training traces.

``controller.controllers.tuning`` has the grid. Here each setting plays the same scenarios in the twin, with expected
scores, so that the choice does not depend on the noise of single frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from agents.compare.rollout import play, scenarios_on
from controller.controllers.bandwidth_states import learn_states
from controller.controllers.registry import CONTROLLER_NAMES, LEARNED, ORACLE, TUNABLE_KEYS, make_controller
from controller.controllers.tuning import Search, Tuning, most_tries, search
from controller.metrics import per_episode
from controller.scenario import Scenario
from envs.setup import Setup
from runtime.files.tuning_file import TuningFile

EPISODES = 192  # two on each built-in training trace
#: Seed of the scenarios; no evaluation uses it.
SEED = 50_000
#: The oracle is tuned too: untuned, it would be a weaker reference.
TUNABLE = tuple(name for name in CONTROLLER_NAMES if name != LEARNED and TUNABLE_KEYS[name])

Progress = Callable[[int], None]  # called with the number of tries since the last call
Try = tuple[str, Mapping[str, Any]]  # a controller and a tuning


def tries(setup: Setup, names: Sequence[str]) -> int:
    """Largest number of passes over the scenarios that ``tune_controllers`` needs."""
    return sum(1 + most_tries(name, setup.costs) for name in names)


def score_here(setup: Setup, wanted: Sequence[Try], scenarios: Sequence[Scenario], progress: Progress) -> list[float]:
    """Mean utility of each try on the scenarios, played in this process."""
    scores = []
    for name, tuning in wanted:
        controller = make_controller(name, setup.costs, setup.range.utility, tuning, batch=len(scenarios))
        frames = play(setup, controller, scenarios, reward="expected", oracle=name == ORACLE).frames
        scores.append(float(per_episode(frames)["utility"].mean()))
        progress(1)
    return scores


#: Scores tries, in this process or elsewhere (``agents.compare.spread``).
Scorer = Callable[[Setup, Sequence[Try], Sequence[Scenario], Progress], list[float]]


def tune_controllers(
    setup: Setup,
    names: Sequence[str],
    sources: Sequence[str],
    episodes: int = EPISODES,
    progress: Progress = lambda _: None,
    score_all: Scorer = score_here,
) -> TuningFile:
    """The parameters of each named controller with the best mean utility over ``episodes`` scenarios on the setup's
    traces; ``sources`` names these traces in the file.

    The searches of all controllers advance together, so that many tries can be scored side by side.
    """
    scenarios = scenarios_on(setup, episodes, SEED)
    scores = score_all(setup, [(name, {}) for name in names], scenarios, progress)
    untuned = dict(zip(names, scores, strict=True))
    searches = {name: search(name, setup.costs, _learned(setup, name)) for name in names}
    asked = {name: next(steps) for name, steps in searches.items()}
    found: dict[str, tuple[Tuning, float]] = {}
    while asked:
        wanted = [(name, tuning) for name, tunings in asked.items() for tuning in tunings]
        known = iter(score_all(setup, wanted, scenarios, progress))
        asked = _advance(searches, {name: [next(known) for _ in tunings] for name, tunings in asked.items()}, found)
    tunings, reached = {name: found[name][0] for name in names}, {name: found[name][1] for name in names}
    return TuningFile(setup.workload, tuple(sources), episodes, untuned, reached, tunings)


def _advance(
    searches: Mapping[str, Search], scores: Mapping[str, list[float]], found: dict[str, tuple[Tuning, float]]
) -> dict[str, list[Tuning]]:
    """What each search wants to try next; what those that end have found goes to ``found``."""
    asked = {}
    for name, answers in scores.items():
        try:
            asked[name] = searches[name].send(answers)
        except StopIteration as end:
            found[name] = end.value
    return asked


def tuning_table(found: TuningFile) -> Table:
    """Utility of each controller before and after tuning, and the chosen parameters."""
    table = Table(title=f"{found.workload}: mean utility over {found.episodes} training episodes", title_justify="left")
    table.add_column("controller", no_wrap=True)
    table.add_column("untuned", justify="right")
    table.add_column("tuned", justify="right")
    table.add_column("tunables", overflow="fold")
    long = (*_LEARNED, "map")
    for name, tuning in found.controllers.items():
        shown = "  ".join(f"{key} {_short(value)}" for key, value in tuning.items() if key not in long)
        table.add_row(name, f"{found.default_utility[name]:.4f}", f"{found.utility[name]:.4f}", shown)
    return table


def _short(value: Any) -> str:
    return ",".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _states(setup: Setup) -> dict[str, Any]:
    """Bandwidth states of edgent-dynamic and oboe, learned from the device's share of the traces' bandwidth."""
    return learn_states(setup.bank, setup.range.uplink_share_frac).as_tuning()


def _predictor(setup: Setup) -> dict[str, Any]:
    """Transfer times of fugu-mpc, learned from transfers on the traces."""
    from agents.compare.transfers import train_predictor  # not above: it loads torch

    return train_predictor(setup).as_tuning()


#: What is learned from the traces before the other tunables are searched.
_LEARNED: dict[str, Callable[[Setup], dict[str, Any]]] = {"states": _states, "predictor": _predictor}


def _learned(setup: Setup, name: str) -> dict[str, Any]:
    """What the named controller learns from the traces, by tunable."""
    return {key: learn(setup) for key, learn in _LEARNED.items() if key in TUNABLE_KEYS[name]}
