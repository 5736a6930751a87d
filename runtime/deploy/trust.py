"""The receiver's side of trust: verifies signed metadata and remembers the newest ones (The Update Framework).

``tuf.ngclient`` does all of the checking: signatures, thresholds and versions of the keys, expiry, and that no role is
older than what was accepted before. It keeps what it has accepted in a folder, so a restart does not forget it, and a
replay of older metadata is refused. Metadata come from memory here, not from a server: ``_Given`` hands them out.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from controller.errors import FailureError, UsageError
from runtime.deploy.release import Release, decode_release, digest_of
from runtime.files.atomic import sync_folder, write_whole
from runtime.files.reading import read_bounded

_FOLDER_URL = "given:/"
_MOST_BYTES = 256 << 10
#: The root metadata that the user gave.
_FIRST_ROOT = "first_root.json"
_TARGETS = ".targets.json"
_CONFIG = UpdaterConfig(
    max_root_rotations=64,
    root_max_length=_MOST_BYTES,
    timestamp_max_length=_MOST_BYTES,
    snapshot_max_length=_MOST_BYTES,
    targets_max_length=_MOST_BYTES,
)


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed metadata by their names, and the release that they shall lead to."""

    name: Annotated[str, Meta(min_length=1, max_length=63)]
    metadata: Annotated[dict[str, bytes], Meta(max_length=80)]
    release: bytes


def encode_proposal(proposal: Proposal) -> bytes:
    """The bytes that cross the wire."""
    return msgspec.msgpack.encode(proposal)


def decode_proposal(data: bytes | memoryview) -> Proposal:
    """FailureError if the bytes are not a proposal."""
    try:
        return msgspec.msgpack.decode(data, type=Proposal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FailureError(f"got a proposal that cannot be read ({error})") from None


def encode_metadata(metadata: Mapping[str, bytes]) -> bytes:
    """Signed metadata as one file."""
    return msgspec.msgpack.encode(metadata)


def decode_metadata(data: bytes) -> dict[str, bytes]:
    """FailureError if the bytes are not what ``encode_metadata`` writes."""
    try:
        return msgspec.msgpack.decode(data, type=dict[str, bytes])
    except msgspec.MsgspecError as error:
        raise FailureError(f"the store's metadata cannot be read ({error}); push again") from None


def signed_release(metadata: Mapping[str, bytes], name: str) -> str:
    """Digest of the release that metadata name; "" if they name none. They are those of ``Verifier.accepted``."""
    (data,) = (data for file, data in metadata.items() if file.endswith(_TARGETS))
    targets = Metadata[Targets].from_bytes(data).signed.targets
    return targets[name].hashes["sha256"] if name in targets else ""


class Verifier:
    """Owns the folder with the trusted metadata: the root that the user gave, and for each root a folder of what it led
    to, because versions of other keys mean nothing. So replacing that one file begins anew, at once and wholly.

    ``root`` is the file of the root that the user trusts. It is needed once; if it is given again and differs, trust
    begins anew with it. UsageError if it is needed or cannot be read.
    """

    def __init__(self, folder: Path, root: Path | None) -> None:
        self._first = folder / _FIRST_ROOT
        try:
            folder.mkdir(parents=True, exist_ok=True)
            given = None if root is None else read_bounded(root, _MOST_BYTES)
        except OSError as error:
            raise UsageError(f"{error.filename or root}: {error.strerror}; expected a root.json") from None
        if given is None and not self._first.exists():
            raise UsageError("a store needs --trust ROOT.json once: `mecpilot deploy init` makes that file")
        if given is not None and not (self._first.exists() and self._first.read_bytes() == given):
            self._check_root(given, root)
            write_whole(self._first, given)
        self._root = self._first.read_bytes()
        self._folder = folder / digest_of(self._root)
        self._folder.mkdir(exist_ok=True)

    def verify(self, proposal: Proposal) -> Release:
        """The release that the metadata name; they are trusted and remembered from now on.

        FailureError, with the reason, if they are not signed as they must be, are older than earlier ones, have
        expired, or do not name this release.
        """
        try:
            updater = Updater(
                str(self._folder),
                _FOLDER_URL,
                fetcher=_Given(proposal.metadata),
                config=_CONFIG,
                bootstrap=self._root,
            )
            updater.refresh()
            target = updater.get_targetinfo(proposal.name)
            if target is None:
                raise FailureError(f"the signed metadata name no release for {proposal.name!r}")
            target.verify_length_and_hashes(io.BytesIO(proposal.release))
        except ExpiredMetadataError as error:
            raise FailureError(f"the signed metadata have expired ({error}); push again") from None
        except DownloadError as error:
            raise FailureError(f"the proposal lacks signed metadata ({error})") from None
        except UnsignedMetadataError:
            raise FailureError(
                "the signed metadata are refused: they were changed, or signed by other keys than those of the trusted "
                "root.json; push from the repository that this root.json came from"
            ) from None
        except RepositoryError as error:
            raise FailureError(f"the signed metadata are refused: {error}") from None
        self._sync()
        release = decode_release(proposal.release)
        if release.name != proposal.name:
            raise FailureError(f"got the release of {release.name!r}; expected that of {proposal.name!r}")
        return release

    def accepted(self) -> dict[str, bytes]:
        """The newest metadata that were verified, by the names under which a proposal carries them."""
        found = {path.name: path.read_bytes() for path in (self._folder / "root_history").glob("*.root.json")}
        for role in (Timestamp.type, Snapshot.type, Targets.type):
            data = (self._folder / f"{role}.json").read_bytes()
            version = "" if role == Timestamp.type else f"{Metadata.from_bytes(data).signed.version}."
            found[f"{version}{role}.json"] = data
        return found

    def _check_root(self, data: bytes, path: Path | None) -> None:
        try:
            if Metadata.from_bytes(data).signed.type != Root.type:
                raise UsageError(f"{path} is not root metadata; expected the root.json of `mecpilot deploy init`")
        except (DeserializationError, RepositoryError) as error:
            raise UsageError(f"{path} is not root metadata ({error}); expected a root.json") from None

    def _sync(self) -> None:
        """The library replaces files atomically, but does not sync them."""
        for folder in (self._folder, self._folder / "root_history"):
            for path in folder.glob("*.json"):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            sync_folder(folder)


class _Given(FetcherInterface):
    """Metadata that are here already."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._files.get(url.removeprefix(_FOLDER_URL))
        if data is None:
            raise DownloadHTTPError(f"{url} is not there", 404)
        return iter([data])
