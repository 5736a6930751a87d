"""A Python program serves devices with ``MecServer``, in its own thread or beside it, and sees every request."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live import ROOT, WORKLOAD, run_device_here, wait_for_file
from support.waiting import PATIENCE_S, wait_until

from controller.errors import FailureError, UsageError
from controller.records import Status
from runtime.device.device import Device
from runtime.mec.records import RequestRecord
from runtime.mec.server import MecServer

ANY_PORT = "tcp://127.0.0.1:*"
FRAMES = 20


class Kept(list[RequestRecord]):
    """A sink that keeps everything."""

    def add(self, record: RequestRecord) -> None:
        self.append(record)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def records() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def mec(records: Kept) -> Iterator[MecServer]:
    with MecServer(WORKLOAD, bind=ANY_PORT, sinks=[records]) as server:
        yield server.start()


def test_a_device_of_the_same_program_is_served_and_every_request_recorded(mec: MecServer, records: Kept) -> None:
    began_s = time.time()
    with Device(WORKLOAD, mec=mec.endpoint, decision={"partition_point": 2}, fps=50, deadline_s=5.0) as device:
        outcomes = list(device.run(frames=FRAMES))
    served = [outcome for outcome in outcomes if outcome.status is Status.OK]
    assert served
    # The last record is made after its reply was sent.
    wait_until(lambda: sum(record.ending == "served" for record in list(records)) >= len(served), "the last record")
    mine = [record for record in records if record.ending == "served"]
    assert mec.counts.served == len(mine) >= len(served)
    first = mine[0]
    assert first.decision == served[0].decision
    assert first.payload_bytes == served[0].payload_bytes
    assert began_s < (first.arrived_at or 0.0) < time.time()
    assert first.device
    assert {record.peer for record in mine} == {first.peer}
    assert all(record.queue_s >= 0.0 and record.mec_s > 0.0 for record in mine)


def test_a_server_of_the_programs_own_thread_ends_when_it_is_stopped() -> None:
    with MecServer(WORKLOAD, bind=ANY_PORT) as server:
        timer = threading.Timer(0.3, server.stop)
        timer.start()
        server.serve()
        timer.join()
        server.serve(lambda: True)  # it is stopped already
    server.close()


def test_a_port_in_use_and_what_cannot_be_is_refused_when_the_server_is_made(mec: MecServer) -> None:
    with pytest.raises(FailureError, match="in use"):
        MecServer(WORKLOAD, bind=mec.endpoint)
    with pytest.raises(UsageError, match="unknown bundle"):
        MecServer("zebras", bind=ANY_PORT)
    with pytest.raises(UsageError, match="expected tcp://HOST:PORT"):
        MecServer(WORKLOAD, bind="somewhere")


def test_the_command_logs_requests_and_reopens_the_log(tmp_path: Path) -> None:
    log, moved, ready = tmp_path / "requests.jsonl", tmp_path / "requests.1", tmp_path / "ready"
    command = [sys.executable, "-m", "mecpilot", "mec", "--workload", WORKLOAD, "--bind", ANY_PORT]
    process = subprocess.Popen(
        [*command, "--requests", str(log), "--ready-file", str(ready)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        endpoint = wait_for_file(process, ready).strip()
        ask(endpoint, tmp_path / "a")
        log.rename(moved)
        process.send_signal(signal.SIGHUP)
        wait_for_file(process, log)
        ask(endpoint, tmp_path / "b")
    finally:
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert f"reopened {log}" in err
    for path in (moved, log):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert {line["schema"] for line in lines} == {1}
        assert "served" in {line["ending"] for line in lines}


def ask(endpoint: str, log: Path) -> None:
    done = run_device_here(endpoint, log, frames=20, fps=20, deadline_ms=5000, decision={})
    assert done.code == 0, done.err
