"""Make a release of a bundle or a policy: its files, and the samples for the health check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from controller.errors import UsageError
from runtime.bundles.bundle import open_pair
from runtime.deploy.release import BUNDLE, CHECK_FILE, Release, artifact_files, encode_release, file_of
from runtime.deploy.samples import samples_of_bundle, samples_of_policy
from runtime.files.atomic import write_whole


@dataclass(frozen=True)
class Packed:
    """A release, and where its files are, by their SHA-256."""

    release: Release
    paths: dict[str, Path]


def pack(
    artifact: Path, work_dir: Path, *, name: str | None = None, workload: str | None = None, tolerance: float = 1e-3
) -> Packed:
    """The release of a bundle's folder or a policy file; the samples are written to ``work_dir``.

    ``name`` is what it is deployed as; default: the workload, for a policy with "-policy". ``workload`` is the one to
    run a bundle with; default: the one that it names. ``tolerance`` is the largest difference of an output in the
    health check, absolute and as a share of the value. UsageError if there is nothing to deploy.
    """
    kind, trained_for, files = artifact_files(artifact)
    samples = samples_of_bundle(*open_pair(artifact, workload)) if kind == BUNDLE else samples_of_policy(artifact)
    write_whole(work_dir / CHECK_FILE, samples)
    entries = {file_of(given, path): path for given, path in (files | {CHECK_FILE: work_dir / CHECK_FILE}).items()}
    as_name = name or (trained_for if kind == BUNDLE else f"{trained_for}-policy")
    release = Release(kind, as_name, trained_for, tuple(entries), tolerance, tolerance)
    try:  # bounds are checked when something is decoded
        msgspec.json.decode(encode_release(release), type=Release)
    except msgspec.ValidationError as error:
        raise UsageError(f"{artifact} cannot be deployed as {as_name!r}: {error}; choose another --name") from None
    return Packed(release, {entry.sha256: path for entry, path in entries.items()})
