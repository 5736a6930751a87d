"""What is deployed: a release, which lists the files of one bundle or policy by their SHA-256.

A release is one small JSON document. Its own SHA-256 is its digest, so the digest stands for every byte of it. The
signed metadata (``runtime.deploy.repository``) name the release's digest, the release names its files. Numbers have
bounds, and names are plain, because a release is read before anything that it names is trusted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from controller.errors import FailureError, UsageError
from runtime.bundles.bundle import Bundle
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.files.policy_file import load_policy
from runtime.protocol.operator_messages import DeployName, Sha256

#: Name of the release's own document among its files.
RELEASE_FILE = "release.json"
#: Name of the file with the inputs and expected outputs of the health check.
CHECK_FILE = "check.safetensors"
#: Name of the file of a policy.
POLICY_FILE = "policy.safetensors"
#: A release of a hundred files takes 12 kB.
MOST_RELEASE_BYTES = 64 << 10
MOST_FILES = 256
MOST_FILE_BYTES = 4 << 30

#: One part of a path: no slashes, no leading dot.
FileName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")]
Kind = Literal["bundle", "policy"]
BUNDLE: Kind = "bundle"
POLICY: Kind = "policy"


class ReleaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    name: FileName
    sha256: Sha256
    length: Annotated[int, Meta(ge=0, le=MOST_FILE_BYTES)]


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files of one bundle or policy, and what the health check compares."""

    kind: Kind
    name: DeployName
    workload: Annotated[str, Meta(min_length=1, max_length=64)]
    files: Annotated[tuple[ReleaseFile, ...], Meta(min_length=1, max_length=MOST_FILES)]
    #: Largest difference of an output from the expected one: absolute, and as a share of the expected value.
    atol: Annotated[float, Meta(ge=0.0, le=1e3)] = 1e-3
    rtol: Annotated[float, Meta(ge=0.0, le=1.0)] = 1e-3

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.length for file in self.files)


def encode_release(release: Release) -> bytes:
    """The document; equal releases give equal bytes."""
    return msgspec.json.encode(release)


def decode_release(data: bytes) -> Release:
    """The release of a document; FailureError if it is not one."""
    if len(data) > MOST_RELEASE_BYTES:
        raise FailureError(f"got a release of {len(data)} bytes; expected at most {MOST_RELEASE_BYTES}")
    try:
        release = msgspec.json.decode(data, type=Release)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FailureError(f"got a release that cannot be read ({error})") from None
    names = [file.name for file in release.files]
    if len({*names, RELEASE_FILE}) != len(names) + 1:
        raise FailureError("got a release that names a file twice; expected each name once")
    if CHECK_FILE not in names:
        raise FailureError(f"got a release without {CHECK_FILE}; expected one that `mecpilot push` made")
    return release


def digest_of(data: bytes) -> str:
    """The SHA-256 of a document, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_of(name: str, path: Path) -> ReleaseFile:
    """The entry of a file; FailureError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return ReleaseFile(name, sha256, path.stat().st_size)
    except OSError as error:
        raise FailureError(f"cannot read {path}: {error.strerror}") from None


def artifact_files(artifact: Path) -> tuple[Kind, str, dict[str, Path]]:
    """Kind, workload and files (by their name in the release) of a bundle's directory or a policy file.

    UsageError if it is neither, FailureError if a file of the bundle is damaged.
    """
    if (artifact / MANIFEST_FILE).is_file():
        bundle = Bundle(artifact)
        return BUNDLE, bundle.workload, {name: artifact / name for name in (MANIFEST_FILE, *bundle.file_names)}
    if artifact.is_file():
        return POLICY, load_policy(artifact)[1].workload, {POLICY_FILE: artifact}
    raise UsageError(f"{artifact} is neither a bundle (a folder with {MANIFEST_FILE}) nor a policy file")
