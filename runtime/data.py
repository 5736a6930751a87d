"""Where does Fashion-MNIST come from? Four ways, tried in order, each checked by SHA-256.

1. a directory the user names, 2. the system's copy of the Debian package `dataset-fashion-mnist`, 3. that package
downloaded and unpacked into the user's cache (nothing is installed system-wide), 4. the upstream repository over
HTTPS. A copy fetched once stays in the cache. The digests are of the *decompressed* files, because Debian
recompresses them: the .gz files differ between the sources while their content is the same.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controller.errors import FailureError

IMAGE_PX = 28
SYSTEM_DIR = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
UPSTREAM_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
DOWNLOAD_TIMEOUT_S = 20.0
APT_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class IdxFile:
    """One file of the data set: its decompressed size and digest, and its IDX header's length."""

    name: str
    size_bytes: int
    sha256: str
    header_bytes: int


FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        16,
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte",
        60_008,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        8,
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        16,
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        8,
    ),
}


@dataclass(frozen=True)
class FashionMnist:
    """The four arrays: images (n, 28, 28) u8 and labels (n,) u8 with values 0..9."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def cache_dir() -> Path:
    """The user's cache: $MECPILOT_CACHE, else $XDG_CACHE_HOME/mecpilot, else ~/.cache/mecpilot."""
    if chosen := os.environ.get("MECPILOT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mecpilot"


def load_fashion_mnist(data_dir: Path | None = None) -> FashionMnist:
    """The data set from the first source that works; FailureError names every source tried."""
    contents = _first_source_that_works(data_dir)
    labels = {key: _body(key, raw) for key, raw in contents.items() if key.endswith("labels")}
    images = {
        key: _body(key, raw).reshape(-1, IMAGE_PX, IMAGE_PX) for key, raw in contents.items() if key.endswith("images")
    }
    return FashionMnist(**images, **labels)


def _body(key: str, raw: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8, offset=FILES[key].header_bytes)


def _first_source_that_works(data_dir: Path | None) -> dict[str, bytes]:
    cached = cache_dir() / "fashion-mnist"
    sources: list[tuple[str, Callable[[], Path]]] = [
        (f"system directory {SYSTEM_DIR}", lambda: SYSTEM_DIR),
        (f"cache {cached}", lambda: cached),
        (f"Debian package {DEBIAN_PACKAGE}", lambda: _fetch_debian_package(cached)),
        (f"upstream {UPSTREAM_URL}", lambda: _fetch_upstream(cached)),
    ]
    if data_dir is not None:
        chosen = data_dir
        sources.insert(0, (f"given directory {chosen}", lambda: chosen))
    failures = []
    for label, locate in sources:
        try:
            return read_verified(locate())
        except (OSError, EOFError, zlib.error, ValueError, subprocess.SubprocessError) as error:
            failures.append(f"{label}: {_one_line(error)}")
    raise FailureError(
        "Fashion-MNIST could not be obtained; give a directory that holds its four idx files with --data. Tried: "
        + "; ".join(failures)
    )


def _one_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        detail = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        return f"{error.cmd[0]} exited with {error.returncode}: {detail[-1] if detail else 'no message'}"
    return " ".join(str(error).split()) or type(error).__name__


def read_verified(directory: Path) -> dict[str, bytes]:
    """Decompressed contents of the four files; ValueError when one is not the published file."""
    if not directory.is_dir():
        raise FileNotFoundError("no such directory")
    return {key: _read_file(directory, spec) for key, spec in FILES.items()}


def _read_file(directory: Path, spec: IdxFile) -> bytes:
    plain, packed = directory / spec.name, directory / f"{spec.name}.gz"
    if not plain.is_file() and not packed.is_file():
        raise FileNotFoundError(f"{packed.name} is missing")
    with plain.open("rb") if plain.is_file() else gzip.open(packed, "rb") as stream:
        raw = stream.read(spec.size_bytes + 1)  # one more than expected: a larger file is never read whole
    digest = hashlib.sha256(raw).hexdigest()
    if digest != spec.sha256:
        raise ValueError(f"{spec.name} has sha256 {digest[:12]}..., expected {spec.sha256[:12]}...")
    return raw


def _fetch_debian_package(target: Path) -> Path:
    """`apt-get download` + `dpkg-deb -x` in a temporary directory, then the four files into the cache."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not installed")
    with tempfile.TemporaryDirectory(prefix="mecpilot-") as work:
        try:
            _run(["apt-get", "download", DEBIAN_PACKAGE], work)
        except subprocess.CalledProcessError:
            # A machine whose package lists were never fetched; as a plain user this may be forbidden.
            _run(["apt-get", "update", "-q"], work)
            _run(["apt-get", "download", DEBIAN_PACKAGE], work)
        (package,) = Path(work).glob("*.deb")
        _run(["dpkg-deb", "-x", str(package), "unpacked"], work)
        unpacked = Path(work) / "unpacked" / SYSTEM_DIR.relative_to("/")
        read_verified(unpacked)
        return _keep(unpacked, target)


def _run(command: list[str], cwd: str) -> None:
    subprocess.run(
        command,
        cwd=cwd,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=APT_TIMEOUT_S,
    )


def _fetch_upstream(target: Path) -> Path:
    with tempfile.TemporaryDirectory(prefix="mecpilot-") as work:
        for spec in FILES.values():
            url = f"{UPSTREAM_URL}{spec.name}.gz"
            with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as reply:
                (Path(work) / f"{spec.name}.gz").write_bytes(reply.read())
        read_verified(Path(work))
        return _keep(Path(work), target)


def _keep(source: Path, target: Path) -> Path:
    """Copy the four files into the cache, each appearing under its name only when it is complete."""
    target.mkdir(parents=True, exist_ok=True)
    for spec in FILES.values():
        name = f"{spec.name}.gz"
        partial = target / f".{name}.{os.getpid()}"
        shutil.copyfile(source / name, partial)
        os.replace(partial, target / name)
    return target
