"""What a store, an installer and a device do when something goes wrong on the way, and when two come at a time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.live import ROOT
from support.releases import Operator, bring, check_current, install, release_of
from support.waiting import wait_until

from controller.errors import FailureError
from runtime.deploy import fetching
from runtime.deploy.check import HealthCheck, Verdict
from runtime.deploy.client import MecClient
from runtime.deploy.installer import Installer
from runtime.deploy.release import Release, ReleaseFile, digest_of, encode_release
from runtime.deploy.repository import Repository
from runtime.deploy.samples import _difference
from runtime.deploy.store import Store
from runtime.deploy.trust import Proposal, Verifier, decode_proposal, encode_proposal
from runtime.mec.desk import Desk
from runtime.protocol import wire
from runtime.protocol.operator_messages import Chunk, OperatorMessage

Blobs = dict[str, bytes]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator.new(tmp_path / "repository")


def passed(_: Path) -> Verdict:
    return Verdict(samples=1)


@contextlib.contextmanager
def installer_of(folder: Path, operator: Operator, **changed: Any) -> Iterator[Installer[None]]:
    store = Store(folder)
    options: dict[str, Any] = {"check": passed, "load": lambda *_: None} | changed
    installer: Installer[None] = Installer(store, Verifier(store.trusted, operator.root), **options)
    try:
        yield installer
    finally:
        installer.close()


class DeskClient(MecClient):
    """An operator or device whose messages go to a desk without a network between them."""

    def __init__(self, installer: Installer[None], before: Any = lambda _: None) -> None:
        self._desk, self._before, self._last_id, self._endpoint = Desk(installer, lambda _: True), before, 0, "mec"

    def _ask(self, message: OperatorMessage, buffer: wire.Buffer = b"") -> Any:
        self._before(message)
        sent = self._desk.answer(b"peer", "", message, buffer, dict)
        found = self._answer(message, wire.encode(sent.message, sent.buffer))
        assert found is not None
        return found


class OtherMec:
    """A MEC that offers what it likes under any name."""

    def __init__(self, proposal: bytes, blobs: Blobs) -> None:
        self._proposal, self._blobs = proposal, blobs

    def proposal(self, _: str) -> bytes:
        return self._proposal

    def download(self, _: str, file: ReleaseFile, store: Store) -> None:
        store.append(file, 0, self._blobs[file.sha256])


def on_disk(folder: Path, blobs: Blobs) -> dict[str, Path]:
    folder.mkdir()
    for sha256, data in blobs.items():
        (folder / sha256).write_bytes(data)
    return {sha256: folder / sha256 for sha256 in blobs}


def digest(release: Release) -> str:
    return digest_of(encode_release(release))


def test_a_mec_cannot_put_another_signed_release_under_a_name(tmp_path: Path, operator: Operator) -> None:
    release, blobs = release_of("experimental", [b"check", b"other"])
    store = Store(tmp_path / "device")
    mec, verifier = OtherMec(operator.proposal(release), blobs), Verifier(store.trusted, operator.root)
    with pytest.raises(FailureError, match="offers a release of 'experimental'; expected one of 'net'"):
        fetching.fetch(mec, "net", store, verifier, passed)  # type: ignore[arg-type]
    assert not store.deployed
    store.close()


def test_what_a_device_rolled_back_does_not_come_back_by_itself(tmp_path: Path, operator: Operator) -> None:
    store = Store(tmp_path / "device")
    verifier = Verifier(store.trusted, operator.root)
    for content in (b"1", b"2"):
        release, blobs = release_of("net", [b"check", content])
        mec: Any = OtherMec(operator.proposal(release), blobs)
        assert fetching.fetch(mec, "net", store, verifier, passed)
    store.rollback("net")
    store.close()
    store = Store(tmp_path / "device")
    with pytest.raises(FailureError, match=r"was rolled back here; give --again"):
        fetching.fetch(mec, "net", store, verifier, passed)
    assert fetching.fetch(mec, "net", store, verifier, passed, again=True)
    assert not fetching.fetch(mec, "net", store, verifier, passed)
    store.close()


def test_a_device_replaces_a_file_that_was_damaged(tmp_path: Path, operator: Operator) -> None:
    release, blobs = release_of("net", [b"check", b"content"])
    mec: Any = OtherMec(operator.proposal(release), blobs)
    store = Store(tmp_path / "device")
    verifier = Verifier(store.trusted, operator.root)
    assert fetching.fetch(mec, "net", store, verifier, passed)
    (tmp_path / "device" / "current" / "net" / "file1").write_bytes(b"damaged")
    assert fetching.fetch(mec, "net", store, verifier, passed)
    store.close()
    check_current(tmp_path / "device", "net", [digest(release)])


@pytest.mark.parametrize("damaged", ["release.json", "file1"])
def test_pushing_again_heals_a_damaged_release(tmp_path: Path, operator: Operator, damaged: str) -> None:
    release, blobs = release_of("net", [b"check", b"content"])
    proposal = operator.proposal(release)
    with installer_of(tmp_path / "store", operator) as installer:
        bring(installer, proposal, blobs)
        (installer.store.path(digest(release)) / damaged).write_bytes(b"damaged")
        bring(installer, proposal, blobs)
        assert decode_proposal(installer.proposal("net")).release == encode_release(release)
    check_current(tmp_path / "store", "net", [digest(release)])


def test_a_commit_that_cannot_be_written_changes_nothing(tmp_path: Path, operator: Operator) -> None:
    first, first_blobs = release_of("net", [b"check", b"1"])
    second, second_blobs = release_of("net", [b"check", b"2"])
    metadata, breaks = tmp_path / "store" / "metadata", False

    def load(*_: object) -> None:
        if breaks:  # from now on metadata cannot be written, as on a full disk
            metadata.rename(tmp_path / "aside")
            metadata.touch()

    with installer_of(tmp_path / "store", operator, load=load) as installer:
        bring(installer, operator.proposal(first), first_blobs)
        breaks = True
        with pytest.raises(FailureError, match="cannot write the store's metadata"):
            bring(installer, operator.proposal(second), second_blobs)
        breaks = False
        metadata.unlink()
        (tmp_path / "aside").rename(metadata)
        assert installer.store.deployed["net"].current == digest(first)
        assert [change.release for change in installer.changes()] == [digest(first)]
        assert decode_proposal(installer.proposal("net")).release == encode_release(first)
        bring(installer, operator.proposal(second), second_blobs)
        assert installer.store.deployed["net"].current == digest(second)


def test_only_verified_metadata_are_handed_on(tmp_path: Path, operator: Operator) -> None:
    release, blobs = release_of("net", [b"check", b"1"])
    good = decode_proposal(operator.proposal(release))
    more = encode_proposal(Proposal("net", {"evil.targets.json": b"junk"} | good.metadata, good.release))
    with installer_of(tmp_path / "store", operator) as installer:
        bring(installer, more, blobs)
        handed_on = decode_proposal(installer.proposal("net"))
    assert handed_on.metadata == good.metadata
    assert Verifier(tmp_path / "trusted", operator.root).verify(handed_on) == release


def test_a_push_notices_that_another_one_took_its_place(tmp_path: Path, operator: Operator) -> None:
    mine, my_blobs = release_of("mine", [b"check", b"1" * 1000])
    other, other_blobs = release_of("other", [b"check 2", b"2" * 1000])
    my_proposal, other_proposal = operator.proposal(mine), operator.proposal(other)
    my_proposal = operator.proposal(mine)  # the same metadata, which name both
    for number, whole in enumerate((True, False)):
        with installer_of(tmp_path / f"store{number}", operator) as installer:

            def other_push(message: OperatorMessage, installer: Any = installer, whole: bool = whole) -> None:
                if isinstance(message, Chunk) and installer.progress.name == "mine":
                    bring(installer, other_proposal, other_blobs) if whole else installer.propose(other_proposal)

            client, paths = DeskClient(installer, other_push), on_disk(tmp_path / f"files{number}", my_blobs)
            with pytest.raises(FailureError, match="another push or rollback took the place"):
                client.push(my_proposal, paths)


def test_what_cannot_be_loaded_leaves_nothing(tmp_path: Path, operator: Operator) -> None:
    def refuse(*_: object) -> None:
        raise FailureError("it cannot be loaded")

    with installer_of(tmp_path / "store", operator, load=refuse) as installer:
        for content in (b"1", b"2"):
            release, blobs = release_of("net", [b"check", content])
            with pytest.raises(FailureError, match="cannot be loaded"):
                bring(installer, operator.proposal(release), blobs)
    for name in ("releases", "blobs", "parts"):
        assert not list((tmp_path / "store" / name).iterdir()), name


def test_what_had_arrived_when_the_mec_ended_is_not_sent_again(tmp_path: Path, operator: Operator) -> None:
    release, blobs = release_of("net", [b"check", b"1" * 1000])
    proposal, checking, go_on = operator.proposal(release), threading.Event(), threading.Event()

    def check(_: Path) -> Verdict:
        checking.set()
        go_on.wait(30)
        return Verdict("stopped")

    with installer_of(tmp_path / "store", operator, check=check, stop_check=go_on.set) as installer:
        closing = threading.Thread(target=lambda: (checking.wait(30), installer.close()))
        closing.start()
        with pytest.raises(FailureError, match="stopped"):
            bring(installer, proposal, blobs)
        closing.join()
    with installer_of(tmp_path / "store", operator) as installer:
        installer.store.collect()  # as at the start of a MEC
        bring(installer, proposal, {})
    check_current(tmp_path / "store", "net", [digest(release)])


def test_the_store_stays_locked_until_the_worker_has_ended(
    tmp_path: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.deploy.installer._JOIN_S", 0.1)
    release, blobs = release_of("net", [b"check", b"1"])
    loading, go_on = threading.Event(), threading.Event()

    def load(*_: object) -> None:
        loading.set()
        go_on.wait(30)

    with installer_of(tmp_path / "store", operator, load=load) as installer:
        pushing = threading.Thread(target=bring, args=(installer, operator.proposal(release), blobs))
        pushing.start()
        assert loading.wait(30)
    with pytest.raises(FailureError, match="in use"):
        Store(tmp_path / "store")
    go_on.set()
    pushing.join()
    installer.close()
    check_current(tmp_path / "store", "net", [digest(release)])


HANGS = """
import sys, threading, time
from pathlib import Path
from runtime.deploy.check import HealthCheck
check = HealthCheck()
threading.Thread(target=check, args=(Path(sys.argv[1]),), daemon=True).start()
while check._child is None:
    time.sleep(0.01)
print(check._child.pid, flush=True)
time.sleep(60)
"""


def test_a_health_check_ends_with_its_mec(tmp_path: Path) -> None:
    fifo = tmp_path / "release.json"  # the check waits for a writer that never comes
    subprocess.run(["mkfifo", str(fifo)], check=True)
    parent = subprocess.Popen([sys.executable, "-c", HANGS, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    child = Path("/proc", parent.stdout.readline().decode().strip())
    wait_until(lambda: (child / "oom_score_adj").read_text().strip() == "1000", "the check")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not child.exists() or " Z " in (child / "stat").read_text(), "the end of the check")


def test_a_health_check_can_be_stopped(tmp_path: Path) -> None:
    subprocess.run(["mkfifo", str(tmp_path / "release.json")], check=True)
    check = HealthCheck()
    stopping = threading.Thread(target=lambda: (wait_until(lambda: check._child is not None, "it"), check.stop()))
    stopping.start()
    assert "stopped" in check(tmp_path).reason
    assert "stopped" in check(tmp_path).reason  # and is not begun again
    stopping.join()


def test_two_signers_wait_for_each_other(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = Repository._publish

    def slow(*arguments: Any) -> None:
        time.sleep(0.2)
        publish(*arguments)

    monkeypatch.setattr(Repository, "_publish", slow)
    names = ("a", "b", "c")
    releases = [release_of(name, [b"check", name.encode()])[0] for name in names]
    threads = [threading.Thread(target=Repository(operator.folder).sign, args=(one, 1.0)) for one in releases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    signed = [Repository(operator.folder).release_digest(name) for name in names]
    assert signed == [digest(release) for release in releases]


@pytest.mark.parametrize("wanted", [np.nan, np.inf])
def test_expected_outputs_must_be_finite(wanted: float) -> None:
    release = release_of("net", [b"check", b"1"])[0]
    with pytest.raises(FailureError, match="expects outputs that are not finite"):
        _difference(release, 0, np.zeros(3, np.float32), np.full(3, wanted, np.float32))


def test_a_link_that_cannot_be_made_keeps_no_mec_from_starting(tmp_path: Path, operator: Operator) -> None:
    release, blobs = release_of("net", [b"check", b"1"])
    install(tmp_path / "store", operator.root, decode_proposal(operator.proposal(release)), blobs)
    link = tmp_path / "store" / "current" / "net"
    link.unlink()
    link.mkdir()
    store = Store(tmp_path / "store")
    assert store.deployed["net"].current == digest(release)
    store.close()
