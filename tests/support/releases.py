"""Small bundles of garments with a profile, and releases that need no models."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.errors import FailureError
from runtime.bundles.bundle import SHIPPED_DIR, Bundle
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.deploy.check import Verdict
from runtime.deploy.installer import Installer
from runtime.deploy.packing import Packed
from runtime.deploy.phase import Phase
from runtime.deploy.release import CHECK_FILE, Release, ReleaseFile, encode_release
from runtime.deploy.repository import Repository, init_repository
from runtime.deploy.store import Store
from runtime.deploy.trust import Proposal, Verifier, encode_proposal
from runtime.profiling.profile import shipped_path

WORKLOAD = "garments"


def bundle_of(folder: Path, *models: str) -> tuple[Path, Path]:
    """The shipped bundle with only these models, and a profile of it."""
    shutil.copytree(SHIPPED_DIR / WORKLOAD, folder / "bundle")
    path = folder / "bundle" / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    manifest["models"] = [model for model in manifest["models"] if model["name"] in models]
    path.write_text(json.dumps(manifest))
    profile = json.loads(shipped_path(WORKLOAD).read_text())
    profile["bundle_digest"] = Bundle(folder / "bundle").digest
    (folder / "profile.json").write_text(json.dumps(profile))
    return folder / "bundle", folder / "profile.json"


def release_of(name: str, contents: Sequence[bytes]) -> tuple[Release, dict[str, bytes]]:
    """A release of these contents, and the contents by their SHA-256."""
    blobs = {hashlib.sha256(data).hexdigest(): data for data in contents}
    names = [CHECK_FILE, *(f"file{number}" for number in range(1, len(contents)))]
    files = tuple(ReleaseFile(name, sha, len(data)) for name, (sha, data) in zip(names, blobs.items(), strict=True))
    return Release("policy", name, WORKLOAD, files), blobs


@dataclass(frozen=True)
class Operator:
    """An operator's repository."""

    folder: Path

    @classmethod
    def new(cls, folder: Path) -> Operator:
        init_repository(folder)
        return cls(folder)

    @property
    def root(self) -> Path:
        return self.folder / "root.json"

    def proposal(self, release: Release, days: float = 1.0) -> bytes:
        """The signed proposal of a release."""
        metadata = Repository(self.folder).sign(release, days)
        return encode_proposal(Proposal(release.name, metadata, encode_release(release)))

    def packed(self, packed: Packed) -> tuple[bytes, dict[str, Path]]:
        return self.proposal(packed.release), packed.paths


def install(folder: Path, root: Path, proposal: Proposal, blobs: dict[str, bytes]) -> None:
    """Take over a release as a MEC does, with all of its writes; the health check is passed unseen.

    FailureError, with the reason, if it is not taken over.
    """
    store = Store(folder)
    installer = Installer(
        store, Verifier(store.trusted, root), check=lambda _: Verdict(samples=1), load=lambda *_: None
    )
    try:
        bring(installer, encode_proposal(proposal), blobs)
    finally:
        installer.close()


def bring(installer: Installer[None], proposal: bytes, blobs: dict[str, bytes]) -> None:
    """Propose a release and send what is missing, in pieces of 1000 bytes; FailureError if it is not taken over."""
    installer.propose(proposal)
    while installer.progress.phase is not Phase.COMMITTED:
        if installer.progress.phase is Phase.RECEIVING:
            for sha, (held, length) in installer.missing.items():
                while held < length:
                    held = installer.chunk(sha, held, blobs[sha][held : held + 1000])
        elif not installer.progress.phase.is_busy:
            raise FailureError(installer.progress.reason)
        time.sleep(1e-3)


def check_current(folder: Path, name: str, allowed: Sequence[str]) -> str:
    """Assert that the current release is one of these, complete and unchanged; its digest."""
    store = Store(folder)
    try:
        current = store.deployed[name].current
        assert current in allowed, (current, allowed)
        for file in store.release(current).files:
            data = (folder / "current" / name / file.name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == file.sha256, file.name
        return current
    finally:
        store.close()
