"""What training, tuning and evaluation share: scenario files, and traces kept apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.compare.traces import families, family, hold_out
from controller.errors import UsageError
from controller.scenario import ScenarioRange
from envs.setup import range_of, traces_of
from runtime.bundles.bundle import open_bundle
from runtime.files.scenario_file import range_from
from runtime.testbed.markov_traces import builtin_traces
from runtime.workloads.garments.workload import Garments


def test_without_a_file_the_usual_range_of_the_workload_holds() -> None:
    assert range_of(None, open_bundle("garments").default_range) == Garments().scenario_range()


def test_a_scenario_file_overrides_only_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"fps": 10, "deadline_s": [0.05, 0.1], "utility": {"drop_penalty": 0.3}, "frames": 50}))
    found = range_of(path, open_bundle("garments").default_range)
    assert found.fps == (10, 10)
    assert found.deadline_s == (0.05, 0.1)
    assert found.frames == 50
    assert found.utility.drop_penalty == 0.3
    assert found.utility.energy_weight_per_j == ScenarioRange().utility.energy_weight_per_j
    assert found.rtt_s == ScenarioRange().rtt_s


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"fsp": 10}, "fsp"),
        ({"utility": {"drop": 1}}, "drop"),
        ({"fps": "fast"}, "fps"),
        ({"fps": [3, 1]}, "fps"),
        ({"fps": [1, 2, 3]}, "fps"),
        ({"frames": 1.5}, "frames"),
        ({"utility": 3}, "utility"),
        ({"frames": 0}, "frames"),
        ({"frames": -5}, "frames"),
        ({"frames": 10**12}, "frames"),
        ({"fps": 1e-9}, "frames"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"queue_limit": -1}, "queue_limit"),
        ({"fps": 0}, "fps"),
        ({"fps": []}, "fps"),
        ({"mec_load_frac": 2}, "mec_load_frac"),
        ({"device_load_frac": [-0.1, 0.5]}, "device_load_frac"),
        ({"uplink_share_frac": [0.1, 3]}, "uplink_share_frac"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"device_slowdown": [1, float("inf")]}, "device_slowdown"),
        ({"utility": {"energy_weight_per_j": -0.5}}, "energy_weight_per_j"),
        ({"utility": {"drop_penalty": float("nan")}}, "drop_penalty"),
    ],
)
def test_what_is_no_field_or_no_bound_is_refused_by_name(overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        range_from(overrides, "s.json", ScenarioRange())
    assert "s.json" in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_value_of_the_wrong_type_is_answered_with_what_its_field_takes() -> None:
    with pytest.raises(UsageError, match=r"^s\.json: frames: got 1\.5; expected a whole number$"):
        range_from({"fps": 3, "frames": 1.5}, "s.json", ScenarioRange())


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "nonsense"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="JSON object"):
        range_of(path, open_bundle("garments").default_range)


def test_a_missing_scenario_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json"):
        range_of(tmp_path / "none.json", open_bundle("garments").default_range)


def test_no_trace_both_teaches_and_judges_a_training() -> None:
    bank = builtin_traces("train")
    learn, judge = hold_out(bank)
    assert {trace.name for trace in learn}.isdisjoint({trace.name for trace in judge})
    assert len(learn) + len(judge) == len(bank)
    assert len(learn) > 3 * len(judge) > 0


def test_a_bank_too_small_to_be_split_serves_both_purposes() -> None:
    one = type(builtin_traces("train"))(builtin_traces("train").traces[:1])
    learn, judge = hold_out(one)
    assert [t.name for t in learn] == [t.name for t in judge] == [one.traces[0].name]


def test_the_family_of_a_trace_is_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "lte"
    folder.mkdir()
    (folder / "ride.csv").write_text("t_s,uplink_mbps\n0,1\n1,2\n")
    bank = traces_of([folder], "train")
    assert families(bank) == ["lte"]
    assert family(bank.traces[0]) == "lte"


def test_built_in_test_traces_are_not_those_of_the_training() -> None:
    train, test = (traces_of([], split) for split in ("train", "test"))
    assert {t.name for t in train.traces}.isdisjoint({t.name for t in test.traces})
    assert set(families(test)) - set(families(train)), "no family is new to a trained policy"
