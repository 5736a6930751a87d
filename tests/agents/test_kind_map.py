"""The map of the best kind of decision says what pinned decisions earn in the twin, and the pictures show it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.compare import kind_map
from agents.compare.kind_map import KindMap, constant_links, map_kinds, pinned_utility
from agents.compare.map_plot import KIND_COLOURS, bandwidth_text, draw_choices, draw_kinds
from agents.compare.rollout import play
from controller.controllers.simple import FixedRow
from controller.metrics import NO_KIND, overall
from controller.records import KINDS, Decision
from controller.scenario import Scenario, ScenarioRange
from envs.setup import Setup, open_setup

DEVICE, SPLIT, OFFLOAD = range(len(KINDS))
#: From a link that carries nothing in time to one on which sending costs nothing; a quick and a very slow device.
UPLINK_BPS, SLOWDOWN = np.array([1e3, 5e7]), np.array([1.0, 200.0])


def campus() -> Setup:
    return open_setup("campus", constant_links(UPLINK_BPS), "test", {"frames": 40}, "shipped")


@pytest.fixture(scope="module")
def found() -> KindMap:
    return map_kinds(campus(), SLOWDOWN, UPLINK_BPS, kept=3, episodes=2)


def test_the_middle_of_a_range_is_geometric_for_ratios_and_arithmetic_for_loads() -> None:
    middle = ScenarioRange(fps=(4.0, 9.0), mec_load_frac=(0.2, 0.6), frames=70).middle()
    assert middle.fps == pytest.approx(6.0)
    assert middle.mec_load_frac == pytest.approx(0.4)
    assert middle.frames == 70


def test_a_pinned_decision_earns_what_a_comparison_says() -> None:
    """Dropped frames and those that a stride skips included."""
    setup = campus()
    decisions = setup.costs.space.decisions
    rows = [row for row, d in enumerate(decisions) if d.frame_stride > 1 and d.kind == "device-only"]
    sent = np.flatnonzero(setup.costs.space.kind == OFFLOAD)
    strided = min(rows, key=lambda row: setup.costs.head_s[row])
    offload = min(sent, key=lambda row: setup.costs.payload_bytes[row])
    scenario = replace(setup.range.middle(), uplink_share_frac=1.0, trace_index=1)
    scenarios = [scenario, replace(scenario, device_slowdown=170.0, seed=3)]
    for row in (strided, offload):
        played = [play(setup, FixedRow("pinned", row), [one]).frames for one in scenarios]
        expected = [overall(frames)["utility"] for frames in played]
        mine = pinned_utility(setup, np.full(2, row), scenarios, "replayed")
        known = np.isfinite(mine)
        assert known.any()
        np.testing.assert_allclose(mine[known], np.array(expected)[known])


def test_what_cannot_be_sent_leaves_the_device_alone(found: KindMap) -> None:
    assert (found.best[:, 0] == DEVICE).all()
    assert np.isnan(found.utility[:, 0, OFFLOAD]).all()
    assert (found.row[:, 0, OFFLOAD] == -1).all()


def test_a_very_slow_device_on_a_fast_link_sends_the_image(found: KindMap) -> None:
    assert found.best[1, 1] == OFFLOAD
    assert found.lead[1, 1] > 0.1
    assert found.decisions[found.row[1, 1, OFFLOAD]].kind == "offload"


def test_a_kind_is_worth_its_lead_where_it_is_best_and_nothing_elsewhere(found: KindMap) -> None:
    assert found.worth("offload")[1, 1] == found.lead[1, 1]
    assert found.worth("device-only")[1, 1] == 0.0
    others = np.nanmax(found.utility[1, 1, [DEVICE, SPLIT]])
    assert found.lead[1, 1] == pytest.approx(found.utility[1, 1, OFFLOAD] - others)


def test_lead_is_unknown_where_no_other_kind_can_be_carried_out() -> None:
    utility = np.array([[[0.5, np.nan, np.nan], [0.5, 0.7, np.nan]]])
    row = np.array([[[0, -1, -1], [0, 1, -1]]])
    decisions = (Decision("net", 28, 0, 4, "none"), Decision("net", 28, 0, 2, "u1"))
    made = KindMap(Scenario(), np.array([5.0]), np.array([1e4, 1e5]), utility, row, decisions)
    assert made.best.tolist() == [[DEVICE, SPLIT]]
    np.testing.assert_allclose(made.lead, [[np.nan, 0.2]])


def test_episodes_in_parts_earn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = campus()
    rows = np.arange(len(setup.costs))
    scenarios = [replace(setup.range.middle(), uplink_share_frac=1.0, trace_index=1)] * len(rows)
    at_once = pinned_utility(setup, rows, scenarios, "expected")
    monkeypatch.setattr(kind_map, "_BATCH", 7)
    np.testing.assert_array_equal(pinned_utility(setup, rows, scenarios, "expected"), at_once)


def test_a_cell_of_the_picture_has_the_colour_of_its_kind(found: KindMap, tmp_path: Path) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    path = tmp_path / "map.png"
    draw_kinds(SLOWDOWN, UPLINK_BPS, found.best, np.full((2, 2), np.nan), 1.0, "all at full colour", path)
    seen = imread(path)[:, :, :3].reshape(-1, 3)
    for kind in np.unique(found.best):
        wanted = np.array(to_rgb(list(KIND_COLOURS.values())[kind]))
        assert (np.abs(seen - wanted).max(axis=1) < 0.01).mean() > 0.02


def test_choices_of_a_policy_are_drawn_also_where_some_cells_are_empty_or_all_devices_are_equal(tmp_path: Path) -> None:
    slowdown, uplink = np.full(30, 50.0), np.geomspace(1.0, 1e7, 30)
    for number, slow in enumerate((slowdown, np.linspace(5.0, 500.0, 30))):
        path = tmp_path / f"{number}.png"
        draw_choices(slow, uplink, np.arange(30) % len(KINDS), "choices", path)
        assert path.stat().st_size > 5000
    assert NO_KIND not in range(len(KINDS))


def test_bandwidths_are_named_with_two_digits() -> None:
    named = {8e3: "8 k", 15_630: "16 k", 999_600: "1 M", 1.5e6: "1.5 M", 5e7: "50 M"}
    assert [bandwidth_text(bps) for bps in named] == list(named.values())
