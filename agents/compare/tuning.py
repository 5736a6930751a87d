"""Tunes the parameters of classical controllers on training traces.

``controller.controllers.tuning`` has the grid. Here each setting plays the same scenarios in the twin, with expected
scores, so that the choice does not depend on the noise of single frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from agents.compare.rollout import play, scenarios_on
from controller.controllers.bandwidth_states import learn_states
from controller.controllers.base import Controller
from controller.controllers.registry import CONTROLLER_NAMES, LEARNED, ORACLE, TUNABLE_KEYS, make_controller
from controller.controllers.tuning import most_tries, tune
from controller.metrics import per_episode
from envs.setup import Setup
from runtime.files.tuning_file import TuningFile

EPISODES = 192  # two on each built-in training trace
#: Seed of the scenarios; no evaluation uses it.
SEED = 50_000
#: The oracle is tuned too: untuned, it would be a weaker reference.
TUNABLE = tuple(name for name in CONTROLLER_NAMES if name != LEARNED and TUNABLE_KEYS[name])

Progress = Callable[[str, int], None]  # called with the controller and the number of tries done


def tries(setup: Setup, names: Sequence[str]) -> int:
    """Largest number of passes over the scenarios that ``tune_controllers`` needs."""
    return sum(1 + most_tries(name, setup.costs) for name in names)


def tune_controllers(
    setup: Setup,
    names: Sequence[str],
    sources: Sequence[str],
    episodes: int = EPISODES,
    progress: Progress = lambda name, done: None,
) -> TuningFile:
    """The parameters of each named controller with the best mean utility over ``episodes`` scenarios on the setup's
    traces; ``sources`` names these traces in the file."""
    scenarios = scenarios_on(setup, episodes, SEED)
    utility = setup.range.utility
    untuned: dict[str, float] = {}
    reached: dict[str, float] = {}
    tunings: dict[str, dict[str, Any]] = {}
    done = 0

    def mean_utility(controller: Controller) -> float:
        nonlocal done
        frames = play(setup, controller, scenarios, reward="expected", oracle=controller.name == ORACLE).frames
        done += 1
        progress(controller.name, done)
        return float(per_episode(frames)["utility"].mean())

    for number, name in enumerate(names, start=1):
        untuned[name] = mean_utility(make_controller(name, setup.costs, utility, batch=episodes))
        base = _states(setup) if "states" in TUNABLE_KEYS[name] else {}
        best = tune(name, setup.costs, utility, mean_utility, batch=episodes, base=base)
        tunings[name], reached[name] = best
        done = tries(setup, names[:number])  # fewer tries may have been needed
        progress(name, done)
    return TuningFile(setup.workload, tuple(sources), episodes, untuned, reached, tunings)


def tuning_table(found: TuningFile) -> Table:
    """Utility of each controller before and after tuning, and the chosen parameters."""
    table = Table(title=f"{found.workload}: mean utility over {found.episodes} training episodes", title_justify="left")
    table.add_column("controller", no_wrap=True)
    table.add_column("untuned", justify="right")
    table.add_column("tuned", justify="right")
    table.add_column("tunables", overflow="fold")
    for name, tuning in found.controllers.items():
        shown = "  ".join(f"{key} {_short(value)}" for key, value in tuning.items() if key != "states")
        table.add_row(name, f"{found.default_utility[name]:.4f}", f"{found.utility[name]:.4f}", shown)
    return table


def _short(value: Any) -> str:
    return ",".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _states(setup: Setup) -> dict[str, Any]:
    """Bandwidth states of edgent-dynamic, learned from the device's share of the traces' bandwidth."""
    return {"states": learn_states(setup.bank, setup.range.uplink_share_frac).as_tuning()}
