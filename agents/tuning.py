"""How are the opponents made as strong as they can be? Every classical controller is tuned on the training traces.

The grid is in ``controller.tuning``; here each candidate plays the same scenarios in the twin, with the expected
scores, so that the choice rests on the condition of link and load and not on the luck of single frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agents.report import LEARNED
from agents.rollout import play, scenarios_on
from agents.world import World
from controller.bandwidth_states import learn_states
from controller.base import Controller
from controller.metrics import per_episode
from controller.registry import CONTROLLER_NAMES, TUNABLE_KEYS
from controller.tuning import tune
from runtime.tuning_file import TuningFile

EPISODES = 256
#: Seed of the scenarios, apart from those of any evaluation.
_SEED = 50_000
TUNABLE = tuple(name for name in CONTROLLER_NAMES if name != LEARNED and TUNABLE_KEYS[name])


def tune_controllers(
    world: World,
    names: Sequence[str],
    sources: Sequence[str],
    episodes: int = EPISODES,
    progress: Callable[[str], None] = lambda _: None,
) -> TuningFile:
    """The best tunables of each named controller over ``episodes`` scenarios on the world's traces."""
    scenarios = scenarios_on(world, episodes, _SEED)

    def mean_utility(controller: Controller) -> float:
        oracle = controller.name == "hindsight"
        frames = play(world, controller, scenarios, reward="expected", oracle=oracle).frames
        return float(per_episode(frames)["utility"].mean())

    tunings: dict[str, dict[str, Any]] = {}
    reached: dict[str, float] = {}
    for name in names:
        progress(name)
        base = _states(world) if "states" in TUNABLE_KEYS[name] else {}
        best = tune(name, world.costs, world.range.utility, mean_utility, batch=episodes, base=base)
        tunings[name], reached[name] = best
    return TuningFile(world.workload, tuple(sources), episodes, reached, tunings)


def _states(world: World) -> dict[str, Any]:
    """Bandwidth states of edgent-dynamic, as this device sees the traces: through its share of the link."""
    return {"states": learn_states(world.bank, world.range.uplink_share_frac).as_tuning()}
