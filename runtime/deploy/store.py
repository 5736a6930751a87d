"""The store: releases on the disk of a MEC or a device, content-addressed, switched atomically.

    STORE/parts/SHA256      files that are still arriving; they only grow
    STORE/blobs/SHA256      files that are complete and have this SHA-256
    STORE/releases/DIGEST/  one release: its document, and its files under their own names (links to blobs)
    STORE/metadata/SHA256   signed metadata that a MEC hands to devices that fetch
    STORE/state.json        for each name, which release is current, and which one was before; which metadata go with it
    STORE/pending.json      the document of the newest release that was proposed and is not committed yet
    STORE/current/NAME      a link to the current release, for programs that are given a path
    STORE/trusted/          what was accepted of signed metadata (``runtime.deploy.trust``)

Theory of operation. Every step either adds something that nothing refers to yet, or replaces one file by a rename.
``state.json`` alone says what is current; it is replaced when everything that it refers to is complete and synced. So
whatever is interrupted at any point, by ``kill -9`` or by a full disk, leaves the state before it or the state after
it, and a repetition goes on where the first attempt ended. What nothing refers to is removed by ``collect``; what has
arrived of the pending release stays. Links in ``current`` follow the state, and are put right when the store is opened.

A file that was damaged on the disk is noticed by its SHA-256 when its release is proposed again, and received again.

One process at a time writes to a store; the lock file sees to that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from controller.errors import FailureError, UsageError
from runtime.deploy.release import MOST_RELEASE_BYTES, RELEASE_FILE, Release, ReleaseFile, decode_release, digest_of
from runtime.files.atomic import sync_folder, write_whole
from runtime.files.file_lock import try_lock
from runtime.files.reading import read_bounded
from runtime.protocol.wire import Buffer

_STATE = "state.json"
_PENDING = "pending.json"
_FOLDERS = ("parts", "blobs", "releases", "metadata", "current")
_MOST_METADATA_BYTES = 1 << 20
#: Releases of one name that were rolled back, and are remembered.
_MOST_WITHDRAWN = 64
#: Free space that a release must leave.
_SPARE_BYTES = 16 << 20


class Deployed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is deployed under one name: digests of releases."""

    current: str
    previous: str | None = None


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    names: dict[str, Deployed] = {}
    metadata: str = ""  # SHA-256 of the newest that led to a release
    withdrawn: dict[str, tuple[str, ...]] = {}  # by name: releases that were rolled back


class Store:
    """Owns a store's folder and its lock.

    UsageError if the folder cannot be used, FailureError if another process uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for name in _FOLDERS:
                (folder / name).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(
                f"store {error.filename}: {error.strerror}; expected a folder that can be written"
            ) from None
        if not try_lock(self._lock):
            os.close(self._lock)
            raise FailureError(f"the store {folder} is in use by another process; stop that, or use another folder")
        try:
            self._state = self._read_state()
            self._link_all()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock; may be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def deployed(self) -> dict[str, Deployed]:
        """What is deployed, by name."""
        return dict(self._state.names)

    @property
    def trusted(self) -> Path:
        """Folder of the trusted metadata."""
        return self.folder / "trusted"

    def metadata(self) -> bytes:
        """The signed metadata of the newest commit; FailureError if there are none, or they were changed."""
        try:
            data = read_bounded(self.folder / "metadata" / self._state.metadata, _MOST_METADATA_BYTES)
        except OSError as error:
            raise FailureError(f"cannot read {error.filename}: {error.strerror}; push again") from None
        if digest_of(data) != self._state.metadata:
            raise FailureError("the store's metadata were changed on the disk; push again")
        return data

    def deployed_as(self, name: str) -> Deployed:
        """What is deployed under a name; FailureError if nothing is."""
        if (deployed := self._state.names.get(name)) is None:
            known = ", ".join(sorted(self._state.names)) or "nothing yet"
            raise FailureError(f"nothing was deployed as {name!r}; the store holds: {known}")
        return deployed

    def was_withdrawn(self, name: str, digest: str) -> bool:
        """Whether a release was rolled back, and not committed again since."""
        return digest in self._state.withdrawn.get(name, ())

    # Arriving files -------------------------------------------------------------------------------------------

    def held_bytes(self, file: ReleaseFile) -> int:
        """How much of a file is here."""
        if (self.folder / "blobs" / file.sha256).exists():
            return file.length
        try:
            return (self.folder / "parts" / file.sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def prepare(self, document: bytes, in_use: Collection[str] = ()) -> Release:
        """Make room for a release that was verified, and for nothing else that is not committed; returns the release.

        What is here of it stays, except files that were damaged. ``in_use`` are releases that must stay as well.
        FailureError if the disk has no room for what is missing.
        """
        release = decode_release(document)
        self.drop_parts(release.files)
        for file in release.files:
            blob = self.folder / "blobs" / file.sha256
            if blob.exists() and not _is_whole(blob, file.sha256):
                blob.unlink()
        write_whole(self.folder / _PENDING, document, "the store's pending release", "make room and try again")
        self.collect(in_use)
        self._check_room(release)
        return release

    def drop_pending(self) -> None:
        """Forget the release that is pending: it was committed, or is not wanted any more."""
        (self.folder / _PENDING).unlink(missing_ok=True)

    def _check_room(self, release: Release) -> None:
        missing_bytes = sum(file.length - self.held_bytes(file) for file in release.files)
        free_bytes = shutil.disk_usage(self.folder).free
        if missing_bytes and free_bytes < missing_bytes + _SPARE_BYTES:
            needed_mib, free_mib = (missing_bytes + _SPARE_BYTES) >> 20, free_bytes >> 20
            raise FailureError(f"the store's disk has {free_mib} MiB left; expected {needed_mib} MiB for this release")

    def append(self, file: ReleaseFile, offset: int, data: Buffer) -> int:
        """Add bytes to a file that is arriving; returns how many are here then. Bytes that do not continue what is
        here are left out. FailureError for more bytes than the file has; OSError if the disk takes no more."""
        held = self.held_bytes(file)
        if offset != held or held == file.length:
            return held
        if held + len(data) > file.length:
            raise FailureError(f"got more than the {file.length} bytes that {file.name} has")
        descriptor = os.open(self.folder / "parts" / file.sha256, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
        return held + len(data)

    def _complete(self, file: ReleaseFile) -> None:
        """Make a file that has arrived a blob. FailureError if its bytes are not those that the release names."""
        blob = self.folder / "blobs" / file.sha256
        if blob.exists():  # ``prepare`` has checked its bytes
            return
        part = self.folder / "parts" / file.sha256
        if not part.exists() and not file.length:
            part.touch()
        got = _sha256_of(part, sync=True)
        if got != file.sha256:
            part.unlink()
            raise FailureError(f"{file.name} has sha256 {got[:12]}... instead of {file.sha256[:12]}...; push again")
        part.rename(blob)
        sync_folder(blob.parent)

    # Releases -------------------------------------------------------------------------------------------------

    def assemble(self, document: bytes) -> Path:
        """The folder of a release whose files have all arrived. FailureError if one of them is not what it must be."""
        release, target = decode_release(document), self.path(digest_of(document))
        for file in release.files:
            self._complete(file)
        if target.exists():
            self._repair(document, release, target)
            return target
        partial = target.with_name(f".{target.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_whole(partial / RELEASE_FILE, document)
        for file in release.files:
            os.link(self.folder / "blobs" / file.sha256, partial / file.name)
        sync_folder(partial)
        partial.rename(target)
        sync_folder(target.parent)
        return target

    def _repair(self, document: bytes, release: Release, target: Path) -> None:
        """Replace each file of a release that is there which is not the blob, one by one."""
        for file in release.files:
            blob, path = self.folder / "blobs" / file.sha256, target / file.name
            if not (path.exists() and path.samefile(blob)):
                partial = target / f".{file.sha256}"
                partial.unlink(missing_ok=True)
                os.link(blob, partial)
                partial.replace(path)
        if not _is_whole(target / RELEASE_FILE, target.name):
            write_whole(target / RELEASE_FILE, document)
        sync_folder(target)

    def is_whole(self, digest: str) -> bool:
        """Whether a release is here and none of its files was changed."""
        try:
            files = self.release(digest).files
        except FailureError:
            return False
        return all(_is_whole(self.path(digest) / file.name, file.sha256) for file in files)

    def path(self, digest: str) -> Path:
        """The folder of a release."""
        return self.folder / "releases" / digest

    def document(self, digest: str) -> bytes:
        """The document of a release that is here; FailureError if it cannot be read or was changed."""
        try:
            data = read_bounded(self.path(digest) / RELEASE_FILE, MOST_RELEASE_BYTES)
        except OSError as error:
            raise FailureError(f"cannot read {error.filename}: {error.strerror}; push this release again") from None
        if digest_of(data) != digest:
            raise FailureError(f"{self.path(digest)} was changed; push this release again")
        return data

    def release(self, digest: str) -> Release:
        """A release that is here; FailureError if it cannot be read."""
        return decode_release(self.document(digest))

    def read(self, name: str, sha256: str, offset: int, most_bytes: int) -> bytes:
        """Bytes of a file of the current release of a name; FailureError if it has no such file."""
        deployed = self._state.names.get(name)
        files = () if deployed is None else self.release(deployed.current).files
        if all(file.sha256 != sha256 for file in files):
            raise FailureError(f"the current release of {name!r} has no such file; fetch its release first")
        try:
            with (self.folder / "blobs" / sha256).open("rb") as stream:
                stream.seek(offset)
                return stream.read(most_bytes)
        except OSError as error:
            raise FailureError(f"cannot read a file of {name!r}: {error.strerror}") from None

    def commit(self, name: str, digest: str, metadata: bytes) -> None:
        """Make a complete release the current one of a name; the one before stays for a rollback. ``metadata`` are the
        signed ones that led to it."""
        sha256 = digest_of(metadata)
        write_whole(self.folder / "metadata" / sha256, metadata, "the store's metadata", "make room and push again")
        before, withdrawn = self._state.names.get(name), dict(self._state.withdrawn)
        to = Deployed(digest, None if before is None else before.current)
        if before is not None and before.current == digest:
            to = before
        withdrawn[name] = tuple(other for other in withdrawn.get(name, ()) if other != digest)
        self._switch(name, to, sha256, withdrawn)

    def previous(self, name: str) -> str:
        """The release that a rollback of a name leads to; FailureError if there is none."""
        if (previous := self.deployed_as(name).previous) is None:
            raise FailureError(f"{name} has no earlier release here; push the one that you want")
        return previous

    def rollback(self, name: str) -> None:
        """Make the previous release of a name the current one again; FailureError if there is none."""
        to, withdrawn = Deployed(self.previous(name), None), self._state.withdrawn.get(name, ())
        withdrawn = (*withdrawn, self._state.names[name].current)[-_MOST_WITHDRAWN:]
        self._switch(name, to, self._state.metadata, self._state.withdrawn | {name: withdrawn})

    def _switch(self, name: str, to: Deployed, metadata: str, withdrawn: dict[str, tuple[str, ...]]) -> None:
        kept = {name: digests for name, digests in withdrawn.items() if digests}
        state = _State(self._state.names | {name: to}, metadata, kept)
        write_whole(self.folder / _STATE, msgspec.json.encode(state), "the store's state", "make room and push again")
        self._state = state
        self._link(name)

    def collect(self, in_use: Collection[str] = ()) -> None:
        """Remove releases that are neither current nor previous nor pending nor in use, files that no release has, and
        metadata that are not the newest. Parts stay, for pushes that go on."""
        pending, blobs = self._pending()
        kept = {*in_use, pending}
        for deployed in self._state.names.values():
            kept |= {deployed.current, deployed.previous or ""}
        for path in (self.folder / "releases").iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        for path in (self.folder / "blobs").iterdir():
            if path.stat().st_nlink == 1 and path.name not in blobs:
                path.unlink(missing_ok=True)
        for path in (self.folder / "metadata").iterdir():
            if path.name != self._state.metadata:
                path.unlink(missing_ok=True)

    def _pending(self) -> tuple[str, set[str]]:
        """Digest of the release that is pending, and the SHA-256 of its files; "" without one."""
        try:
            document = read_bounded(self.folder / _PENDING, MOST_RELEASE_BYTES)
            return digest_of(document), {file.sha256 for file in decode_release(document).files}
        except (OSError, FailureError):  # none, or damaged: its files are sent once more
            return "", set()

    def drop_parts(self, kept: Collection[ReleaseFile] = ()) -> None:
        """Remove what arrived of other files."""
        names = {file.sha256 for file in kept}
        for path in (self.folder / "parts").iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)

    def _read_state(self) -> _State:
        path = self.folder / _STATE
        try:
            return msgspec.json.decode(read_bounded(path, 1 << 20), type=_State)
        except FileNotFoundError:
            return _State()
        except (OSError, msgspec.MsgspecError) as error:
            raise FailureError(f"{path} cannot be read ({error}); restore it from a copy, or use a new store") from None

    def _link_all(self) -> None:
        for name in self._state.names:
            self._link(name)

    def _link(self, name: str) -> None:
        """Nothing in the store reads the links, so one that cannot be made is left for the next start."""
        with contextlib.suppress(OSError):
            self._replace_link(name)

    def _replace_link(self, name: str) -> None:
        link, to = self.folder / "current" / name, Path("..", "releases", self._state.names[name].current)
        if link.is_symlink() and link.readlink() == to:
            return
        partial = link.with_name(f".{name}")
        partial.unlink(missing_ok=True)
        partial.symlink_to(to)
        partial.replace(link)


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return _sha256_of(path) == sha256
    except OSError:
        return False


def _sha256_of(path: Path, *, sync: bool = False) -> str:
    with path.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
        if sync:
            os.fsync(stream.fileno())
    return got
