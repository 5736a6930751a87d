"""Releases pushed to a running MEC over real sockets: served beside the old ones, or not at all."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.keyed import Keyring
from support.live import ROOT, WORKLOAD, device, run_device_here, wait_for_file
from support.releases import Operator, bundle_of
from support.waiting import wait_until

import mecpilot
from controller.errors import FailureError
from runtime.bundles.bundle import SHIPPED_DIR
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.config.sections.security import SecuritySection
from runtime.deploy import fetching
from runtime.deploy.check import check_release
from runtime.deploy.client import MecClient
from runtime.deploy.packing import Packed, pack
from runtime.deploy.release import CHECK_FILE, POLICY_FILE, Release, file_of
from runtime.deploy.store import Store
from runtime.deploy.trust import Verifier
from runtime.files.policy_file import shipped_policy
from runtime.link.dealer import Dealer
from runtime.mec.server import MecServer
from runtime.protocol.operator_messages import MAX_CHUNK_BYTES
from runtime.security.allow_list import revoke
from runtime.security.curve import DeviceKeys

ANY_PORT = "tcp://127.0.0.1:*"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("push")


@pytest.fixture(scope="module")
def operator(folder: Path) -> Operator:
    return Operator.new(folder / "repository")


@pytest.fixture(scope="module")
def mobilenet(folder: Path) -> tuple[Packed, Path]:
    """A release of a small bundle, and a profile of it."""
    bundle, profile = bundle_of(folder / "mobilenet", "mobilenet")
    (folder / "mobilenet" / "check").mkdir()
    return pack(bundle, folder / "mobilenet" / "check", name="net"), profile


@pytest.fixture
def mec(folder: Path, operator: Operator, tmp_path: Path) -> Iterator[MecServer]:
    with MecServer(WORKLOAD, bind=ANY_PORT, store=tmp_path / "store", trust=operator.root) as server:
        yield server.start()


@contextlib.contextmanager
def client_of(endpoint: str, keys: DeviceKeys | None = None) -> Iterator[MecClient]:
    client = MecClient(Dealer(endpoint, keys=keys), endpoint)
    try:
        yield client
    finally:
        client.close()


def with_check(packed: Packed, path: Path, changed: np.ndarray) -> Packed:
    """The same release with other expected outputs for its first sample."""
    arrays = load_file(next(p for p in packed.paths.values() if p.name == CHECK_FILE))
    save_file(arrays | {"outputs_0": changed.astype(np.float32)}, path)
    entry = file_of(CHECK_FILE, path)
    files = tuple(entry if file.name == CHECK_FILE else file for file in packed.release.files)
    old = packed.release
    return Packed(Release(old.kind, old.name, old.workload, files), packed.paths | {entry.sha256: path})


OPTIONS = {"fps": 10, "deadline_ms": 5000, "decision": {"partition_point": 2}}


@pytest.mark.slow
def test_a_device_goes_on_while_a_bundle_is_pushed_and_another_one_uses_it(
    mec: MecServer, operator: Operator, mobilenet: tuple[Packed, Path], tmp_path: Path
) -> None:
    packed, profile = mobilenet
    own = {"bundle": bundle_in(packed), "profile": profile}
    with device(mec.endpoint, tmp_path / "old", frames=100_000, **OPTIONS) as old, client_of(mec.endpoint) as client:
        old.wait_for_outcomes(1)
        old.wait_for_status("ok")
        early = run_device_here(mec.endpoint, tmp_path / "early", frames=5, **own, **OPTIONS)
        early.check_no_frame_lost(5)
        assert "another bundle" in early.err or "two bundles of workload garments" in early.err, early.err
        status = client.push(*operator.packed(packed))
        assert [(one["role"], one["devices"]) for one in status["bundles"]] == [("base", 1), ("current", 0)]
        new = run_device_here(mec.endpoint, tmp_path / "new", frames=20, **own, **OPTIONS)
        new.check_most("ok", 20)
        old.wait_for_outcomes(old.outcomes_so_far() + 5)
        finished = old.stop()
    finished.check_no_frame_lost()
    assert finished.statuses["ok"] > 0.8 * len(finished.outcomes), finished.statuses


def test_a_release_that_fails_its_check_or_was_changed_on_the_way_is_not_served(
    mec: MecServer, operator: Operator, mobilenet: tuple[Packed, Path], tmp_path: Path
) -> None:
    packed = mobilenet[0]
    wrong = with_check(packed, tmp_path / CHECK_FILE, np.full((1, 10), 7.0))
    path = next(path for path in packed.paths.values() if path.name == "mobilenet.safetensors")
    with client_of(mec.endpoint) as client:
        with pytest.raises(FailureError, match="reverted the release: the health check failed: sample 0 gave outputs"):
            client.push(*operator.packed(wrong))
        proposal, paths = operator.packed(packed)
        changed = tmp_path / path.name
        changed.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        sha256 = next(sha for sha, other in paths.items() if other == path)
        with pytest.raises(FailureError, match=r"reverted the release: mobilenet.safetensors has sha256"):
            client.push(proposal, paths | {sha256: changed})
        status = client.status()
        assert [one["role"] for one in status["bundles"]] == ["base"]
        assert status["deploy"]["deployed"] == {}
        assert client.push(proposal, paths)["deploy"]["phase"] == "committed"


def test_a_policy_is_pushed_fetched_and_rolled_back(mec: MecServer, operator: Operator, tmp_path: Path) -> None:
    policy = shipped_policy(WORKLOAD)
    assert policy is not None
    first = pack(policy, tmp_path, tolerance=0.0)
    second = pack(policy, tmp_path, tolerance=1e-6)
    pushed: list[tuple[bytes, dict[str, Path]]] = []
    store = Store(tmp_path / "device")
    verifier = Verifier(store.trusted, operator.root)
    with client_of(mec.endpoint) as client:
        for packed in (first, second):
            pushed.append(operator.packed(packed))
            client.push(*pushed[-1])
            assert fetching.fetch(client, "garments-policy", store, verifier, check_release)
        assert not fetching.fetch(client, "garments-policy", store, verifier, check_release)
        fetched = tmp_path / "device" / "current" / "garments-policy" / POLICY_FILE
        assert fetched.read_bytes() == policy.read_bytes()
        assert client.rollback("garments-policy")["deploy"]["reason"] == "rolled back"
        with pytest.raises(FailureError, match="rolled back here"):
            fetching.fetch(client, "garments-policy", store, verifier, check_release)
        with pytest.raises(FailureError, match=r"refused the release: .*New timestamp version"):
            client.push(*pushed[0])  # a replay
        with pytest.raises(FailureError, match="refuses: nothing was deployed as 'zebras'"):
            client.proposal("zebras")
        assert client.rollback("zebras")["deploy"]["phase"] == "reverted"
    store.close()


@pytest.mark.slow
def test_a_push_goes_on_after_the_mec_was_killed_where_it_had_been(
    operator: Operator, mobilenet: tuple[Packed, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proposal, paths = operator.packed(mobilenet[0])
    sent: list[int] = []
    with mec_process(tmp_path, operator.root) as (process, endpoint), client_of(endpoint) as client:

        def kill_in_the_middle(held: int, _: int) -> None:
            sent.append(held)
            if len(sent) == 3:
                process.kill()

        client._patience_s = 1.0
        with pytest.raises(FailureError, match="no answer"):
            client.push(proposal, paths, kill_in_the_middle)
    with mec_process(tmp_path, operator.root) as (_, endpoint):
        arrived = sum(path.stat().st_size for path in (tmp_path / "store" / "parts").iterdir())
        assert arrived > 0
        again: list[int] = []
        with client_of(endpoint) as client:
            assert client.push(proposal, paths, lambda held, _: again.append(held))["deploy"]["phase"] == "committed"
            assert [one["role"] for one in client.status()["bundles"]] == ["base", "current"]
        assert min(again) > 0
        whole = sum(-(-path.stat().st_size // MAX_CHUNK_BYTES) for path in paths.values())
        assert len(again) < whole  # what was there was not sent again
        assert mecpilot.main(["status", "--mec", endpoint]) == 0
        assert "current" in capsys.readouterr().out


def test_whoever_is_no_operator_may_not_even_ask(tmp_path: Path) -> None:
    plain = SecuritySection(plain=True)
    with MecServer(WORKLOAD, bind="tcp://*:*", security=plain) as server:
        endpoint = server.start().endpoint.replace("0.0.0.0", "127.0.0.1").replace("[::]", "127.0.0.1")
        with client_of(endpoint) as client, pytest.raises(FailureError, match="operators need keys here"):
            client.status()


def test_with_keys_only_operators_are_served(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    keys = {"camera": ring.device("camera", "device"), "alice": ring.device("alice", "device", "operator")}
    security = SecuritySection(key=tmp_path / "mec.key", allow=ring.path)
    with MecServer(WORKLOAD, bind=ANY_PORT, security=security) as server:
        endpoint = server.start().endpoint
        with client_of(endpoint, keys["alice"]) as client:
            assert client.status()["bundles"][0]["role"] == "base"
            revoke(ring.path, "alice")
            client._patience_s = 1.0
            wait_until(lambda: not answers(client), "the revocation")
        with client_of(endpoint, keys["camera"]) as client, pytest.raises(FailureError, match="is not an operator"):
            client.rollback("net")


def test_a_device_with_two_bundles_uses_the_one_that_its_mec_serves(
    mobilenet: tuple[Packed, Path], tmp_path: Path
) -> None:
    packed, profile = mobilenet
    options = {"bundle": bundle_in(packed), "profile": profile, "also_bundle": SHIPPED_DIR / WORKLOAD, **OPTIONS}
    with MecServer(WORKLOAD, bind=ANY_PORT) as server:
        done = run_device_here(server.start().endpoint, tmp_path / "a", frames=10, **options)
    done.check_most("ok", 10)
    assert "of --also-bundle" in done.err
    alone = run_device_here("tcp://127.0.0.1:9", tmp_path / "b", frames=2, **options)
    alone.check_no_frame_lost(2)
    assert "none answers yet" in alone.err


def test_a_mec_without_a_store_tells_its_status_and_takes_nothing(operator: Operator) -> None:
    with MecServer(WORKLOAD, bind=ANY_PORT) as server, client_of(server.start().endpoint) as client:
        assert client.status()["deploy"] is None
        with pytest.raises(FailureError, match="takes no releases; start it with --store"):
            client.push(b"anything", {})


def answers(client: MecClient) -> bool:
    """Whether a MEC tells its status."""
    try:
        return bool(client.status())
    except FailureError:
        return False


def bundle_in(packed: Packed) -> Path:
    """The folder that a bundle was packed from."""
    return next(path for path in packed.paths.values() if path.name == MANIFEST_FILE).parent


@contextlib.contextmanager
def mec_process(folder: Path, root: Path | None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """``mecpilot mec`` with a store, and its endpoint."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    trust = [] if root is None else ["--trust", str(root)]
    command = [sys.executable, "-m", "mecpilot", "mec", "--workload", WORKLOAD, "--bind", ANY_PORT]
    command += ["--store", str(folder / "store"), *trust, "--ready-file", str(ready)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        yield process, wait_for_file(process, ready).strip()
    finally:
        process.kill()
        process.wait()
