"""Fashion-MNIST is found in a fixed order, verified, cached, and its absence is explained in full."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from support.waiting import PATIENCE_S

from controller.errors import FailureError
from runtime.files.fetch import cache_dir
from runtime.workloads import datasets as data
from runtime.workloads.datasets import FILES, IdxFile, load_fashion_mnist
from runtime.workloads.resize import area_overlaps, resize_area


def _small_files() -> dict[str, bytes]:
    """Contents in the shape of the four files, few samples."""
    rng = np.random.default_rng(3)
    contents = {}
    for key, count in (("train", 6), ("test", 4)):
        contents[f"{key}_images"] = bytes(16) + rng.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        contents[f"{key}_labels"] = bytes(8) + rng.integers(0, 10, count, dtype=np.uint8).tobytes()
    return contents


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """The published digests replaced by those of small files; no source but what a test provides."""
    contents = _small_files()
    specs = {
        key: IdxFile(FILES[key].name, len(raw), hashlib.sha256(raw).hexdigest(), FILES[key].header_bytes)
        for key, raw in contents.items()
    }
    monkeypatch.setattr(data, "FILES", specs)
    monkeypatch.setattr(data, "SYSTEM_DIR", tmp_path / "system")
    monkeypatch.setenv("MECPILOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "no-tools"))
    monkeypatch.setattr(data, "UPSTREAM_URL", (tmp_path / "upstream").as_uri() + "/")
    return contents


def _write(directory: Path, contents: dict[str, bytes], *, packed: bool = True) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for key, raw in contents.items():
        name = FILES[key].name
        if packed:
            (directory / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (directory / name).write_bytes(raw)


@pytest.mark.parametrize("packed", [True, False])
def test_a_given_directory_is_used_packed_or_not(small: dict[str, bytes], tmp_path: Path, packed: bool) -> None:
    _write(tmp_path / "mine", small, packed=packed)
    loaded = load_fashion_mnist(tmp_path / "mine")
    assert loaded.train_images.shape == (6, 28, 28)
    assert loaded.test_labels.tobytes() == small["test_labels"][8:]


def test_a_damaged_given_directory_gives_way_to_the_next_source(small: dict[str, bytes], tmp_path: Path) -> None:
    _write(tmp_path / "mine", small | {"test_labels": bytes(12)})
    _write(tmp_path / "system", small)
    assert load_fashion_mnist(tmp_path / "mine").test_labels.tobytes() == small["test_labels"][8:]


def test_what_upstream_gives_is_cached_and_upstream_not_asked_again(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "upstream", small)
    load_fashion_mnist()
    assert len(list((cache_dir() / "fashion-mnist").glob("*.gz"))) == 4

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked upstream although the cache is complete")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert load_fashion_mnist().train_labels.tobytes() == small["train_labels"][8:]


def test_the_debian_package_is_unpacked_without_being_installed(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for the two tools that do what the tools do."""
    _write(tmp_path / "mirror", small)
    tools = tmp_path / "tools"
    tools.mkdir()
    unpacked = str(data.SYSTEM_DIR.relative_to("/"))
    scripts = {
        "apt-get": 'test "$1" = download && /usr/bin/touch "$2_1.0_all.deb"',
        "dpkg-deb": f'/bin/mkdir -p "$3/{unpacked}" && /bin/cp {tmp_path}/mirror/* "$3/{unpacked}/"',
    }
    for name, body in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    assert load_fashion_mnist().train_labels.tobytes() == small["train_labels"][8:]
    assert (cache_dir() / "fashion-mnist" / f"{FILES['test_images'].name}.gz").is_file()


def test_when_nothing_works_one_line_names_every_way_and_why(small: dict[str, bytes], tmp_path: Path) -> None:
    _write(tmp_path / "mine", small | {"train_labels": bytes(14)})
    with pytest.raises(FailureError) as caught:
        load_fashion_mnist(tmp_path / "mine")
    message = str(caught.value)
    assert "\n" not in message
    ways = ["given directory", "system directory", "cache", "Debian package", "upstream"]
    positions = [message.index(way) for way in ways]
    assert positions == sorted(positions)
    assert "train-labels-idx1-ubyte has sha256" in message
    assert "no such directory" in message
    assert "apt-get is not installed" in message
    assert "--data" in message


def test_a_file_larger_than_published_is_refused_without_being_read_whole(
    small: dict[str, bytes], tmp_path: Path
) -> None:
    bomb = gzip.compress(small["train_images"] + bytes(50_000_000))
    _write(tmp_path / "mine", small)
    (tmp_path / "mine" / f"{FILES['train_images'].name}.gz").write_bytes(bomb)
    with pytest.raises(FailureError, match="train-images-idx3-ubyte has sha256"):
        load_fashion_mnist(tmp_path / "mine")


@pytest.mark.parametrize(("size_in", "size_out"), [(28, 20), (28, 14), (28, 28), (20, 28), (768, 512)])
def test_every_input_pixel_counts_alike_in_the_area_average(size_in: int, size_out: int) -> None:
    overlaps, row_sum = area_overlaps(size_in, size_out)
    assert np.all(overlaps.sum(axis=1) == row_sum)
    assert len(set(overlaps.sum(axis=0))) == 1


def test_halving_the_resolution_averages_two_by_two_rounding_half_up() -> None:
    image = np.array([[0, 1, 10, 10], [0, 1, 10, 11], [255, 255, 3, 3], [255, 254, 3, 3]], np.uint8)
    assert resize_area(image, 2).tolist() == [[1, 10], [255, 3]]
    assert resize_area(image[None], 2).tolist() == [[[1, 10], [255, 3]]]


# Two processes at once ---------------------------------------------------------------------------------------

FETCH = """
from pathlib import Path
from runtime.files.fetch import cache_dir, first_that_works, ways_to

def verify(directory):
    if (directory / "data").read_text() != "whole":
        raise ValueError("damaged")
    return directory

system = Path("/nowhere/of-this-test")
ways = ways_to(None, system, cache_dir() / "set", "package", "http://127.0.0.1:9/", ["data"], verify)
print(first_that_works("It failed.", ways, verify))
"""


@pytest.fixture
def slow_tools(tmp_path: Path) -> Path:
    """Stand-ins for apt-get and dpkg-deb. A download takes a second and leaves a line in ``downloads``."""
    tools = tmp_path / "tools"
    tools.mkdir()
    place = "$3/nowhere/of-this-test"
    scripts = {
        "apt-get": f'echo "$1" >> {tmp_path}/downloads; sleep 1; touch "$2_1.0_all.deb"',
        "dpkg-deb": f'mkdir -p "{place}"; printf whole > "{place}/data"',
    }
    for name, body in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    return tools


def fetch_twice_at_once(tools: Path, cache: Path, tmp_path: Path) -> list[str]:
    """What two processes say that begin together; both succeed."""
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "MECPILOT_CACHE": str(cache),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    both = [
        subprocess.Popen([sys.executable, "-c", FETCH], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE_S)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return said


def test_of_two_processes_one_fetches_and_the_other_uses_the_cache(slow_tools: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert fetch_twice_at_once(slow_tools, cache, tmp_path) == [str(cache / "set")] * 2
    assert (tmp_path / "downloads").read_text() == "download\n"


def test_where_the_cache_cannot_be_written_two_processes_fetch_side_by_side(slow_tools: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = fetch_twice_at_once(slow_tools, tmp_path / "file" / "cache", tmp_path)
    assert said == [str(tmp_path / f"mecpilot-{os.getuid()}" / "set")] * 2
