"""The profile: measured on this machine, bound to its bundle, and joined into the cost table."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.once import once

import mecpilot
import runtime.profiling.measure
from controller.errors import UsageError
from controller.records import NO_PAYLOAD
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.cli import profile as profile_commands
from runtime.profiling import profile as profiles
from runtime.profiling.exit_heads import exit_times
from runtime.profiling.measure import MIN_ROUNDS, measure_sides
from runtime.profiling.profile import (
    FORMAT_VERSION,
    Profile,
    candidates,
    cost_table,
    exit_key,
    head_key,
    load_costs,
    merge,
    read_profile,
    write_profile,
)
from runtime.workloads.registry import get_workload


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("garments")


@pytest.fixture(scope="module")
def measured(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """As few rounds as there can be: about three seconds."""

    def measure(path: Path) -> None:
        done: list[float] = []
        found = measure_sides(bundle, get_workload("garments"), ("device", "mec"), 1.0, done.append)
        assert done == sorted(done)
        assert done[-1] == 1.0
        write_profile(path, Profile(FORMAT_VERSION, "garments", bundle.digest, found["device"], found["mec"]))

    return read_profile(once(tmp_path_factory, "measured.json", measure), bundle)


def test_every_segment_of_the_bundle_is_measured_once(bundle: Bundle, measured: Profile) -> None:
    decisions = bundle.space.decisions
    assert measured.device is not None
    assert measured.mec is not None
    exits = {
        exit_key(model.name, px, e, after)
        for model in bundle.manifest.models
        for px in bundle.manifest.resolutions_of(model)
        for e, after in enumerate(model.exit_after[:-1])
    }
    assert {s.key for s in measured.device.segments} == {head_key(d) for d in decisions} | exits
    assert len(measured.mec.segments) == sum(d.payload != NO_PAYLOAD for d in decisions)
    for segment in (*measured.device.segments, *measured.mec.segments):
        assert 0 < segment.median_s <= segment.p95_s < 10
        assert segment.regression_s > 0
    assert measured.device.machine.threads == 1
    assert measured.device.machine.rounds >= MIN_ROUNDS


def test_exit_heads_cost_what_was_measured_and_else_what_the_regressions_say(bundle: Bundle, measured: Profile) -> None:
    assert measured.device is not None
    known = exit_times(bundle, measured, "measured")
    own = {s.key: s.median_s for s in measured.device.segments}
    assert known("vgg", 28, 1) == own[exit_key("vgg", 28, 1, 4)]
    heads = tuple(s for s in measured.device.segments if s.key.codec != "exit")
    older = msgspec.structs.replace(measured, device=msgspec.structs.replace(measured.device, segments=heads))
    assert 0 < exit_times(bundle, older, "measured")("vgg", 28, 1) < own[exit_key("vgg", 28, 1, 4)] * 20


def test_both_errors_are_reported_and_regressions_are_no_copy_of_the_measurements(measured: Profile) -> None:
    for side in (measured.device, measured.mec):
        assert side is not None
        for error in (side.errors.regression, side.errors.layers, side.errors.segments):
            assert error.count == len(side.segments)
            assert 0 < error.mape_frac < 2  # loose: the machine may be busy with other tests
            assert 0 < error.rmse_s < 0.1
        assert side.errors.regression.mape_frac > 0.02


def test_regressions_are_edgents_and_non_negative(measured: Profile) -> None:
    assert measured.device is not None
    regressions = measured.device.regressions
    assert {"conv", "relu", "pool", "fc"} <= set(regressions)
    for model in regressions.values():
        assert model.intercept_s >= 0
        assert min(model.coefficients_s) >= 0
    assert len(regressions["conv"].coefficients_s) == len(regressions["fc"].coefficients_s) == 2


def test_costs_cover_the_whole_space_and_follow_from_what_runs(bundle: Bundle, measured: Profile) -> None:
    costs = cost_table(bundle, measured)
    assert costs.space.digest == bundle.space.digest
    alone = costs.space.device_only
    assert (costs.head_s > 0).all()
    assert (costs.mec_s[alone] == 0).all()
    assert (costs.mec_s[~alone] > 0).all()
    assert (costs.payload_bytes[alone] == 0).all()
    assert (costs.payload_bytes[~alone] > 0).all()
    assert (costs.accuracy > 0.3).all()
    assert (costs.accuracy <= 1).all()


def test_a_deeper_cut_moves_time_from_the_mec_to_the_device(bundle: Bundle, measured: Profile) -> None:
    costs = cost_table(bundle, measured)
    last = max(d.exit_branch for d in costs.space.decisions if d.model == "resnet")
    rows = [
        row
        for row, d in enumerate(costs.space.decisions)
        if (d.model, d.resolution_px, d.exit_branch) == ("resnet", 28, last) and d.payload in ("raw", "u8")
    ]
    assert costs.head_s[rows[0]] < costs.head_s[rows[-1]]
    assert costs.mec_s[rows[0]] > costs.mec_s[rows[-1]]


def test_costs_by_regression_differ_but_agree_in_scale(bundle: Bundle, measured: Profile) -> None:
    by_segment, by_layer = cost_table(bundle, measured), cost_table(bundle, measured, "regression")
    assert (by_segment.head_s != by_layer.head_s).any()
    sent = ~by_segment.space.device_only
    ratio = np.concatenate([by_layer.head_s / by_segment.head_s, by_layer.mec_s[sent] / by_segment.mec_s[sent]])
    assert 0.4 < np.median(ratio) < 1.6


def test_candidates_are_few_and_hold_every_local_answer_worth_having(bundle: Bundle, measured: Profile) -> None:
    costs = cost_table(bundle, measured)
    chosen = candidates(costs, bundle.default_range)
    assert 5 < len(chosen) <= 48
    quickest = costs.head_s[costs.space.device_only].min()
    assert chosen.head_s[chosen.space.device_only].min() <= quickest + 0.05 * np.median(costs.head_s)


def test_a_written_profile_reads_back_equal(tmp_path: Path, bundle: Bundle, measured: Profile) -> None:
    path = tmp_path / "deep" / "p.json"
    write_profile(path, measured)
    assert read_profile(path, bundle) == measured
    assert [p.name for p in path.parent.iterdir()] == ["p.json"]


def test_the_users_own_profile_goes_before_the_shipped_one(
    tmp_path: Path, bundle: Bundle, measured: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECPILOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(profiles, "SHIPPED_DIR", tmp_path / "shipped")
    with pytest.raises(UsageError, match=r"there is no profile .* `mecpilot profile --workload garments`"):
        load_costs(bundle)
    write_profile(tmp_path / "shipped" / "garments.json", measured)
    np.testing.assert_array_equal(load_costs(bundle).head_s, cost_table(bundle, measured).head_s)
    write_profile(profiles.default_out(bundle), slower(measured))
    np.testing.assert_allclose(load_costs(bundle).head_s, 2 * cost_table(bundle, measured).head_s)


def test_the_word_shipped_names_the_shipped_profile(
    tmp_path: Path, bundle: Bundle, measured: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECPILOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(profiles, "SHIPPED_DIR", tmp_path)
    write_profile(tmp_path / "garments.json", measured)
    write_profile(profiles.default_out(bundle), slower(measured))
    np.testing.assert_array_equal(load_costs(bundle, Path("shipped")).head_s, cost_table(bundle, measured).head_s)
    origins = [
        profiles.used_profile(bundle, given).origin for given in (Path("shipped"), None, tmp_path / "garments.json")
    ]
    assert origins == ["shipped", "this machine's", "given"]


def slower(measured: Profile) -> Profile:
    assert measured.device is not None
    doubled = tuple(msgspec.structs.replace(s, median_s=2 * s.median_s) for s in measured.device.segments)
    return msgspec.structs.replace(measured, device=msgspec.structs.replace(measured.device, segments=doubled))


def test_a_profile_of_another_bundle_is_refused_with_the_way_out(
    tmp_path: Path, bundle: Bundle, measured: Profile
) -> None:
    path = tmp_path / "p.json"
    write_profile(path, msgspec.structs.replace(measured, bundle_digest="f" * 64))
    with pytest.raises(UsageError, match=r"measured with bundle ffffffffffff.* run `mecpilot profile"):
        load_costs(bundle, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a profile"),
        (b"[1, 2]", "is not a profile"),
        (b'{"format_version": 1}', "is not a profile"),
        (b'{"format_version": 99, "anything": 1}', "got profile format 99, expected 1"),
        (b"\xff\x00", "is not a profile"),
    ],
)
def test_a_file_that_is_no_profile_is_one_line(tmp_path: Path, bundle: Bundle, content: bytes, said: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as raised:
        load_costs(bundle, path)
    assert "\n" not in str(raised.value)


def test_a_profile_that_is_not_there_is_a_usage_error(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_costs(bundle, tmp_path / "absent.json")


def test_sides_of_two_machines_are_merged(bundle: Bundle, measured: Profile) -> None:
    device = msgspec.structs.replace(measured, mec=None)
    mec = msgspec.structs.replace(slower(measured))
    merged = merge(device, mec)
    assert merged.device == measured.device
    assert merged.mec == measured.mec
    with pytest.raises(UsageError, match="no mec side"):
        cost_table(bundle, device)
    with pytest.raises(UsageError, match="two bundles"):
        merge(device, msgspec.structs.replace(mec, bundle_digest="0" * 64))


def test_a_profile_that_lacks_a_segment_names_it(bundle: Bundle, measured: Profile) -> None:
    assert measured.mec is not None
    short = msgspec.structs.replace(measured.mec, segments=measured.mec.segments[1:])
    with pytest.raises(UsageError, match="lacks the mec's time of SegmentKey"):
        cost_table(bundle, msgspec.structs.replace(measured, mec=short))


def test_the_command_measures_reports_and_writes(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile_commands, "QUICK_BUDGET_S", 0.5)
    monkeypatch.setattr(runtime.profiling.measure, "QUICK_ROUNDS", 2)  # how well it measures is tested above
    whole, device = tmp_path / "whole.json", tmp_path / "device.json"
    assert mecpilot.main(["profile", "--workload", "garments", "--quick", "--out", str(whole)]) == 0
    shown = capsys.readouterr().out
    assert "layer regressions, summed" in " ".join(shown.split())
    assert "profile written to" in shown
    command = ["profile", "--workload", "garments", "--quick", "--side", "device"]
    command += ["--merge", str(whole), "--out", str(device), "--json", "-"]
    assert mecpilot.main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["bundle_digest"] == bundle.digest
    assert summary["device"]["errors"]["regression"]["mape_frac"] > 0
    assert read_profile(device).mec == read_profile(whole).mec
    assert read_profile(device).device != read_profile(whole).device


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workload", "toys"], "unknown workload 'toys'"),
        (["--side", "cloud"], "unknown side 'cloud'; expected one of: device, mec"),
        (["--merge", "x.json"], "--merge without --side"),
        (["--bundle", "nowhere"], "unknown bundle 'nowhere'"),
    ],
)
def test_what_cannot_be_profiled_is_one_line_and_exit_code_two(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main(["profile", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_shipped_profile_belongs_to_the_shipped_bundle(bundle: Bundle) -> None:
    costs = cost_table(bundle, read_profile(profiles.shipped_path("garments"), bundle))
    assert len(costs) == len(bundle.space)
