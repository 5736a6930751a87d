"""The store: releases on the disk of a MEC or a device, content-addressed, switched atomically.

    STORE/parts/SHA256      files that are still arriving; they only grow
    STORE/blobs/SHA256      files that are complete and have this SHA-256
    STORE/releases/DIGEST/  one release: its document, and its files under their own names (links to blobs)
    STORE/state.json        for each name, which release is current, and which one was before
    STORE/current/NAME      a link to the current release, for programs that are given a path
    STORE/trusted/          what was accepted of signed metadata (``runtime.deploy.trust``)
    STORE/metadata.msgpack  the newest signed metadata that were accepted, for devices that fetch

Theory of operation. Every step either adds something that nothing refers to yet, or replaces one file by a rename.
``state.json`` alone says what is current; it is replaced when everything that it refers to is complete and synced. So
whatever is interrupted at any point, by ``kill -9`` or by a full disk, leaves the state before it or the state after
it, and a repetition goes on where the first attempt ended. What nothing refers to is removed by ``collect``. Links in
``current`` follow the state, and are put right when the store is opened.

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
_FOLDERS = ("parts", "blobs", "releases", "current")
#: Free space that a release must leave.
_SPARE_BYTES = 16 << 20


class Deployed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is deployed under one name: digests of releases."""

    current: str
    previous: str | None = None


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    names: dict[str, Deployed] = {}


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

    @property
    def metadata(self) -> Path:
        """File with the newest signed metadata that were accepted, for devices that fetch."""
        return self.folder / "metadata.msgpack"

    # Arriving files -------------------------------------------------------------------------------------------

    def held_bytes(self, file: ReleaseFile) -> int:
        """How much of a file is here."""
        if (self.folder / "blobs" / file.sha256).exists():
            return file.length
        try:
            return (self.folder / "parts" / file.sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def check_room(self, release: Release) -> None:
        """FailureError if the disk has no room for what is missing of a release."""
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
        if blob.exists():
            return
        part = self.folder / "parts" / file.sha256
        if not part.exists() and not file.length:
            part.touch()
        with part.open("rb") as stream:
            got = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
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

    def commit(self, name: str, digest: str) -> None:
        """Make a complete release the current one of a name; the one before stays for a rollback."""
        before = self._state.names.get(name)
        if before is not None and before.current == digest:
            return
        self._switch(name, Deployed(digest, None if before is None else before.current))

    def previous(self, name: str) -> str:
        """The release that a rollback of a name leads to; FailureError if there is none."""
        deployed = self._state.names.get(name)
        if deployed is None:
            known = ", ".join(sorted(self._state.names)) or "nothing yet"
            raise FailureError(f"nothing was deployed as {name!r}; the store holds: {known}")
        if deployed.previous is None:
            raise FailureError(f"{name} has no earlier release here; push the one that you want")
        return deployed.previous

    def rollback(self, name: str) -> None:
        """Make the previous release of a name the current one again; FailureError if there is none."""
        self._switch(name, Deployed(self.previous(name), None))

    def _switch(self, name: str, to: Deployed) -> None:
        state = _State(self._state.names | {name: to})
        write_whole(self.folder / _STATE, msgspec.json.encode(state), "the store's state", "make room and push again")
        self._state = state
        with contextlib.suppress(OSError):  # it is put right when the store is opened
            self._link(name)

    def collect(self, in_use: Collection[str] = ()) -> None:
        """Remove releases that are neither current nor previous nor in use, and files that no release has. Parts stay,
        for pushes that go on."""
        kept = {*in_use}
        for deployed in self._state.names.values():
            kept |= {deployed.current, deployed.previous or ""}
        for path in (self.folder / "releases").iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        for path in (self.folder / "blobs").iterdir():
            if path.stat().st_nlink == 1:
                path.unlink(missing_ok=True)

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
        link, to = self.folder / "current" / name, Path("..", "releases", self._state.names[name].current)
        if link.is_symlink() and link.readlink() == to:
            return
        partial = link.with_name(f".{name}")
        partial.unlink(missing_ok=True)
        partial.symlink_to(to)
        partial.replace(link)
