"""The store: whatever interrupts it, it holds the release before or the one after, whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live import ROOT
from support.releases import Operator, check_current, install, release_of
from support.waiting import wait_until

from controller.errors import FailureError, UsageError
from runtime.deploy.check import Verdict
from runtime.deploy.installer import Installer
from runtime.deploy.phase import Phase
from runtime.deploy.release import ReleaseFile, digest_of, encode_release
from runtime.deploy.store import Store
from runtime.deploy.trust import Verifier, decode_proposal


def test_a_kill_at_every_write_leaves_a_whole_release(tmp_path: Path) -> None:
    script = ROOT / "tests" / "support" / "kill_at_every_write.py"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 25  # so many writes were interrupted


def test_a_rollback_leads_back_once(tmp_path: Path) -> None:
    operator, store = Operator.new(tmp_path / "repository"), tmp_path / "store"
    digests = []
    for content in (b"1", b"2"):
        release, blobs = release_of("net", [content])
        install(store, operator.root, decode_proposal(operator.proposal(release)), blobs)
        digests.append(digest_of(encode_release(release)))
    opened = Store(store)
    opened.rollback("net")
    with pytest.raises(FailureError, match="no earlier release"):
        opened.rollback("net")
    with pytest.raises(FailureError, match="the store holds: net"):
        opened.rollback("other")
    opened.close()
    check_current(store, "net", digests[:1])


def test_files_that_no_release_has_are_removed(tmp_path: Path) -> None:
    operator, folder = Operator.new(tmp_path / "repository"), tmp_path / "store"
    for content in (b"1", b"2", b"3"):
        release, blobs = release_of("net", [content, b"shared"])
        install(folder, operator.root, decode_proposal(operator.proposal(release)), blobs)
    kept = {path.read_bytes() for path in (folder / "blobs").iterdir()}
    assert kept == {b"2", b"3", b"shared"}
    assert len(list((folder / "releases").iterdir())) == 2


def test_bytes_beyond_a_file_and_bytes_out_of_place_are_not_stored(tmp_path: Path) -> None:
    store, file = Store(tmp_path), ReleaseFile("a", "ab" * 32, 10)
    assert store.append(file, 0, b"12345") == 5
    assert store.append(file, 0, b"99999") == 5
    assert store.append(file, 7, b"99") == 5
    with pytest.raises(FailureError, match="more than the 10 bytes"):
        store.append(file, 5, b"123456")
    assert (tmp_path / "parts" / file.sha256).read_bytes() == b"12345"
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = Store(tmp_path / "store")
    with pytest.raises(FailureError, match="in use"):
        Store(tmp_path / "store")
    first.close()
    Store(tmp_path / "store").close()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="folder that can be written"):
        Store(tmp_path / "file")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MiB, so that the spare space of a release is just there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_that_fills_up_leaves_the_release_before(tmp_path: Path, small_disk: Path) -> None:
    operator, folder = Operator.new(tmp_path / "repository"), small_disk / "store"
    first, first_blobs = release_of("net", [b"1" * 1000])
    install(folder, operator.root, decode_proposal(operator.proposal(first)), first_blobs)
    second, second_blobs = release_of("net", [b"2" * (2 << 20)])
    (sha, data), proposal = next(iter(second_blobs.items())), operator.proposal(second)
    store = Store(folder)
    installer = Installer(
        store, Verifier(store.trusted, None), check=lambda _: Verdict(samples=1), load=lambda *_: None
    )
    receive(installer, proposal)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(32 << 20))
    with pytest.raises(FailureError, match="No space left on device"):
        send(installer, sha, data)
    assert installer.progress.phase is Phase.REVERTED
    assert "No space left" in installer.progress.reason
    assert store.deployed["net"].current == digest_of(encode_release(first))
    filler.unlink()
    receive(installer, proposal)  # what had arrived is still there
    send(installer, sha, data)
    wait_until(lambda: installer.progress.phase is Phase.COMMITTED, "the commit")
    installer.close()
    check_current(folder, "net", [digest_of(encode_release(second))])


def send(installer: Installer[None], sha: str, data: bytes) -> None:
    """Send a file from where the installer has it, in pieces of 64 kB."""
    held = installer.missing[sha][0]
    while held < len(data):
        held = installer.chunk(sha, held, data[held : held + (1 << 16)])


def receive(installer: Installer[None], proposal: bytes) -> None:
    installer.propose(proposal)
    wait_until(lambda: installer.progress.phase is Phase.RECEIVING, "the verification")
