"""Find or download Fashion-MNIST and the campus video, and check the SHA-256 of each file.

Sources, in this order: 1. a directory that the user names, 2. the files of an installed Debian package, 3. the user's
cache, 4. the Debian package, downloaded and unpacked into the cache, 5. the upstream repository over HTTPS. Nothing is
installed system-wide. The digests of Fashion-MNIST are those of the *decompressed* files, because Debian compresses
them again: the .gz files of the sources differ, but their content is the same.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.files.fetch import cache_dir, first_that_works, ways_to

IMAGE_PX = 28
SYSTEM_DIR = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
UPSTREAM_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"

VIDEO_NAME = "vtest.avi"
VIDEO_SHA256 = "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"
VIDEO_DIR = Path("/usr/share/doc/opencv-doc/examples/data")
VIDEO_PACKAGE = "opencv-doc"
VIDEO_URL = "https://raw.githubusercontent.com/opencv/opencv/4.x/samples/data/"


@dataclass(frozen=True)
class IdxFile:
    """One file of Fashion-MNIST: its decompressed size and digest, and the length of its IDX header."""

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


#: A directory that the user gives must hold a file with one of these names.
FASHION_MNIST_FILES = (f"{FILES['test_images'].name}.gz", FILES["test_images"].name)


@dataclass(frozen=True)
class FashionMnist:
    """The data set: images (n, 28, 28) u8, and labels (n,) u8 from 0 to 9."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def load_fashion_mnist(data_dir: Path | None = None) -> FashionMnist:
    """The data set from the first source that works; FailureError names every source that was tried."""
    contents = _first_source_that_works(data_dir)
    labels = {key: _body(key, raw) for key, raw in contents.items() if key.endswith("labels")}
    images = {
        key: _body(key, raw).reshape(-1, IMAGE_PX, IMAGE_PX) for key, raw in contents.items() if key.endswith("images")
    }
    return FashionMnist(**images, **labels)


def _body(key: str, raw: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8, offset=FILES[key].header_bytes)


def _first_source_that_works(data_dir: Path | None) -> dict[str, bytes]:
    cached, names = cache_dir() / "fashion-mnist", [f"{spec.name}.gz" for spec in FILES.values()]
    ways = ways_to(data_dir, SYSTEM_DIR, cached, DEBIAN_PACKAGE, UPSTREAM_URL, names, read_verified)
    failure = "Fashion-MNIST could not be obtained; give a directory that holds its four idx files with --data."
    return first_that_works(failure, ways, read_verified)


def read_verified(directory: Path) -> dict[str, bytes]:
    """Decompressed contents of the four files in a directory; ValueError when one is not the published file."""
    if not os.path.isdir(directory):
        raise FileNotFoundError("no such directory")
    return {key: _read_file(directory, spec) for key, spec in FILES.items()}


def _read_file(directory: Path, spec: IdxFile) -> bytes:
    plain, packed = directory / spec.name, directory / f"{spec.name}.gz"
    if not os.path.isfile(plain) and not os.path.isfile(packed):
        raise FileNotFoundError(f"{packed.name} is missing")
    with plain.open("rb") if os.path.isfile(plain) else gzip.open(packed, "rb") as stream:
        raw = stream.read(spec.size_bytes + 1)  # one byte more than expected shows that a file is too large
    digest = hashlib.sha256(raw).hexdigest()
    if digest != spec.sha256:
        raise ValueError(f"{spec.name} has sha256 {digest[:12]}..., expected {spec.sha256[:12]}...")
    return raw


def find_campus_video(data_dir: Path | None = None) -> Path:
    """Path of the verified video, from the first source that works; FailureError names every source that was tried."""
    cached = cache_dir() / "campus"
    ways = ways_to(data_dir, VIDEO_DIR, cached, VIDEO_PACKAGE, VIDEO_URL, [VIDEO_NAME], verified_video)
    failure = f"the campus video could not be obtained; give a directory that holds {VIDEO_NAME} with --data."
    return first_that_works(failure, ways, verified_video)


def verified_video(directory: Path) -> Path:
    """Path of the video in a directory; ValueError when it is not the published file."""
    if not os.path.isdir(directory):
        raise FileNotFoundError("no such directory")
    path = directory / VIDEO_NAME
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{VIDEO_NAME} is missing")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != VIDEO_SHA256:
        raise ValueError(f"{VIDEO_NAME} has sha256 {digest[:12]}..., expected {VIDEO_SHA256[:12]}...")
    return path
