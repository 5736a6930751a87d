"""The operator's side of trust: keys, and signed metadata that say what is to be deployed (The Update Framework).

A repository is a folder of the operator. It holds two Ed25519 keys and the metadata of the four TUF roles. The root
key signs ``root.json``, which names all keys, and after that only one with other keys, so it can be moved away. The
deploy key signs the other three. ``targets`` lists each deployed name with the digest of its release, ``snapshot``
and ``timestamp`` state the versions. Every push raises the versions, so a MEC notices metadata that are older than
those it has seen, and every role has a date after which it is refused. python-tuf does the signing and all of the
checks.

Metadata are written before the ones that refer to them, each atomically. Whoever reads a repository begins with the
timestamp, so a push that is interrupted leaves the state before it or the state after it.

Keys are replaced by a root of the next version, signed by the root key before and by its own. Whoever trusts an
earlier root follows the chain: all versions travel with the other metadata. The keys that count are those that the
root of the highest version names, so that one file is the moment of the change; ``root.json`` is a copy of it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from controller.errors import FailureError, UsageError
from runtime.deploy.release import Release, digest_of, encode_release
from runtime.files.atomic import write_whole
from runtime.files.file_lock import locked_folder

ROOT_FILE = "root.json"
_ROOT_KEY, _DEPLOY_KEY = "root.pem", "deploy.pem"
_TIMESTAMP = "timestamp.json"
_ROOT_DAYS = 3650
_DEPLOY_ROLES = (Timestamp.type, Snapshot.type, Targets.type)
#: Metadata that expire within this are signed again, so that a push has time to arrive.
_RENEW = timedelta(hours=1)

AnyMetadata = Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]
SignedT = TypeVar("SignedT", Root, Targets, Snapshot, Timestamp)


def init_repository(folder: Path) -> None:
    """Make keys and the first metadata in a new folder; UsageError if the folder holds a repository already."""
    if (folder / ROOT_FILE).exists():
        raise UsageError(f"{folder} is a repository already; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise FailureError(f"cannot make {folder}: {error.strerror}") from None
    root_key, deploy_key = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    root = Root(expires=_in_days(_ROOT_DAYS), consistent_snapshot=True)
    root.add_key(root_key.public_key, Root.type)
    for role in _DEPLOY_ROLES:
        root.add_key(deploy_key.public_key, role)
    for name, key in ((_ROOT_KEY, root_key), (_DEPLOY_KEY, deploy_key)):
        _write_secret(folder / name, key.private_bytes)
    signed = _signed(Metadata(root), root_key)
    write_whole(folder / "1.root.json", signed)
    write_whole(folder / ROOT_FILE, signed)  # last: a folder with it is complete


class Repository:
    """The metadata of a folder. UsageError if there is no repository, or a file of it cannot be read."""

    def __init__(self, folder: Path) -> None:
        if not (folder / ROOT_FILE).is_file():
            raise UsageError(f"{folder} is no repository; make one with `mecpilot deploy init {folder}`")
        self._folder = folder

    def release_digest(self, name: str) -> str | None:
        """Digest of the release that is signed for a name; None if there is none."""
        signed = self._targets().signed.targets.get(name)
        return None if signed is None else signed.hashes["sha256"]

    def rotate(self, root_key: Path | None = None, new_root: bool = False) -> list[Path]:
        """Replace the deploy key and, with ``new_root``, the root key; sign anew what was deployed. Returns the files
        of the keys that sign nothing any more.

        ``root_key`` is the file of the root key where it was moved away. FailureError if it cannot be read, or is
        not the one that the root names. After an interruption the next push or rotation goes on.
        """
        with locked_folder(self._folder):
            root, files = self._root(), self._key_files()
            old_signer = self._key(Root.type) if root_key is None else self._read_key(root_key)
            if old_signer.public_key.keyid not in root.signed.roles[Root.type].keyids:
                raise FailureError(f"{root_key} is not the root key; expected the one that {ROOT_FILE} names")
            root.signed.version += 1
            root.signed.expires = _in_days(_ROOT_DAYS)
            root_signer = old_signer
            if new_root:
                root_signer = self._replace_key(root.signed, _ROOT_KEY, (Root.type,))
            self._replace_key(root.signed, _DEPLOY_KEY, _DEPLOY_ROLES)
            root.sign(old_signer)
            root.sign(root_signer, append=True)
            write_whole(self._folder / f"{root.signed.version}.{ROOT_FILE}", root.to_bytes())
            write_whole(self._folder / ROOT_FILE, root.to_bytes())
            if self._has_pushed:
                self._publish(self._targets(), self._timestamp().signed.expires)
            named = {keyid for role in root.signed.roles.values() for keyid in role.keyids}
            if root_key is not None and root_key.resolve().parent != self._folder.resolve():
                files.append(root_key)
            return [path for path in files if self._read_key(path).public_key.keyid not in named]

    def _replace_key(self, root: Root, file: str, roles: tuple[str, ...]) -> CryptoSigner:
        """A new key in place of all others of these roles; its file is named after the version of the root."""
        key = CryptoSigner.generate_ed25519()
        path = self._folder / file.replace(".pem", f"-{root.version}.pem")
        path.unlink(missing_ok=True)  # of a rotation that was interrupted: no root names it
        _write_secret(path, key.private_bytes)
        for role in roles:
            for old in list(root.roles[role].keyids):
                root.revoke_key(old, role)
            root.add_key(key.public_key, role)
        return key

    def sign(self, release: Release, days: float) -> dict[str, bytes]:
        """Sign a release as what its name stands for from now on, valid for so many days. Returns the newest metadata
        by their names: what a MEC needs to verify them.

        One process at a time signs; another one waits. Nothing changes if the newest metadata say the same and are
        still valid: an interrupted push goes on with them.
        """
        with locked_folder(self._folder):
            self._sign(release, days)
            return self._files()

    def _sign(self, release: Release, days: float) -> None:
        document = encode_release(release)
        if self.release_digest(release.name) == digest_of(document) and self._still_valid():
            return
        targets = self._targets()
        targets.signed.targets[release.name] = TargetFile.from_data(release.name, document, ["sha256"])
        self._publish(targets, _in_days(days))

    def _files(self) -> dict[str, bytes]:
        timestamp = self._timestamp()
        snapshot = self._read(Snapshot, f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
        names = [_TIMESTAMP, f"{timestamp.signed.snapshot_meta.version}.snapshot.json"]
        names.append(f"{snapshot.signed.meta['targets.json'].version}.targets.json")
        names += sorted(path.name for path in self._folder.glob("*.root.json"))
        return {name: self._bytes(name) for name in names}

    def _publish(self, targets: Metadata[Targets], until: datetime) -> None:
        key = self._key(Timestamp.type)
        snapshot, timestamp = self._snapshot(), self._timestamp()
        targets.signed.version += 1
        snapshot.signed.meta["targets.json"] = MetaFile(version=targets.signed.version)
        snapshot.signed.version += 1
        timestamp.signed.snapshot_meta = MetaFile(version=snapshot.signed.version)
        timestamp.signed.version += 1
        for name, metadata in (
            (f"{targets.signed.version}.targets.json", targets),
            (f"{snapshot.signed.version}.snapshot.json", snapshot),
            (_TIMESTAMP, timestamp),
        ):
            metadata.signed.expires = until
            write_whole(self._folder / name, _signed(metadata, key))

    def _still_valid(self) -> bool:
        soon, root = datetime.now(UTC) + _RENEW, self._root().signed
        newest: tuple[AnyMetadata, ...] = (self._timestamp(), self._snapshot(), self._targets())
        try:
            for metadata in newest:
                root.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
        except RepositoryError:  # a rotation was interrupted before it signed them anew
            return False
        return all(metadata.signed.expires > soon for metadata in newest)

    def _root(self) -> Metadata[Root]:
        """The root of the highest version."""
        versions = [int(path.name.split(".")[0]) for path in self._folder.glob(f"*.{ROOT_FILE}")]
        return self._read(Root, f"{max(versions, default=1)}.{ROOT_FILE}")

    # Before the first push there are no metadata but the root's.

    def _timestamp(self) -> Metadata[Timestamp]:
        return self._read(Timestamp, _TIMESTAMP) if self._has_pushed else _unsigned(Timestamp())

    def _snapshot(self) -> Metadata[Snapshot]:
        if not self._has_pushed:
            return _unsigned(Snapshot())
        return self._read(Snapshot, f"{self._timestamp().signed.snapshot_meta.version}.snapshot.json")

    def _targets(self) -> Metadata[Targets]:
        if not self._has_pushed:
            return _unsigned(Targets())
        return self._read(Targets, f"{self._snapshot().signed.meta['targets.json'].version}.targets.json")

    @property
    def _has_pushed(self) -> bool:
        return (self._folder / _TIMESTAMP).exists()

    def _read(self, kind: type[SignedT], name: str) -> Metadata[SignedT]:
        try:
            found: Metadata[SignedT] = Metadata.from_bytes(self._bytes(name))
        except (DeserializationError, RepositoryError) as error:
            raise FailureError(f"{self._folder / name} is damaged ({error}); restore it from a copy") from None
        if not isinstance(found.signed, kind):
            raise FailureError(f"{self._folder / name} is not {kind.__name__} metadata; restore it from a copy")
        return found

    def _bytes(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise FailureError(f"cannot read {self._folder / name}: {error.strerror}") from None

    def _key_files(self) -> list[Path]:
        return sorted(self._folder.glob("*.pem"))

    def _key(self, role: str) -> CryptoSigner:
        """The key of a role: the one of the folder that the root names."""
        name = _ROOT_KEY if role == Root.type else _DEPLOY_KEY
        named = self._root().signed.roles[role].keyids
        for path in self._key_files():
            if path.name.startswith(name.removesuffix(".pem")):
                key = self._read_key(path)
                if key.public_key.keyid in named:
                    return key
        way_out = "give its file with --root-key" if role == Root.type else "restore it from a copy"
        raise FailureError(f"{self._folder} has not the {role} key that its {ROOT_FILE} names; {way_out}")

    def _read_key(self, path: Path) -> CryptoSigner:
        try:
            if path.stat().st_mode & 0o077:
                raise UsageError(f"the signing key {path} can be read by others; run: chmod 600 {path}")
            return CryptoSigner(load_pem_private_key(path.read_bytes(), None))
        except OSError as error:
            raise FailureError(f"cannot read the signing key {path}: {error.strerror}") from None
        except ValueError as error:
            raise FailureError(f"{path} is not a key ({error}); restore it from a copy") from None


def _unsigned(signed: SignedT) -> Metadata[SignedT]:
    """Metadata from which the first ones are made, of version 1."""
    signed.version = 0
    return Metadata(signed)


def _signed(metadata: AnyMetadata, key: CryptoSigner) -> bytes:
    metadata.sign(key)
    return metadata.to_bytes()


def _in_days(days: float) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


def _write_secret(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
