"""The live benchmark's few scenarios stand for all."""

from __future__ import annotations

import numpy as np

from agents.compare.evaluation import Entrants, play_in_twin
from agents.compare.rollout import paired_scenarios
from benchmarks.bench_live import representative
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import ScenarioRange
from envs.setup import open_setup


def test_the_chosen_scenarios_are_on_different_traces_and_their_means_are_near_those_of_all() -> None:
    bank = TraceBank([Trace(f"flat/{mbps}", np.zeros(1), np.array([mbps * 1e6]), 1.0) for mbps in (0.5, 2, 8, 30)])
    setup = open_setup("garments", bank, "test", ScenarioRange(frames=30))
    drawn = paired_scenarios(setup, range(4))
    played = play_in_twin(setup, Entrants(("device-only", "mec-only")), ["flat"], 4, drawn)
    chosen = representative(played, drawn, 2)
    assert len({scenario.trace_index for scenario in chosen}) == 2
    places = [drawn.index(scenario) for scenario in chosen]

    def off(sets: list[int]) -> float:
        each = [found[metric].mean(0) for found in played.metrics.values() for metric in played.ranking_metrics]
        return float(sum((means[sets].mean() - means.mean()) ** 2 for means in each))

    others = np.random.default_rng(1).permuted(np.tile(np.arange(len(drawn)), (200, 1)), axis=1)[:, :2]
    different = [row for row in others.tolist() if drawn[row[0]].trace_index != drawn[row[1]].trace_index]
    assert off(places) <= min(off(row) for row in different)
