"""A codec of one's own takes part in everything once it is registered; names that cannot work are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from numpy.typing import NDArray
from support.live import ROOT

from controller.errors import FailureError, RemoteProtocolError, UsageError
from controller.records import Decision
from runtime.bundles.bundle import SHIPPED_DIR, Bundle
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.codecs import IMAGE, TENSOR, Codec, check_codecs, check_size, decode, encode, get_codec, register_codec
from runtime.inference.segments import Segments
from runtime.mec.warm_up import WarmUp
from runtime.workloads.registry import get_workload


def run_documented_example() -> None:
    """The example in docs/extending.md registers `zraw`, a lossless image codec."""
    found = re.search(
        r"```python\n([^`]*class ZstdPixels.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL
    )
    assert found is not None
    exec(found[1], {})


class OwnSigns(Codec):
    """Lossy: only the sign of each value."""

    name = "own_signs"
    kind = TENSOR

    def encode(self, array: NDArray[Any]) -> bytes:
        return np.packbits(array > 0).tobytes()

    def decode(self, payload: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[Any]:
        count = int(np.prod(shape))
        check_size("own signs", len(payload), (count + 7) // 8)
        return np.unpackbits(np.frombuffer(payload, np.uint8), count=count).reshape(shape).astype(np.float32)


class Careless(OwnSigns):
    """Forgets to convert its result."""

    name = "careless"

    def decode(self, payload: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[Any]:
        return super().decode(payload, shape).astype(np.float64)


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    """Through the public door, once per process; the other tests then run with the codecs in the table."""
    with pytest.raises(UsageError, match="unknown payload codec 'zraw'; expected one of: raw, png"):
        get_codec("zraw")
    run_documented_example()
    for codec in (OwnSigns(), Careless()):
        register_codec(codec)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped models, offered with one image codec more."""
    directory = Path(shutil.copytree(SHIPPED_DIR / "garments", tmp_path_factory.mktemp("bundle") / "own"))
    path = directory / MANIFEST_FILE
    document = json.loads(path.read_text())
    document["image_codecs"].append("zraw")
    document["payloads"] += [p | {"codec": "zraw"} for p in document["payloads"] if p["codec"] == "png"]
    path.write_text(json.dumps(document))
    return Bundle(directory)


def test_a_codec_of_ones_own_runs_from_head_to_tail_on_a_real_model(bundle: Bundle) -> None:
    workload = get_workload("garments")
    segments = Segments(bundle, workload)
    image = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    decision = Decision("mobilenet", 20, 3, 0, "zraw")
    assert decision in bundle.space.decisions
    assert bundle.payload(decision).mean_bytes > 0
    head = segments.head(image, decision)
    assert head.payload == zstandard.compress(workload.resize(image, 20).tobytes())
    with torch.inference_mode():
        whole = bundle.model("mobilenet").whole(workload.to_input(np.array(workload.resize(image, 20))[None]), 3)
    np.testing.assert_array_equal(segments.tail(memoryview(head.payload), decision), whole.numpy())
    for bad in (b"", head.payload[:-1], head.payload + b"\0", zstandard.compress(bytes(10**6))):
        with pytest.raises(RemoteProtocolError):
            segments.tail(bad, decision)


def test_a_mec_warms_it_up_with_the_others(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up = WarmUp(Segments(bundle, get_workload("garments")))
    warmed: list[int] = []
    monkeypatch.setattr(type(get_codec("zraw")), "decode", lambda _, payload, shape: warmed.append(len(payload)))
    while warm_up.step():
        pass
    assert len(warmed) == 1


def test_a_mec_warms_up_without_a_codec_whose_library_is_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, warmed = type(get_codec("zraw")), list[int]()
    monkeypatch.setattr(codec, "missing", property(lambda _: "install it"))
    monkeypatch.setattr(codec, "decode", lambda _, payload, shape: warmed.append(len(payload)))
    warm_up = WarmUp(Segments(bundle, get_workload("garments")))
    while warm_up.step():
        pass
    assert not warmed


def test_the_batched_form_of_a_codec_that_defines_none_is_one_array_after_the_other() -> None:
    batch = np.random.default_rng(0).normal(size=(3, 2, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(get_codec("own_signs").roundtrip(batch), batch > 0)


def test_an_array_of_another_type_is_never_handed_on() -> None:
    tensor = np.ones((2, 3, 3), np.float32)
    with pytest.raises(RemoteProtocolError, match=r"'careless' decoded float64 .* expected float32"):
        decode("careless", encode("careless", tensor), tensor.shape)


PLUGIN = """
from controller.errors import UsageError
from runtime.codecs.image import Raw

class Mine(Raw):
    name = "plain"

class Other(Raw):
    name = "another"

def broken():
    raise RuntimeError("no licence\\nfound")
"""
ENTRY_POINTS = """
[mecpilot.codecs]
plain = codec_plugin:Mine
other = codec_plugin:Other
broken = codec_plugin:broken
"""


def test_a_codec_of_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "codec_plugin.py").write_text(PLUGIN)
    (tmp_path / "codec_plugin-1.dist-info").mkdir()
    (tmp_path / "codec_plugin-1.dist-info" / "METADATA").write_text("Name: codec_plugin\nVersion: 1\n")
    (tmp_path / "codec_plugin-1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(decode("plain", encode("plain", image), (2, 3)), image)
    assert get_codec("plain") is get_codec("plain")
    with pytest.raises(FailureError, match=r"'other' \(codec_plugin:Other\) has the name 'another'"):
        get_codec("other")
    with pytest.raises(FailureError, match=r"'broken' \(codec_plugin:broken\) fails: RuntimeError: no licence found$"):
        get_codec("broken")


class Named(OwnSigns):
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize("name", ["", "U8", "a,b", "8bit", "none", "exact", "a b"])
def test_a_name_that_cannot_stand_in_a_decision_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected lower-case letters"):
        register_codec(Named(name))


@pytest.mark.parametrize("name", ["raw", "jpeg75", "u1", "zraw"])
def test_a_name_is_given_once(name: str) -> None:
    with pytest.raises(UsageError, match=f"codec '{name}' is already registered"):
        register_codec(Named(name))


def test_a_bundle_with_an_unknown_codec_or_one_of_the_other_kind_does_not_start() -> None:
    with pytest.raises(UsageError, match="'u8' is for tensors; expected one for images"):
        check_codecs(("raw", "u8"), IMAGE)
    with pytest.raises(UsageError, match="unknown payload codec 'u16'"):
        check_codecs(("u8", "u16"), TENSOR)
