"""What goes wrong in service costs no frame: dead, hung and hostile peers, full disks, and mistakes of the user."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.live import WORKLOAD, device, run_device, run_device_here
from support.stranger import Stranger
from support.waiting import PATIENCE_S

import mecpilot
from benchmarks.support.hostile import Hostile, encoded, polite
from controller.records import BreakdownMs, Decision, Outcome, Status
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.manifest import encode_manifest
from runtime.files import policy_file
from runtime.observe.record_log import OUTCOMES, RecordLog, line_of
from runtime.observe.repeats import AT_ONCE
from runtime.profiling.profile import read_profile, shipped_path, write_profile
from runtime.protocol import wire
from runtime.testbed.processes import RunningMec, running_mec

#: Slow enough that a request is mostly being served, quick enough to keep up with 30 frames a second.
SLOW = 12.0
FOREVER = 1_000_000
UNHURRIED = {"deadline_ms": 1000}
LIVE = {"decision": {}, "fps": 20, "deadline_ms": 1000}


@pytest.fixture(scope="module")
def mec() -> Iterator[RunningMec]:
    with running_mec(WORKLOAD) as running:
        yield running


class TestDeadAndHungMec:
    def test_a_mec_killed_in_mid_request_costs_no_frame_and_its_successor_is_used(self, tmp_path: Path) -> None:
        with (
            running_mec(WORKLOAD, slowdown=SLOW) as first,
            device(first.endpoint, tmp_path / "log", frames=FOREVER, **LIVE) as running,
        ):
            running.wait_for_outcomes(10)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            running.wait_for_status("fallback", after=running.outcomes_so_far())
            with running_mec(WORKLOAD, bind=first.endpoint):
                running.wait_for_status("ok", after=running.outcomes_so_far())
                done = running.stop()
        assert done.code == 0
        done.check_no_frame_lost()

    def test_a_hung_mec_costs_no_frame_and_its_late_answers_change_nothing(self, tmp_path: Path) -> None:
        with (
            running_mec(WORKLOAD, slowdown=SLOW) as hung,
            device(hung.endpoint, tmp_path / "log", frames=FOREVER, **LIVE) as running,
        ):
            running.wait_for_outcomes(20)
            hung.process.send_signal(signal.SIGSTOP)
            alone = running.outcomes_so_far()
            running.wait_for_status("fallback", after=alone)
            running.wait_for_outcomes(alone + 40)
            back = running.outcomes_so_far()
            hung.process.send_signal(signal.SIGCONT)
            running.wait_for_status("ok", after=back + 20)
            done = running.stop()
        assert done.code == 0
        done.check_no_frame_lost()
        assert "nothing heard" in done.err

    def test_without_a_mec_the_device_answers_alone_and_says_so(self, tmp_path: Path) -> None:
        done = run_device_here("tcp://127.0.0.1:9", tmp_path / "log", frames=60, fps=20, decision={}, json="-")
        assert done.code == 0
        done.check_most("fallback", 60)
        assert done.err.count("no MEC at tcp://127.0.0.1:9 yet (connection refused): answering locally") == 1
        link = json.loads(done.out)["link"]
        assert (link["welcomed"], link["up_frac"], link["link_downs"]) == (False, 0.0, 0)

    @pytest.mark.realtime
    def test_who_requires_a_mec_is_told_that_none_was_met(self, capsys: pytest.CaptureFixture[str]) -> None:
        options = [
            "--mec",
            "tcp://nowhere.invalid:5577",
            "--plain",
            "--require-mec",
            "--frames",
            "5",
            "--fps",
            "50",
            "--json",
            "-",
        ]
        assert mecpilot.main(["device", "--workload", WORKLOAD, *options]) == 1
        assert "no MEC was met at tcp://nowhere.invalid:5577" in capsys.readouterr().err.splitlines()[-1]

    def test_device_and_mec_meet_over_ipv6(self, tmp_path: Path) -> None:
        with running_mec(WORKLOAD, bind="tcp://[::1]:*") as six:
            assert six.endpoint.startswith("tcp://[::1]:")
            done = run_device_here(six.endpoint, tmp_path / "log", frames=20, fps=20, decision={}, deadline_ms=5000)
        assert done.code == 0
        done.check_no_frame_lost(20)
        assert "ok" in done.statuses

    def test_a_signal_ends_even_a_head_that_is_emulated_for_minutes(self, tmp_path: Path) -> None:
        slow = {"slowdown": 10_000, "controller": "device-only", "frames": FOREVER, "fps": 10, "deadline_ms": 60_000}
        with device("tcp://127.0.0.1:9", tmp_path / "log", **slow) as running:
            running.wait_for_outcomes(3)  # dropped ones
            began_s = time.monotonic()
            done = running.stop()
            assert time.monotonic() - began_s < 30.0  # the head takes minutes
        assert done.code == 0
        assert "frames" in done.out
        done.check_no_frame_lost()


SPACE = open_bundle(WORKLOAD).space
PATIENCE_MS = int(1e3 * PATIENCE_S)
BUDGET_MS = 60_000


def row_of(**decision: object) -> int:
    return SPACE.pin(decision, Decision("alexnet", 28, 4, 0, "raw"))


GOOD = wire.InferRequest(7, row_of(), BUDGET_MS)


class TestHostilePeers:
    def greet(self, peer: Stranger, bundle: Bundle) -> None:
        assert isinstance(peer.ask(wire.Hello("test", bundle.held)), wire.Welcome)

    def test_the_mec_survives_garbage_and_answers_the_next_good_request(self, mec: RunningMec) -> None:
        bundle = open_bundle(WORKLOAD)
        header, payload = wire.encode(GOOD, bytes(784))
        with Stranger(mec.endpoint, PATIENCE_MS) as peer:
            for parts in (
                [b""], [b"garbage"], [header[:9], payload], [header], [header, payload, payload],
                [os.urandom(3000), os.urandom(50_000)], [wire.PREAMBLE + b"\xc1"], [b"x"] * 40,
            ):  # fmt: skip
                peer.socket.send_multipart(parts)
            self.greet(peer, bundle)
            assert isinstance(peer.ask(GOOD, bytes(784)), wire.InferReply)

    def test_an_oversized_message_costs_its_sender_the_connection_and_no_one_else(self, mec: RunningMec) -> None:
        bundle = open_bundle(WORKLOAD)
        with Stranger(mec.endpoint, PATIENCE_MS) as loud, Stranger(mec.endpoint, PATIENCE_MS) as quiet:
            self.greet(quiet, bundle)
            loud.socket.send_multipart([b"x", bytes(wire.MAX_PART_BYTES + 1)])
            assert isinstance(quiet.ask(GOOD, bytes(784)), wire.InferReply)

    def test_bytes_that_are_not_zeromq_are_ignored(self, mec: RunningMec) -> None:
        host, port = mec.endpoint.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))) as raw, Stranger(mec.endpoint, PATIENCE_MS) as peer:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(4096))
            self.greet(peer, open_bundle(WORKLOAD))

    @pytest.mark.parametrize(
        ("changes", "payload", "reason"),
        [
            ({"row": len(SPACE)}, bytes(784), wire.RejectReason.ILLEGAL),
            ({"row": row_of(partition_point=5)}, b"x", wire.RejectReason.ILLEGAL),
            ({"row": row_of(resolution_px=14)}, bytes(784), wire.RejectReason.PAYLOAD),
            ({}, bytes(783), wire.RejectReason.PAYLOAD),
            ({}, bytes(1 << 20), wire.RejectReason.PAYLOAD),
            ({"row": row_of(payload="png")}, b"\x89PNG garbage", wire.RejectReason.PAYLOAD),
            ({"remaining_budget_ms": 0}, bytes(784), wire.RejectReason.EXPIRED),
        ],
        ids=["row", "device-only", "shape", "short", "long", "png", "budget"],
    )
    def test_an_impossible_request_is_rejected_with_its_reason(
        self, changes: dict[str, object], payload: bytes, reason: wire.RejectReason, mec: RunningMec
    ) -> None:
        with Stranger(mec.endpoint, PATIENCE_MS) as peer:
            self.greet(peer, open_bundle(WORKLOAD))
            answer = peer.ask(msgspec.structs.replace(GOOD, **changes), payload)
            assert isinstance(answer, wire.Reject)
            assert (answer.request_id, answer.reason) == (7, reason)
            assert isinstance(peer.ask(GOOD, bytes(784)), wire.InferReply)

    def test_a_full_queue_rejects_and_does_not_grow(self) -> None:
        with (
            running_mec(WORKLOAD, slowdown=10 * SLOW, options=("--queue-limit", "4")) as slow,
            Stranger(slow.endpoint, PATIENCE_MS) as peer,
        ):
            self.greet(peer, open_bundle(WORKLOAD))
            for request_id in range(1, 21):
                request = msgspec.structs.replace(GOOD, request_id=request_id)
                peer.socket.send_multipart(wire.encode(request, bytes(784)))
            answers = [wire.decode(peer.socket.recv_multipart())[0] for _ in range(20)]
        busy = [a for a in answers if isinstance(a, wire.Reject) and a.reason is wire.RejectReason.BUSY]
        assert 5 <= len(busy) <= 16  # while a busy machine keeps this process from sending, the MEC serves some
        served = [a.request_id for a in answers if isinstance(a, wire.InferReply)]
        assert served == sorted(served)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_floods_of_all_kinds_cost_the_mec_neither_memory_nor_log(capfd: pytest.CaptureFixture[str]) -> None:
    bundle = open_bundle(WORKLOAD)
    other = msgspec.structs.replace(bundle.held, workload="x" * 64)
    floods = [
        [os.urandom(1000), os.urandom(100_000)],
        [wire.PREAMBLE + os.urandom(60)],
        [b"MP\x02" + msgspec.msgpack.encode({"type": "hello", "device": "camera", "bundle_digest": ""})],
        wire.encode(wire.Hello("loud", other)),
        wire.encode(wire.Hello("loud", bundle.held)),
        [*wire.encode(wire.Ping(1)), bytes(4096)],
        [*wire.encode(wire.Ping(1)), bytes(1 << 20)],
        wire.encode(msgspec.structs.replace(GOOD, row=row_of(payload="png")), bytes(700)),
        wire.encode(GOOD, bytes(1 << 20)),
    ]
    with (
        running_mec(WORKLOAD) as mec,
        Stranger(mec.endpoint, PATIENCE_MS) as loud,
        Stranger(mec.endpoint, PATIENCE_MS) as quiet,
    ):
        assert isinstance(quiet.ask(wire.Hello("quiet", bundle.held)), wire.Welcome)
        assert isinstance(quiet.ask(GOOD, bytes(784)), wire.InferReply)
        before = resident_bytes(mec.process.pid)
        for flood in floods:
            for _ in range(300):
                loud.socket.send_multipart(flood)
        assert isinstance(quiet.ask(GOOD, bytes(784)), wire.InferReply)
        assert resident_bytes(mec.process.pid) - before < 200 << 20
    assert len(capfd.readouterr().err.splitlines()) < 4 * AT_ONCE + 8


class TestMecThatLies:
    def test_outputs_that_are_no_numbers_are_answered_locally(self, tmp_path: Path) -> None:
        held = open_bundle(WORKLOAD).held

        def lie(message: wire.AnyMessage) -> list[list[bytes]]:
            if isinstance(message, wire.InferRequest):
                reply = wire.InferReply(message.request_id, 0, 100)
                return [encoded(reply, np.full(10, np.nan, np.float32).tobytes())]
            return polite(held)(message)

        with Hostile(lie) as liar:
            done = run_device(
                liar.endpoint, tmp_path / "log", frames=40, fps=20, deadline_ms=400, decision={}, json="-"
            )
        assert done.code == 0
        done.check_most("fallback", 40)
        assert 5 <= json.loads(done.out)["link"]["peer_faults"] < 15  # then it is asked ever more seldom
        assert "replies in a row were wrong" in done.err

    def test_a_flood_costs_no_frame(self, tmp_path: Path) -> None:
        with Hostile(polite(open_bundle(WORKLOAD).held), flood=[b"garbage"]) as loud:
            done = run_device(loud.endpoint, tmp_path / "log", frames=60, fps=20, decision={}, **UNHURRIED)
        assert done.code == 0
        done.check_most("fallback", 60)
        assert done.err.count("\n") < 200


def other_bundle(folder: Path) -> tuple[Path, Path, Bundle]:
    """The shipped bundle with a remark in its manifest, hence another digest, and the profile that belongs to it."""
    shipped = open_bundle(WORKLOAD)
    shutil.copytree(shipped.directory, folder / "bundle")
    training = shipped.manifest.training | {"remark": {"by": "test"}}
    changed = msgspec.structs.replace(shipped.manifest, training=training)
    (folder / "bundle" / "manifest.json").write_bytes(encode_manifest(changed))
    bundle = open_bundle(folder / "bundle")
    profile = msgspec.structs.replace(read_profile(shipped_path(WORKLOAD)), bundle_digest=bundle.digest)
    write_profile(folder / "profile.json", profile)
    return folder / "bundle", folder / "profile.json", bundle


def test_another_bundle_is_named_and_costs_no_frame(mec: RunningMec, tmp_path: Path) -> None:
    directory, profile, bundle = other_bundle(tmp_path)
    done = run_device_here(
        mec.endpoint, tmp_path / "log", bundle=directory, profile=profile, frames=30, fps=30, decision={}
    )
    assert done.code == 1
    done.check_most("fallback", 30)
    (told,) = [line for line in done.err.splitlines() if "link is refused" in line]
    assert bundle.digest[:12] in told
    assert open_bundle(WORKLOAD).digest[:12] in told


def an_outcome(frame: int) -> Outcome:
    return Outcome(frame, frame, Status.OK, 1.0, 100.0, 784, 0.001, 1.0, None, BreakdownMs(), 3, 3, 1.0)


class TestFullDisk:
    def test_every_frame_is_answered_and_the_exit_code_tells(self, mec: RunningMec) -> None:
        done = run_device_here(
            mec.endpoint, Path("/dev/full"), frames=20, fps=20, decision={}, json="-", deadline_ms=5000
        )
        assert done.code == 1
        assert sum(json.loads(done.out)["status"].values()) == 20
        assert "20 outcomes could not be written" in done.err
        assert done.err.count("No space left on device") == 1
        assert "Traceback" not in done.err

    @pytest.mark.root
    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
    def test_no_half_line_is_left_behind(self, tmp_path: Path) -> None:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", tmp_path], check=False).returncode:
            pytest.skip("a tmpfs cannot be mounted here")
        complaints: list[str] = []
        try:
            log = RecordLog(tmp_path / "log", OUTCOMES, complaints.append)
            for frame in range(100):
                log.add(an_outcome(frame))
            log.close()
            lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
        finally:
            subprocess.run(["umount", tmp_path], check=True)
        assert lines == [line_of(an_outcome(frame), OUTCOMES) for frame in range(len(lines))]
        assert 10 < len(lines) < 100
        assert log.lost == 100 - len(lines)
        assert len(complaints) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--decision", "{"], "not JSON"),
        (["--decision", "[]"], "JSON object"),
        (["--decision", '{"speed": 3}'], "unknown decision field 'speed'"),
        (["--decision", '{"model": "alexnet", "partition_point": 99}'], "expected partition_point among"),
        (["--decision", "{}", "--controller", "edgent"], "expected one of them"),
        (["--controller", "greedy-oracle"], "only the twin"),
        (["--policy", "/nowhere/policy"], "/nowhere/policy"),
        (["--uplink", "/nowhere/trace.csv"], "/nowhere/trace.csv"),
        (["--outcomes", "/nowhere/log"], "/nowhere/log"),
        (["--mec", "host"], "tcp://HOST:PORT"),
        (["--mec", "0.0.0.0:5577"], "for example tcp://0.0.0.0:5577"),
        (["--mec", "tcp://127.0.0.1:99999"], "a port from 1 to 65535"),
        (["--fps", "-1"], "fps"),
        (["--bundle", "/nowhere"], "/nowhere"),
        (["--profile", "/nowhere/p.json"], "/nowhere/p.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(
    options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mecpilot.main(["device", "--workload", WORKLOAD, "--frames", "1", *options]) == 2
    streams = capsys.readouterr()
    assert (streams.out, streams.err.count("\n")) == ("", 1)
    assert expected in streams.err


def test_ppo_asks_for_a_policy_where_none_is_shipped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_file, "SHIPPED_DIR", tmp_path)
    assert mecpilot.main(["device", "--workload", WORKLOAD, "--frames", "1", "--controller", "ppo"]) == 2
    streams = capsys.readouterr()
    assert (streams.out, streams.err.count("\n")) == ("", 1)
    assert "--policy" in streams.err


def test_a_mec_that_cannot_bind_such_an_endpoint_says_what_one_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert mecpilot.main(["mec", "--workload", WORKLOAD, "--bind", "http://here"]) == 2
    assert "expected tcp://HOST:PORT" in capsys.readouterr().err
