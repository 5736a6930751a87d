"""Speed of work in pieces: steps/s over one, two, ... workers, and what a worker's start and a piece's way cost.

``python -m benchmarks.bench_scale`` plays the same groups of episodes with more and more worker processes, then (where
Ray is installed) on a local Ray cluster. From the costs it projects the speed with up to 1,000 workers: the asking
process hands out pieces and takes results one after the other, so it limits the speed when pieces are short or results
are large.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from agents.compare.evaluation import SIDE_BY_SIDE, Entrants
from agents.compare.rollout import scenarios_on
from agents.compare.spread import Spread
from agents.scale.pieces import Job
from agents.scale.processes import Processes
from agents.scale.runner import Runner, fan_out, workers
from controller.scenario import Scenario
from envs.setup import Setup, open_setup, traces_of
from runtime.cores import usable_cores
from runtime.observe.tables import table_console

#: The best of so many measurements counts.
TIMES = 3
#: Number of pieces whose handling is measured, and bytes of a large result.
FEW, LARGE = 20, 10_000_000
PROJECTED = (1, 2, 10, 100, 1000)
#: Kinds of pieces: seconds on one core, and bytes of the result. A try of a tuning, a group of 512 episodes, a training
#: of 300,000 steps.
KINDS = {"tuning": (0.3, 10), "evaluation": (1.0, 10_000_000), "training": (120.0, 1_000_000)}


@dataclass(frozen=True)
class Costs:
    """What a runner costs."""

    start_s: float  # until the first worker that has imported the twin answers
    small_s: float  # CPU time of the asking process for a piece with a small result
    per_byte_s: float  # more, for each byte of a result

    def handling_s(self, result_bytes: float) -> float:
        """Time that the asking process needs for a piece."""
        return self.small_s + self.per_byte_s * result_bytes

    def speedup(self, count: int, piece_s: float, result_bytes: float) -> float:
        """Of ``count`` workers over one core without any costs, start excluded."""
        return piece_s / max((piece_s + self.handling_s(result_bytes)) / count, self.handling_s(result_bytes))


def payload(common: Any, own: Any, reached: Callable[[int], None]) -> Any:
    """A piece that takes no time: so many bytes."""
    import envs.twin.twin  # noqa: F401 - what a real piece imports

    return bytes(own)


def measured(open_runner: Callable[[], AbstractContextManager[Runner]]) -> Costs:
    """The costs of a runner with one worker."""
    job = Job.of("benchmarks.bench_scale:payload", None)
    begin_s = time.monotonic()
    with open_runner() as runner:
        fan_out(runner, job, [0])
        start_s = time.monotonic() - begin_s
        small_s, large_s = (_seconds_per_piece(runner, job, size) for size in (10, LARGE))
    return Costs(start_s, small_s, max(large_s - small_s, 0.0) / LARGE)


def _seconds_per_piece(runner: Runner, job: Job, size: int) -> float:
    """CPU time of this process, which other programs on the machine do not change much."""
    begin_s = time.process_time()
    fan_out(runner, job, [size] * FEW)
    return (time.process_time() - begin_s) / FEW


def steps_per_s(runner: Runner, setup: Setup, scenarios: Sequence[Scenario]) -> float:
    """Frames of an evaluation per second, after the workers have started and opened what they need."""
    spread, entrants = Spread(runner), Entrants(("greedy",))
    spread.play(setup, entrants, scenarios, lambda _: None)
    seconds = []
    for _ in range(TIMES):
        begin_s = time.monotonic()
        spread.play(setup, entrants, scenarios, lambda _: None)
        seconds.append(time.monotonic() - begin_s)
    return sum(scenario.frames for scenario in scenarios) / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=4, help="groups of 512 episodes that are played")
    options = parser.parse_args()
    console = table_console()
    console.print(f"{usable_cores()} cores; load {os.getloadavg()[0]:.1f} before the start")
    setup = open_setup("campus", traces_of([], "test"), "test", profile="shipped")
    scenarios = scenarios_on(setup, options.groups * SIDE_BY_SIDE, 0)
    table = Table("workers", "steps/s", caption="evaluation of greedy, campus")
    with workers(1) as runner:
        table.add_row("this process", f"{steps_per_s(runner, setup, scenarios):,.0f}")
    for count in range(1, usable_cores() + 1):
        with Processes(count) as runner:
            table.add_row(str(count), f"{steps_per_s(runner, setup, scenarios):,.0f}")
    console.print(table)
    show(console, "processes", measured(lambda: Processes(1)))
    if importlib.util.find_spec("ray"):
        show(console, "Ray", measured(lambda: workers(1, "local")))


def show(console: Any, name: str, costs: Costs) -> None:
    """The costs, and the projected speed-ups."""
    console.print(
        f"{name}: start {costs.start_s:.1f} s; a piece costs {1e3 * costs.small_s:.1f} ms, and "
        f"{1e9 * costs.per_byte_s:.1f} ms more per MB of its result"
    )
    table = Table("workers", *KINDS, caption="projected speed-up")
    for count in PROJECTED:
        table.add_row(f"{count:,}", *(f"{costs.speedup(count, *kind):,.1f}" for kind in KINDS.values()))
    console.print(table)


if __name__ == "__main__":
    main()
