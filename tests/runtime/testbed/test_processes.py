"""Device and MEC as real processes on loopback: right answers, honest logs, orderly ends."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.live import HELD_UP, ROOT, WORKLOAD, Finished, device, is_running, run_device, run_device_here
from support.waiting import PATIENCE_S, wait_until

from controller.records import Decision
from controller.scenario import Scenario
from runtime.building import training_run
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.config.sections.admission import OPEN_OPTIONS
from runtime.profiling.profile import load_costs
from runtime.testbed.processes import RunningMec, running_mec, running_neighbours

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mec() -> Iterator[RunningMec]:
    with running_mec(WORKLOAD) as running:
        yield running


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(WORKLOAD)


def answers_as_recorded(bundle: Bundle, finished: Finished) -> float:
    """Share of answers that are those which the bundle recorded for the same sample and decision."""
    label = bundle.recorded("test").label
    assert label is not None
    same = []
    for outcome in finished.outcomes:
        fields = {name: outcome["decision"][name] for name in Decision.__dataclass_fields__}
        same.append(label[bundle.variant(Decision(**fields)), outcome["source_index"]] == outcome["prediction"])
    return float(np.mean(same))


@pytest.mark.parametrize(
    "decision",
    [
        {"payload": "raw"},
        {"payload": "png", "resolution_px": 14},
        {"model": "alexnet", "partition_point": 2, "exit_branch": 3, "payload": "u8"},
        {"model": "vgg", "partition_point": 3, "payload": "u4"},
        {"model": "mobilenet", "payload": "none", "exit_branch": 0},
    ],
    ids=["raw", "png", "u8", "u4", "local"],
)
def test_what_the_network_answers_is_what_was_recorded(
    decision: dict[str, object], mec: RunningMec, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.device.loop.CONNECT_WAIT_S", PATIENCE_S)
    done = run_device_here(
        mec.endpoint, tmp_path / "log", decision=decision, frames=60, fps=0, start=40, deadline_ms=10_000
    )
    assert done.code == 0
    done.check_most("ok", 60)
    assert [outcome["source_index"] for outcome in done.outcomes] == list(range(40, 100))
    assert answers_as_recorded(bundle, done.only("ok")) >= 0.98  # another machine may round the last bit otherwise
    assert all(decision.items() <= outcome["decision"].items() for outcome in done.outcomes)


@pytest.fixture(scope="module")
def served(mec: RunningMec, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A device in a process of its own that the MEC served."""
    log = tmp_path_factory.mktemp("served") / "log"
    return run_device(mec.endpoint, log, decision={}, frames=20, fps=50, deadline_ms=5000, json="-")


def test_the_log_has_the_fields_of_the_contract(served: Finished) -> None:
    outcome = served.only("ok").outcomes[-1]
    assert {
        "frame", "source_index", "status", "latency_ms", "deadline_ms", "payload_bytes", "utility",
        "decision", "breakdown_ms", "prediction", "truth", "score",
    } <= set(outcome)  # fmt: skip
    decided = {"model", "resolution_px", "exit_branch", "partition_point", "payload", "frame_stride", "gate", "crop"}
    assert set(outcome["decision"]) == decided
    terms = outcome["breakdown_ms"]
    assert set(terms) == {"wait", "decide", "head", "uplink", "queue", "tail", "downlink"}
    assert sum(terms.values()) == pytest.approx(outcome["latency_ms"], abs=0.5)
    assert outcome["payload_bytes"] == 784
    assert outcome["uplink_bytes"] == 784 + 19 + 11 + 2 * 52
    assert outcome["deadline_ms"] == 5000
    assert outcome["score"] == float(outcome["prediction"] == outcome["truth"])


def test_results_go_to_stdout_and_logs_to_stderr(served: Finished) -> None:
    assert json.loads(served.out)["frames"] == 20
    assert "the link is up" in served.err


def test_a_classical_controller_is_served(mec: RunningMec, tmp_path: Path) -> None:
    done = run_device_here(mec.endpoint, tmp_path / "log", controller="edgent", frames=20, fps=50, json="-")
    assert json.loads(done.out)["frames"] == 20
    assert "the link is up" in done.err


def test_the_shaped_uplink_takes_the_time_of_the_trace(mec: RunningMec, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("t_s,uplink_mbps\n0,2\n1,2\n")
    done = run_device_here(
        mec.endpoint, tmp_path / "log", decision={}, frames=40, fps=20, deadline_ms=5000,
        uplink=trace, uplink_share=0.25, rtt_ms=20,
    )  # fmt: skip
    # On a busy machine single terms move by milliseconds in both directions (a late wake-up ends one term and shortens
    # the next), and most of them get longer, so the quicker ones of the typical frames show the link.
    terms = [outcome["breakdown_ms"] for outcome in done.only("ok").outcomes]
    uplink_ms, downlink_ms = (np.percentile([t[name] for t in terms], 30) for name in ("uplink", "downlink"))
    assert uplink_ms == pytest.approx(784 * 8 / 0.5e3 + 10, rel=0.5)
    assert downlink_ms == pytest.approx(10, rel=0.5)


def test_slow_devices_and_mecs_are_emulated(tmp_path: Path, bundle: Bundle) -> None:
    costs = load_costs(bundle)
    decision = Decision("alexnet", 28, 4, 1, "u8")
    row = costs.space.index(decision)
    with running_mec(WORKLOAD, slowdown=20.0) as slow:
        done = run_device_here(
            slow.endpoint, tmp_path / "log", frames=20, fps=10, deadline_ms=5000, slowdown=60,
            decision={name: getattr(decision, name) for name in Decision.__dataclass_fields__},
        )  # fmt: skip
    terms = [outcome["breakdown_ms"] for outcome in done.only("ok").outcomes]
    assert min(t["head"] for t in terms) == pytest.approx(costs.head_s[row] * 60e3, rel=0.1)
    assert min(t["tail"] for t in terms) == pytest.approx(costs.mec_s[row] * 20e3, rel=0.1)


def test_one_device_never_changes_anothers_answers(mec: RunningMec, bundle: Bundle, tmp_path: Path) -> None:
    """Three at once, with other models, cuts and samples; each gets what it would get alone."""
    mixed = [
        {"decision": {"model": "vgg"}, "start": 0},
        {"decision": {"model": "alexnet", "partition_point": 1, "exit_branch": 2, "payload": "u8"}, "start": 300},
        {"decision": {"model": "mobilenet", "resolution_px": 14}, "start": 600},
    ]
    common = {"frames": 80, "fps": 50, "deadline_ms": 10_000}
    with (
        device(mec.endpoint, tmp_path / "0", **mixed[0], **common) as first,
        device(mec.endpoint, tmp_path / "1", **mixed[1], **common) as second,
        device(mec.endpoint, tmp_path / "2", **mixed[2], **common) as third,
    ):
        for running in (first, second, third):
            done = running.finish()
            done.check_no_frame_lost(80)
            answered = done.only("ok")
            assert len(answered.outcomes) >= 10
            assert answers_as_recorded(bundle, answered) >= 0.98


def test_sigterm_drains_the_device(mec: RunningMec, tmp_path: Path) -> None:
    with device(mec.endpoint, tmp_path / "log", decision={}, frames=100_000, fps=50) as running:
        running.wait_for_outcomes(10)
        done = running.stop()
    assert done.code == 0
    done.check_no_frame_lost()
    assert len(done.outcomes) >= 10
    assert "frames" in done.out  # the summary is still printed


def test_sigterm_drains_the_mec_and_the_device_goes_on(tmp_path: Path) -> None:
    with (
        running_mec(WORKLOAD, slowdown=12.0) as leaving,
        device(leaving.endpoint, tmp_path / "log", decision={}, frames=1_000_000, fps=20, deadline_ms=1000) as running,
    ):
        running.wait_for_outcomes(10)
        leaving.process.send_signal(signal.SIGTERM)
        assert leaving.process.wait(PATIENCE_S) == 0
        running.wait_for_outcomes(running.outcomes_so_far() + 30)
        done = running.stop()
    assert done.code == 0
    done.check_no_frame_lost()
    assert "fallback" in {outcome["status"] for outcome in done.outcomes[-20:]} <= HELD_UP
    assert "the link is down" in done.err


def test_sigterm_ends_the_workers_of_a_training_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mecpilot", "models", "train", "--workload", WORKLOAD, "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT) as training:
        children = Path(f"/proc/{training.pid}/task/{training.pid}/children")
        # The first child tracks resources.
        workers = wait_until(lambda: (found := children.read_text().split())[1:] and found, "the start of a worker")
        training.terminate()
        assert training.wait(PATIENCE_S) == 128 + signal.SIGTERM
    wait_until(lambda: not any(is_running(int(worker)) for worker in workers), "the end of the workers")


def test_stopping_passes_over_a_worker_that_a_signal_kept_from_starting() -> None:
    training_run._stop([multiprocessing.get_context("spawn").Process(target=print)])


def test_neighbours_load_the_mec_as_the_scenario_says(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    scenario = Scenario(frames=40, fps=10.0, mec_load_frac=0.5, mec_slowdown=8.0, seed=4)
    with running_mec(WORKLOAD, slowdown=8.0, options=OPEN_OPTIONS) as loaded:
        with running_neighbours(loaded.endpoint, WORKLOAD, scenario) as others:
            others.begin()
            assert others.process is not None
            others.process.wait(PATIENCE_S)
        loaded.process.send_signal(signal.SIGTERM)
        loaded.process.wait(PATIENCE_S)
    served = re.search(r"served (\d+)", capfd.readouterr().err)
    assert served is not None
    asked_s = float(scenario.mec_load().sum())
    served_s = int(served[1]) * load_costs(bundle).neighbour_mec_s * 8.0
    assert 0.4 * asked_s < served_s < 1.25 * asked_s  # a machine that is held up serves less


def test_a_port_in_use_is_told_in_one_line(mec: RunningMec) -> None:
    command = ["-m", "mecpilot", "mec", "--bind", mec.endpoint, "--workload", WORKLOAD]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "port is in use" in done.stderr
