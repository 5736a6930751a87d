"""Controllers are compared on the same episodes, in one form of report, in the twin as with real processes."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.synthetic import random_policy

import mecpilot
from agents.compare import evaluation
from agents.compare.evaluation import Entrants, chosen_names, compare_in_twin, compare_live, default_seeds
from agents.compare.report import Comparison, as_json, example_episodes
from agents.compare.rollout import paired_scenarios, spread_scenarios
from agents.compare.tables import NAME_COLUMNS, ranking_table, tables
from agents.compare.timelines import of_outcomes, of_twin
from agents.compare.trained_on import DIGESTS, digests_of
from agents.runs.run_lock import locked
from controller.controllers.registry import CONTROLLER_NAMES, ORACLE
from controller.metrics import Frames, Interval, per_episode
from controller.predict.uplink import Trace, TraceBank
from controller.records import STATUSES, BreakdownMs, Decision, Outcome, Status
from controller.scenario import Scenario, ScenarioRange
from envs.setup import Setup, open_setup
from runtime.files import policy_file as policy_file_module
from runtime.files.policy_file import load_policy, save_policy
from runtime.profiling.profile import shipped_path
from runtime.testbed.markov_traces import builtin_traces

FRAMES = 25
PER_CONTROLLER = {"utility", "slo_attainment", "accuracy", "goodput_fps", "latency_ms", "payload_kbytes"}
#: A camera too quick for its device, so that some frames are dropped.
BUSY = ScenarioRange(fps=(25.0, 30.0), device_slowdown=(150.0, 200.0), frames=FRAMES)


@pytest.fixture(scope="module")
def setup() -> Setup:
    few = TraceBank(builtin_traces("test").traces[::8])
    return open_setup("garments", few, "test", BUSY)


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    save_policy(tmp_path / "p.safetensors", random_policy(), "garments", {}, {})
    return tmp_path / "p.safetensors"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``mecpilot evaluate`` on small episodes."""
    options = ("--workload", "garments", "--seeds", "1", "--frames", str(FRAMES))
    code = mecpilot.main(["evaluate", *options, *map(str, arguments)])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_a_report_names_what_it_rests_on(capsys: pytest.CaptureFixture[str], policy_file: Path) -> None:
    arguments = ("--controllers", "edgent,ppo", "--policy", policy_file, "--profile", "shipped")
    _, out, _ = run(capsys, *arguments, "--json", "-")
    found = json.loads(out)["provenance"]
    assert found["workload"] == "garments"
    assert found["profile"]["origin"] == found["tuning"]["origin"] == "shipped"
    assert [policy["path"] for policy in found["policies"]] == [str(policy_file)]
    assert found["policies"][0]["digest"] == hashlib.sha256(policy_file.read_bytes()).hexdigest()[:12]
    assert len(found["bundle_digest"]) == 64
    assert found["version"]
    _, shown, _ = run(capsys, *arguments)
    assert f"profile shipped ({found['profile']['digest']})" in " ".join(shown.split())


def test_two_evaluations_do_not_mix_in_one_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with locked(tmp_path / "out", "evaluating"):
        code, _, err = run(capsys, "--controllers", "edgent", "--out", tmp_path / "out")
    assert code == 2
    assert f"is evaluating in {tmp_path / 'out'}; wait until it ends, or choose another --out" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_figures_from_this_machines_profile_say_how_to_compare_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = tmp_path / "profile.json"
    copy.write_bytes(shipped_path("garments").read_bytes())
    _, shown, _ = run(capsys, "--controllers", "device-only", "--profile", copy)
    assert "--profile shipped" in shown
    _, shown, _ = run(capsys, "--controllers", "device-only", "--profile", "shipped")
    assert "--profile shipped" not in shown


def write_traces(folder: Path, count: int, scale: float = 1.0) -> Path:
    folder.mkdir()
    for number in range(count):
        rows = "".join(f"{t},{scale * (1 + number + t % 3):g}\n" for t in range(20))
        (folder / f"t{number}.csv").write_text("t_s,uplink_mbps\n" + rows)
    return folder


@pytest.mark.parametrize("with_digests", [True, False])
def test_traces_that_a_policy_was_trained_on_are_named_as_such(
    with_digests: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    known, other = write_traces(tmp_path / "known", 3), write_traces(tmp_path / "other", 2, scale=5.0)
    training: dict[str, Any] = {"traces": [str(known)]}
    if with_digests:
        training |= {DIGESTS: digests_of([str(known)]), "traces": ["/gone"]}
    save_policy(tmp_path / "p.safetensors", random_policy(), "garments", training, {})
    (tmp_path / "renamed.csv").write_bytes((known / "t1.csv").read_bytes())
    arguments = ("--controllers", "ppo", "--policy", tmp_path / "p.safetensors")

    def told(*traces: Path) -> str:
        options = [option for path in traces for option in ("--traces", path)]
        return " ".join(run(capsys, *arguments, *options)[1].split())

    assert "3 of 3 traces were trained on" in told(known)
    assert "1 of 3 traces were trained on" in told(other, tmp_path / "renamed.csv")
    assert "trained on" not in told(other)


def test_a_policy_whose_training_traces_are_gone_is_not_called_clean(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    save_policy(tmp_path / "p.safetensors", random_policy(), "garments", {"traces": [str(tmp_path / "gone")]}, {})
    _, shown, _ = run(capsys, "--controllers", "ppo", "--policy", tmp_path / "p.safetensors")
    assert "unknown which traces it was trained on" in " ".join(shown.split())


def test_a_policy_for_another_workload_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save_policy(tmp_path / "p.safetensors", random_policy(), "campus", {}, {})
    code, _, err = run(capsys, "--controllers", "ppo", "--policy", tmp_path / "p.safetensors")
    assert (code, err.count("\n")) == (2, 1)
    assert "trained for workload campus, expected garments" in err


def test_a_policy_for_several_workloads_is_taken_for_each(tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    save_policy(path, random_policy(), "campus", {"workloads": ["campus", "garments"]}, {})
    for workload in ("campus", "garments"):
        assert load_policy(path, workload)[1].workloads == ("campus", "garments")


def check_interval(value: dict[str, Any]) -> None:
    low, high = value["ci95"]
    assert low <= value["mean"] <= high


def test_the_report_has_the_form_of_the_contract(capsys: pytest.CaptureFixture[str], policy_file: Path) -> None:
    names = ["ppo", "edgent", "random", "greedy-oracle"]
    code, out, _ = run(capsys, "--controllers", ",".join(names), "--policy", policy_file, "--json", "-")
    report = json.loads(out)
    assert code == 0
    assert (report["workload"], report["backend"], report["seeds"]) == ("garments", "twin", 1)
    assert report["traces"] == ["built-in test traces"]
    assert list(report["controllers"]) == names
    for found in report["controllers"].values():
        assert found.keys() >= PER_CONTROLLER
        assert set(found["latency_ms"]) == {"p50", "p95", "p99"}
        for metric in PER_CONTROLLER - {"latency_ms"}:
            check_interval(found[metric])
        shares = [found[f"{name}_frac"]["mean"] for name in ("in_time", "skipped", "late", "dropped")]
        assert sum(shares) == pytest.approx(1.0)
        assert found["slo_attainment"]["mean"] == pytest.approx(shares[0] / (1 - shares[1]))
        assert set(found["run_as"]) == {"device-only", "split", "offload"}
        assert sum(found["run_as"].values()) == pytest.approx(1.0)
        assert sum(found["answered_on"].values()) == pytest.approx(1.0)
    for difference in report["ppo_minus"].values():
        check_interval(difference)
    if "gap_closed" in report:  # absent where it is within chance
        check_interval(report["gap_closed"])


def test_table_report_and_plots_are_left_where_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, policy_file: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("--controllers", "edgent,ppo", "--policy", policy_file, "--out", out, "--json", tmp_path / "r.json")
    code, shown, _ = run(capsys, *arguments)
    assert code == 0
    assert "ppo minus edgent (best classical)" in shown
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads((out / "evaluation.json").read_text())
    pictures = {f"timeline_{kind}_{name}.png" for kind in ("typical", "hard") for name in ("edgent", "ppo")}
    assert {path.name for path in out.glob("*.png")} == pictures | {"compared.png"}


def frames_of(setup: Setup, *names: str, seeds: int = 2) -> dict[str, Frames]:
    found = compare_in_twin(setup, Entrants(names), ["few"], seeds)
    return {name: copies[0] for name, copies in found.runs.items()}


def assert_same(one: Frames, other: Frames) -> None:
    for name in Frames.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_controller_differs_from_itself_by_exactly_nothing(setup: Setup) -> None:
    entrants = Entrants(("edgent-dynamic",))
    first, second = (compare_in_twin(setup, entrants, ["few"], 2) for _ in range(2))
    runs = {"ppo": first.runs["edgent-dynamic"], "edgent-dynamic": second.runs["edgent-dynamic"]}
    both = Comparison("garments", "twin", ("few",), 2, first.families, runs)
    assert both.difference("ppo", "edgent-dynamic") == Interval(0.0, 0.0, 0.0)


def test_what_a_controller_meets_depends_on_nobody_else(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = frames_of(setup, "edgent")["edgent"]
    assert_same(alone, frames_of(setup, "random", "edgent")["edgent"])
    monkeypatch.setattr(evaluation, "SIDE_BY_SIDE", 4)
    in_groups = frames_of(setup, "edgent")["edgent"]
    order = [np.lexsort((f.latency_s, f.utility, f.episode)) for f in (alone, in_groups)]
    for name in ("episode", "utility", "latency_s"):
        np.testing.assert_array_equal(getattr(alone, name)[order[0]], getattr(in_groups, name)[order[1]])


def test_every_frame_counts_once_also_the_dropped_ones(setup: Setup) -> None:
    told: list[int] = []
    comparison = compare_in_twin(setup, Entrants(("mec-only", "device-only")), ["few"], 2, told.append)
    for (frames,) in comparison.runs.values():
        assert np.bincount(frames.episode).tolist() == [FRAMES] * 2 * len(setup.bank)
    assert any(frames.dropped.any() for (frames,) in comparison.runs.values())
    assert sum(told) == 2 * FRAMES * 2 * len(setup.bank)


def test_several_policies_are_copies_of_one_controller(setup: Setup) -> None:
    entrants = Entrants(("ppo", "edgent"), [random_policy(0), random_policy(1)])
    report = as_json(compare_in_twin(setup, entrants, ["few"], 1))
    per_policy = report["ppo_per_policy"]
    assert len(set(per_policy)) == 2
    assert report["controllers"]["ppo"]["utility"]["mean"] == pytest.approx(np.mean(per_policy))


def test_by_default_all_that_can_run_are_compared() -> None:
    assert chosen_names(None, has_policy=True, live=False) == CONTROLLER_NAMES
    assert set(CONTROLLER_NAMES) - set(chosen_names(None, has_policy=False, live=True)) == {"ppo", "greedy-oracle"}
    assert chosen_names(" edgent, random,edgent", has_policy=False, live=False) == ("edgent", "random")


def test_many_traces_get_few_scenarios_each() -> None:
    assert [default_seeds(traces) for traces in (1, 64, 300, 5000)] == [8, 8, 1, 1]


def test_few_scenarios_are_spread_over_the_traces_and_are_those_of_the_twin(setup: Setup) -> None:
    three = spread_scenarios(setup, 3)
    assert len({scenario.trace_index // (len(setup.bank) // 3) for scenario in three}) == 3
    assert all(scenario in paired_scenarios(setup, [0]) for scenario in three)
    assert len(spread_scenarios(setup, 2 * len(setup.bank) + 1)) == 2 * len(setup.bank) + 1


def test_a_timeline_shows_every_frame(setup: Setup) -> None:
    comparison = compare_in_twin(setup, Entrants(("mec-only",)), ["few"], 1)
    frames = comparison.runs["mec-only"][0]
    episode = int(np.bincount(frames.episode, weights=frames.dropped).argmax())
    scenario = paired_scenarios(setup, [0])[episode]
    timeline = of_twin(setup, Entrants(("mec-only",)).make("mec-only", setup, 1)[0], scenario)
    np.testing.assert_allclose(timeline.t_s, np.arange(FRAMES) / scenario.fps)
    assert (timeline.row < 0).sum() == frames.dropped[frames.episode == episode].sum() > 0
    assert [timeline.figures[name] for name in ("utility", "dropped_frac")] == pytest.approx(
        [per_episode(frames)[name][episode] for name in ("utility", "dropped_frac")]
    )
    assert set(example_episodes(comparison)) == {"typical", "hard"}


def test_a_live_timeline_is_in_order_of_capture_whatever_ended_first() -> None:
    decision = Decision("net", 28, 1, 4, "none")
    ended = [
        Outcome(f, f, Status.OK, 10.0 + f, 100.0, 0, 0.0, 1.0, decision, BreakdownMs(), 1, 1, 1.0) for f in (2, 0, 3, 1)
    ]
    trace = Trace("steps/up", np.arange(4.0), np.array([1e6, 2e6, 3e6, 4e6]), 1.0)
    timeline = of_outcomes("device-only", ended, Scenario(fps=1.0), trace)
    assert timeline.t_s.tolist() == [0, 1, 2, 3]
    assert timeline.uplink_mbps.tolist() == [1, 2, 3, 4]
    assert timeline.latency_ms == pytest.approx([10, 11, 12, 13])


def frames_with(in_time: list[int], utility: list[float], of: int = 10) -> Frames:
    """Episodes of ``of`` frames: some in time and the others late, all of them with the same utility."""
    ok, late = STATUSES.index(Status.OK), STATUSES.index(Status.LATE)
    status = np.concatenate([np.where(np.arange(of) < count, ok, late) for count in in_time]).astype(np.int8)
    count, each = len(status), np.repeat(utility, of)
    return Frames(
        episode=np.repeat(np.arange(len(in_time)), of),
        status=status,
        kind=np.zeros(count, np.int8),
        answered_by=np.zeros(count, np.int8),
        utility=each,
        score=each,
        latency_s=np.full(count, 0.1),
        payload_bytes=np.zeros(count),
        energy_j=np.zeros(count),
        capture_period_s=np.full(count, 0.1),
        streaming=np.full(count, np.nan),
    )


def compared(families: int = 1, **runs: Frames) -> Comparison:
    episodes = len(np.unique(next(iter(runs.values())).episode))
    names = tuple(f"a_family_of_traces_with_a_long_name_{number % families}" for number in range(episodes))
    return Comparison("campus", "twin", ("few",), 1, names, {name: (frames,) for name, frames in runs.items()})


def test_episodes_that_nobody_can_serve_are_counted_and_left_out_of_a_second_result() -> None:
    one, other = frames_with([10, 0, 0, 0], [0.8, 0, 0, 0]), frames_with([0, 0, 5, 0], [0, 0, 0.4, 0])
    report = as_json(compared(ppo=one, edgent=other))
    servable = report["servable"]
    assert (servable["episodes"], servable["unservable_frac"]) == (2, 0.5)
    assert report["controllers"]["ppo"]["utility"]["mean"] == pytest.approx(0.2)
    assert servable["controllers"]["ppo"]["utility"]["mean"] == pytest.approx(0.4)
    assert servable["controllers"]["ppo"]["slo_attainment"]["mean"] == pytest.approx(0.5)
    assert servable["ppo_minus"]["edgent"]["mean"] == pytest.approx(0.2)


def test_a_long_name_is_broken_after_a_separator() -> None:
    table = ranking_table(comparison := compared(**{"sb3-campus_agent": frames_with([10], [0.8])}), as_json(comparison))
    assert list(table.columns[0].cells) == ["sb3-campus_\nagent"]


def test_a_bound_stands_beside_the_controllers_and_none_is_above_it(
    capsys: pytest.CaptureFixture[str], policy_file: Path, tmp_path: Path
) -> None:
    arguments = ("--controllers", "edgent,greedy-oracle,ppo", "--policy", policy_file, "--bound", "--frames", "20")
    code, out, _ = run(capsys, *arguments, "--json", tmp_path / "r.json", "--out", tmp_path / "out")
    report = json.loads((tmp_path / "r.json").read_text())
    assert code == 0
    assert set(report["controllers"]) == {"edgent", "greedy-oracle", "ppo", "bound", "bound-expected"}
    utility = {name: row["utility"]["mean"] for name, row in report["controllers"].items()}
    assert max(utility, key=lambda name: utility[name]) == "bound"
    assert report["below_bound"]["mean"] == pytest.approx(utility["bound"] - utility["ppo"])
    assert f"{report['below_bound']['mean']:.4f} below the bound" in " ".join(out.split())
    assert (tmp_path / "out" / "timeline_typical_bound.png").exists()


def test_a_frame_in_time_by_the_bound_alone_makes_an_episode_servable() -> None:
    nobody, bound = frames_with([0, 0], [0.1, 0.1]), frames_with([0, 1], [0.2, 0.2])
    assert compared(edgent=nobody, **{ORACLE: bound}).servable.tolist() == [False, True]
    found = as_json(compared(edgent=nobody))
    assert found["servable"] == {"episodes": 0, "unservable_frac": 1.0}
    json.dumps(found, allow_nan=False)
    assert found["controllers"]["edgent"]["accuracy"] == {"mean": None, "ci95": None, "episodes_without": 2}


def test_example_episodes_are_servable_ones_in_which_controllers_differ() -> None:
    in_time = [0, 5, 5, 5, 5, 5, 5, 5]
    best = frames_with(in_time, [0.9, 0.5, 0.5, 0.5, 0.9, 0.8, 0.3, 0.7])
    middle = frames_with(in_time, [0.1, 0.5, 0.5, 0.5, 0.5, 0.4, 0.1, 0.2])
    found = example_episodes(compared(ppo=best, edgent=middle, greedy=middle))
    assert set(found.values()) <= {4, 5, 6, 7}
    assert found["hard"] == 6


@pytest.mark.parametrize("controllers", [1, 2, 11])
def test_tables_have_at_most_80_columns_and_cut_nothing(controllers: int) -> None:
    runs = {name: frames_with([9, 5, 0], [0.8, 0.3, -0.1]) for name in CONTROLLER_NAMES[:controllers]}
    comparison = compared(families=2, **runs)
    console = Console(width=80, file=io.StringIO(), record=True)
    for table in tables(comparison, as_json(comparison)):
        console.print(table)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    assert "\u2026" not in shown
    short = [name for name in runs if len(name) <= NAME_COLUMNS]  # longer ones are broken after a hyphen
    assert all(name in shown for name in (*short, *comparison.families))
    for word in ("utility:", "deadline met:", "reused", "late", "dropped", "fallback"):
        assert word in shown


def test_the_ranking_fits_a_terminal_of_80_columns() -> None:
    frames = frames_with([9, 5, 0], [0.8, 0.3, -0.1])
    streams = replace(frames, streaming=frames.score)
    comparison = compared(**dict.fromkeys(CONTROLLER_NAMES, streams))
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(ranking_table(comparison, as_json(comparison)))
    assert max(len(line.rstrip()) for line in console.export_text().splitlines()) <= 80


def test_without_a_policy_file_the_shipped_one_competes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--controllers", "ppo", "--json", "-")
    assert code == 0
    assert list(json.loads(out)["controllers"]) == ["ppo"]


def test_a_workload_without_a_shipped_policy_asks_for_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_file_module, "SHIPPED_DIR", tmp_path)
    code, _, err = run(capsys, "--controllers", "ppo")
    assert code == 2
    assert "ppo without --policy FILE" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--controllers", "magic"], "unknown controller 'magic'; expected one of"),
        (["--controllers", ","], "got no controller"),
        (["--controllers", "edgent", "--policy", "x"], "--policy without ppo"),
        (["--controllers", "edgent", "--bound", "--live"], "got --bound with --live"),
        (["--controllers", "greedy-oracle", "--live"], "greedy-oracle knows the future and runs only in the twin"),
        (["--policy", "bad.txt"], "not a safetensors file"),
        (["--scenario", "bad.json"], "unknown field 'fsp'; expected some of: fps"),
        (["--scenario", "bad.txt"], "expected a JSON object of ScenarioRange fields"),
        (["--tuning", "bad.txt"], "expected what `mecpilot tune --out FILE` writes"),
        (["--traces", "bad.txt"], "expected one of: iperf3 -J"),
        (["--traces", "nowhere"], "expected a readable trace file"),
        (["--workload", "zebras"], "'zebras'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bad.txt").write_text("nonsense\n")
    (tmp_path / "bad.json").write_text('{"fsp": 10}')
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert expected in err


@pytest.mark.realtime
def test_real_processes_give_the_same_report() -> None:
    """Episodes of less than a second, on an idle MEC and a flat link."""
    quick = ScenarioRange(
        fps=(30.0, 30.0),
        deadline_s=(0.1, 0.2),
        device_slowdown=(5.0, 10.0),
        mec_slowdown=(2.0, 2.0),
        mec_load_frac=(0.0, 0.0),
        uplink_share_frac=(1.0, 1.0),
        frames=20,
    )
    bank = TraceBank([Trace("flat/one", np.zeros(1), np.array([20e6]), 1.0)])
    setup = open_setup("garments", bank, "test", quick)
    told: list[int] = []
    comparison, episodes = compare_live(
        setup, Entrants(("edgent", "mec-only")), ["flat"], spread_scenarios(setup, 1), progress=told.append
    )
    report = as_json(comparison)
    assert report["backend"] == "live"
    assert all(found.keys() >= PER_CONTROLLER for found in report["controllers"].values())
    assert sum(told) == 2 * 20
    for name, copies in episodes.outcomes.items():
        (outcomes,) = copies[0]
        assert [outcome.frame for outcome in outcomes] == list(range(20))
        timeline = of_outcomes(name, outcomes, episodes.scenarios[0], bank.traces[0])
        assert (timeline.row >= 0).tolist() == [outcome.decision is not None for outcome in outcomes]
        assert timeline.uplink_mbps == pytest.approx(20.0)
