"""Gated early exits: the device in simulated time and the twin end every frame alike, at every exit on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.gated import (
    FAST,
    GATE,
    GATED_LOCAL,
    GATED_SPLIT,
    GATED_STRIDE,
    LOCAL,
    OFFLOAD,
    SPLIT,
    every_row,
    gated_costs,
)
from support.plain_features import plain_features
from support.same_episode import assert_rows_play_alike, assert_same
from support.simulated import Simulation
from support.synthetic import make_state

from controller.features.fast import Features
from controller.records import Status
from controller.utility import Utility
from runtime.bundles.bundle import open_bundle

FRAMES = 60
TEST = open_bundle("campus").recorded("test")


def simulation(times: float = 3.0, **options: Any) -> Simulation:
    defaults: dict[str, Any] = {"frames": FRAMES, "fps": 8.0, "deadline_s": 0.3}
    return Simulation(costs=gated_costs(times), recorded=TEST, **(defaults | options))


MIXED = [GATED_SPLIT, OFFLOAD, GATED_LOCAL, SPLIT, GATED_SPLIT, GATED_STRIDE, LOCAL, FAST]


@pytest.mark.parametrize(
    "options",
    [{}, {"times": 10.0}, {"uplink_bps": [5e5]}],
    ids=["fast", "slow", "narrow"],
)
@pytest.mark.parametrize("rows", [[GATED_SPLIT], [GATED_LOCAL], [GATED_STRIDE], MIXED], ids=str)
def test_device_and_twin_end_every_frame_alike(rows: list[int], options: dict[str, Any]) -> None:
    played = np.resize(rows, FRAMES)
    sim = simulation(**options)
    outcomes = assert_same(sim, played, [])
    assert any(o.early_exit is not None for o in outcomes)
    for outcome in outcomes:
        if outcome.early_exit is not None:
            assert outcome.decision is not None
            assert outcome.decision.gate == GATE
            assert outcome.payload_bytes == outcome.uplink_bytes == 0
            assert outcome.early_exit < outcome.decision.exit_branch


def test_the_first_exit_that_is_sure_answers_and_the_others_go_on() -> None:
    gates = gated_costs().gates
    assert gates is not None
    outcomes = simulation().run(lambda _: GATED_SPLIT)
    taken = gates.taken(TEST.confidence)[GATED_SPLIT]
    exits = {int(path): int(gates.exit_branch[path - gates.rows]) for path in taken if path != GATED_SPLIT}
    assert len(exits) == 2
    for o in outcomes:
        if o.status is Status.OK:
            path = int(taken[o.source_index])
            assert o.early_exit == exits.get(path)
            assert (o.payload_bytes == 0) == (path in exits)
            assert o.score == pytest.approx(TEST.score[gated_costs().paths.space.variant[path], o.source_index])


def test_features_of_gated_rows_are_means_over_their_paths() -> None:
    costs, state = gated_costs(), make_state(200, seed=1)
    _, plain = plain_features(costs, Utility(), state)
    _, compiled = Features(costs, Utility()).of(state)
    np.testing.assert_allclose(compiled, plain, rtol=2e-5, atol=2e-5)
    fast = np.concatenate([Features(costs, Utility()).of(state.take(np.array([b])))[1] for b in range(200)])
    close = np.isclose(fast, compiled, rtol=1e-3, atol=1e-3)
    assert close.mean() > 0.999  # rounding decides a few thresholds
    without = costs.take(np.flatnonzero(~costs.space.gated))
    _, ungated = plain_features(without, Utility(), state)
    best = costs.accuracy_per_frame.max() - without.accuracy_per_frame.max()
    np.testing.assert_allclose(plain[:, SPLIT, 1:9], ungated[:, 0, 1:9], rtol=1e-6)
    assert best == pytest.approx(0.0, abs=0.02)


def test_expected_accuracy_is_what_the_validation_split_replays() -> None:
    costs, recorded = gated_costs(), open_bundle("campus").recorded("validation")
    assert costs.gates is not None
    taken = costs.gates.taken(recorded.confidence)
    variant, samples = costs.paths.space.variant, np.arange(recorded.score.shape[1])
    for row in np.flatnonzero(costs.space.gated):
        replayed = recorded.score[variant[taken[row]], samples]
        assert costs.accuracy[row] == pytest.approx(replayed.mean(), abs=1e-5)
        assert costs.gates.end_frac[row] == pytest.approx((taken[row] == row).mean())
    assert costs.head_s[GATED_SPLIT] > costs.head_s[SPLIT]  # heads on the way cost time


def test_gated_rows_change_nothing_for_the_others() -> None:
    bundle, every = open_bundle("campus"), every_row()
    plain = np.flatnonzero(~every.space.gated)
    alone = every.take(plain)
    assert alone.gates is None
    assert alone.space.digest == bundle.space.digest
    costs = gated_costs()
    rows = (SPLIT, LOCAL, FAST, OFFLOAD)
    assert_rows_play_alike((costs.take(np.array(rows)), costs), TEST, enumerate(rows))


def test_fallbacks_never_run_gated_rows() -> None:
    costs = gated_costs()
    assert not costs.space.gated[costs.local_frontier].any()
    sim = simulation(6.0)
    sim.mec.reachable = False
    outcomes = sim.run(lambda _: GATED_SPLIT)
    fallen = [o for o in outcomes if o.status is Status.FALLBACK]
    assert len(fallen) > FRAMES // 2
    assert all(o.decision is not None and o.decision.gate == 0 and o.early_exit is None for o in fallen)
