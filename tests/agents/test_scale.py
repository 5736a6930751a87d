"""Work in pieces: the same results whoever carries them out, whatever dies, and wherever it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.waiting import wait_until

import mecpilot
from agents.compare.evaluation import Entrants, compare_in_twin
from agents.compare.spread import Spread
from agents.runs.checkpoint import load_actor
from agents.runs.run_folder import RunFolder
from agents.runs.run_lock import locked
from agents.scale.kept import kept_until_done
from agents.scale.pieces import Job, WorkerBug, answer, carried_out, encoded, result_of
from agents.scale.processes import Processes
from agents.scale.runner import Here, fan_out
from controller.errors import FailureError, UsageError
from controller.predict.uplink import TraceBank
from controller.scenario import ScenarioRange
from envs.setup import open_setup
from runtime.testbed.markov_traces import builtin_traces

SQUARED = Job.of("support.pieces:squared", {"plus": 1})


def job(name: str, **common: Any) -> Job:
    return Job.of(f"support.pieces:{name}", common)


def tried_by(folder: Path, piece: int) -> list[int]:
    """Processes that began a piece of ``lingering``."""
    file = folder / f"piece{piece}"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def is_running(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    return False


@pytest.mark.parametrize("count", [1, 2, 3])
def test_workers_give_what_one_process_gives_in_the_same_order(count: int) -> None:
    here = fan_out(Here(), SQUARED, range(7))
    shown: list[int] = []
    with Processes(count) as workers:
        there = fan_out(workers, SQUARED, range(7), [10] * 7, shown.append)
        again = fan_out(workers, SQUARED, range(7))
    assert [r["square"] for r in here] == [r["square"] for r in there] == [n * n + 1 for n in range(7)]
    assert os.getpid() not in {r["process"] for r in there}
    assert {r["process"] for r in there} | {r["process"] for r in again} <= {r["process"] for r in [*there, *again]}
    assert len({r["process"] for r in [*there, *again]}) <= count  # they stay
    assert sum(shown) == 70


def kill_one_then_go_on(folder: Path, pieces: int) -> threading.Thread:
    """In a thread: wait until all pieces are running, kill the worker of the first, then let all of them end."""

    def act() -> None:
        wait_until(lambda: all(tried_by(folder, piece) for piece in range(pieces)))
        os.kill(tried_by(folder, 0)[0], signal.SIGKILL)
        wait_until(lambda: len(tried_by(folder, 0)) == 2)
        (folder / "go").touch()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_the_piece_of_a_killed_worker_is_carried_out_again(tmp_path: Path) -> None:
    killer = kill_one_then_go_on(tmp_path, 2)
    with Processes(2) as workers:
        assert fan_out(workers, job("lingering", folder=str(tmp_path)), range(4)) == [0, 1, 4, 9]
    killer.join()
    assert len(tried_by(tmp_path, 0)) == 2
    assert len(tried_by(tmp_path, 1)) == 1


def test_a_piece_that_kills_every_worker_ends_the_work() -> None:
    with Processes(2) as workers, pytest.raises(FailureError, match=r"died 3 times .*killed by SIGKILL"):
        fan_out(workers, job("deadly"), range(2))


def test_an_error_in_a_worker_is_raised_here() -> None:
    with Processes(1) as workers:
        with pytest.raises(UsageError, match=r"^got nothing; expected something$"):
            fan_out(workers, job("refusing"), range(1))
        with pytest.raises(WorkerBug, match="ZeroDivisionError") as raised:
            fan_out(workers, job("wrong"), range(1))
    assert "support/pieces.py" in str(raised.value.__cause__)


def test_after_an_error_nothing_of_that_work_is_left() -> None:
    with Processes(2) as workers:
        with pytest.raises(UsageError, match=r"^got nothing"):
            fan_out(workers, job("refusing"), range(2))
        assert [r["square"] for r in fan_out(workers, SQUARED, range(3))] == [1, 2, 5]


def test_a_worker_with_other_code_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^worker on \S+: its mecpilot or its packages \(\w+\) differ"):
        result_of(answer(SQUARED, encoded(1), "0" * 16, lambda _: None), other_machines=True)


def test_workers_end_with_the_process_that_asked(tmp_path: Path) -> None:
    code = (
        "from agents.scale.processes import Processes; from agents.scale.runner import fan_out\n"
        "from agents.scale.pieces import Job\n"
        f"with Processes(1) as w: fan_out(w, Job.of('support.pieces:lingering', {{'folder': {str(tmp_path)!r}}}), [0])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    worker = wait_until(lambda: tried_by(tmp_path, 0))[0]
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_running(worker))


class Stopping:
    """A runner that is interrupted after some pieces."""

    def __init__(self, after: int) -> None:
        self.after = after

    def run(self, job: Job, pieces: Any, reached: Any) -> Any:
        for number, own in enumerate(pieces):
            if number == self.after:
                raise KeyboardInterrupt
            yield number, carried_out(job, own, lambda _: None)


class Counting(Here):
    """Counts the pieces that it is given."""

    def __init__(self) -> None:
        self.given = 0

    def run(self, job: Job, pieces: Any, reached: Any) -> Any:
        self.given += len(pieces)
        return super().run(job, pieces, reached)


def test_what_an_interrupted_run_finished_is_not_done_again(tmp_path: Path) -> None:
    folder, told, shown = tmp_path / "pieces", list[str](), list[int]()
    with pytest.raises(KeyboardInterrupt), kept_until_done(told.append, folder) as kept:
        fan_out(Stopping(3), SQUARED, range(5), kept=kept)
    assert len(list(folder.iterdir())) == 3
    counting = Counting()
    with kept_until_done(told.append, folder) as kept:
        fan_out(counting, job("squared", plus=2), range(5), kept=kept)  # other arguments: nothing is used
        assert counting.given == 5
        found = fan_out(counting, SQUARED, range(5), progress=shown.append, kept=kept)
    assert counting.given == 7
    assert [result["square"] for result in found] == [1, 2, 5, 10, 17]
    assert sum(shown) == 5
    assert told == [
        "interrupted; the same command goes on from what is finished",
        "going on from what an interrupted run of this command finished",
    ]
    assert not folder.exists()


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:-1] + b"\x07"])
def test_damaged_results_are_computed_again_and_one_line_says_so(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    folder, told = tmp_path / "pieces", list[str]()
    with pytest.raises(KeyboardInterrupt), kept_until_done(lambda _: None, folder) as kept:
        fan_out(Stopping(3), SQUARED, range(5), kept=kept)
    for file in sorted(folder.iterdir())[:2]:
        file.write_bytes(damage(file.read_bytes()))
    counting = Counting()
    with kept_until_done(told.append, folder) as kept:
        found = fan_out(counting, SQUARED, range(5), kept=kept)
    assert counting.given == 4
    assert [result["square"] for result in found] == [1, 2, 5, 10, 17]
    assert sum("is damaged; such pieces" in line for line in told) == 1
    assert not folder.exists()


def test_without_a_place_for_results_the_work_is_done_and_a_line_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "pieces").touch()
    with kept_until_done(told.append, tmp_path / "pieces") as kept:
        assert len(fan_out(Here(), SQUARED, range(3), kept=kept)) == 3
    assert len(told) == 1
    assert "would begin anew" in told[0]


def test_a_comparison_on_workers_is_the_one_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.compare.evaluation.SIDE_BY_SIDE", 8)
    monkeypatch.setattr("agents.compare.spread.SIDE_BY_SIDE", 8)
    few = TraceBank(builtin_traces("test").traces[::12])
    setup = open_setup("garments", few, "test", ScenarioRange(frames=10), "shipped")
    entrants = Entrants(("greedy", "random", "greedy-oracle"), tunings={"greedy": {"margin": 0.8}})
    shown: list[int] = []
    here = compare_in_twin(setup, entrants, ["few"], 2)
    with Processes(2) as workers:
        there = compare_in_twin(setup, entrants, ["few"], 2, shown.append, Spread(workers).play)
    assert here.runs.keys() == there.runs.keys()
    assert sum(shown) == 3 * 2 * len(few) * 10
    for name in here.runs:
        for column in here.runs[name][0].__dataclass_fields__:
            one, other = (getattr(found.runs[name][0], column) for found in (here, there))
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--out", "OUT", "--seeds", "0-"], "got --seeds 0-; expected numbers and ranges"),
        (["train", "--out", "OUT", "--seeds", "4-0"], "got --seeds 4-0; expected ranges of 1 to"),
        (["train", "--out", "OUT", "--seeds", "0-1", "--seed", "3"], "got --seeds with --seed"),
        (["train", "--out", "OUT", "--seeds", "0-1", "--resume"], "got --seeds with --seed, --resume"),
        (["train", "--out", "OUT", "--jobs", "2"], "got --jobs 2 without --seeds"),
        (["evaluate", "--live", "--ray", "local"], "got --ray local with --live"),
        (["evaluate", "--jobs", "0"], "--jobs 0; expected a whole number from 1 to 4096"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    assert mecpilot.main([str(out) if argument == "OUT" else argument for argument in arguments]) == 2
    assert expected in capsys.readouterr().err
    assert not out.exists()


def test_without_ray_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert mecpilot.main(["tune", "--ray", "local", "--out", str(tmp_path / "t.json")]) == 2
    assert "--ray needs the package ray 2.60 or newer" in capsys.readouterr().err


def test_two_trainings_into_one_folder_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path):
        assert mecpilot.main(["train", "--workload", "garments", "--seeds", "0-1", "--out", str(tmp_path)]) == 2
    assert f"is training in {tmp_path}; wait until it ends" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["somewhere", "host:port", "127.0.0.1:1", "ray://127.0.0.1:1", "LISTENING", "ray://LISTENING"]
)
def test_an_address_without_ray_is_one_line_within_ten_seconds(
    address: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = address.replace("LISTENING", f"127.0.0.1:{silent.getsockname()[1]}")
        begin_s = time.monotonic()
        assert mecpilot.main(["tune", "--ray", address, "--out", str(tmp_path / "t.json")]) == 2
        assert time.monotonic() - begin_s < 60
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--ray {address}" in line
    assert "expected" in line


def test_a_ray_cluster_gives_the_same_and_outlives_a_worker(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from agents.scale.cluster import Cluster

    with Cluster("local", 2) as cluster:
        killer = kill_one_then_go_on(tmp_path, 2)
        assert fan_out(cluster, job("lingering", folder=str(tmp_path)), range(4)) == [0, 1, 4, 9]
        killer.join()
        assert len(tried_by(tmp_path, 0)) == 2
        found = fan_out(cluster, SQUARED, range(5), [10] * 5)
        assert [result["square"] for result in found] == [1, 2, 5, 10, 17]
        with pytest.raises(UsageError, match=r"^worker on \S+: got nothing; expected something$"):
            fan_out(cluster, job("refusing"), range(1))


def weights(run: Path) -> np.ndarray:
    """The weights that a run has reached, in one array."""
    policy = load_actor(RunFolder(run).latest_checkpoint())
    return np.concatenate([getattr(policy, name).ravel() for name in policy.__dataclass_fields__])


@pytest.mark.slow
def test_trainings_of_several_seeds_go_on_after_ctrl_c_and_are_the_same_on_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    range_ = tmp_path / "range.json"
    range_.write_text(json.dumps({"frames": 10}))

    def command(out: str, seeds: str, *more: str) -> list[str]:
        how = ["--scenario", str(range_), "--profile", "shipped", "--steps", "64"]
        return ["train", "--workload", "garments", "--out", str(tmp_path / out), "--seeds", seeds, *how, *more]

    here, there = tmp_path / "here", tmp_path / "there"
    arguments = command("here", "0-1", "--jobs", "1")
    with monkeypatch.context() as interrupted:
        interrupted.setattr("agents.scale.runner.Here", lambda: Stopping(1))
        assert mecpilot.main(arguments) == 130
    assert "keeps the trainings that are finished" in capsys.readouterr().err
    before = (here / "seed-0" / "held_out.json").stat()
    assert not (here / "seed-1" / "config.json").exists()

    assert mecpilot.main(arguments) == 0
    assert (here / "seed-0" / "held_out.json").stat().st_ino == before.st_ino
    assert "seed 1: " in capsys.readouterr().out
    assert mecpilot.main(command("there", "1", "--jobs", "2")) == 0
    np.testing.assert_array_equal(weights(here / "seed-1"), weights(there / "seed-1"))
    assert not np.array_equal(weights(here / "seed-0"), weights(here / "seed-1"))

    assert mecpilot.main(command("here", "0-1", "--steps", "65")) == 2
    assert "seed-0 holds a finished training run of garments" in capsys.readouterr().err
    assert mecpilot.main([*arguments, "--overwrite"]) == 0
    assert (here / "seed-0" / "held_out.json").stat().st_ino != before.st_ino
    assert "seed 0 is in" in capsys.readouterr().err
