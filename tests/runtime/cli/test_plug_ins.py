"""An installed package adds a workload and a codec by its entry points; device and MEC then use both by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.live import ROOT, run_device

from runtime.bundles.bundle import SHIPPED_DIR, Bundle, open_bundle
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.profiling.profile import shipped_path
from runtime.testbed.processes import running_mec

ENTRY_POINTS = """[mecpilot.workloads]
wardrobe = wardrobe_plug_in:Wardrobe
[mecpilot.codecs]
packed = wardrobe_plug_in:Packed
"""
MODULE = """
import zlib
import numpy as np
from controller.errors import RemoteProtocolError
from runtime.codecs import IMAGE, Codec, check_size
from runtime.workloads.garments.workload import Garments


class Wardrobe(Garments):
    name = "wardrobe"
    bundle = "garments"


class Packed(Codec):
    name, kind, lossless = "packed", IMAGE, True

    def encode(self, array):
        return zlib.compress(array.tobytes())

    def decode(self, payload, shape):
        try:
            pixels = zlib.decompressobj().decompress(payload, int(np.prod(shape)) + 1)
        except zlib.error as error:
            raise RemoteProtocolError(f"pixels that do not decompress: {error}") from None
        check_size("packed pixels", len(pixels), int(np.prod(shape)))
        return np.frombuffer(pixels, np.uint8).reshape(shape)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages that every process started from here sees."""
    folder = tmp_path / "site"
    info = folder / "wardrobe_plug_in-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wardrobe-plug-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "wardrobe_plug_in.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
    return folder


def bundle_with_codec(folder: Path) -> tuple[Bundle, Path]:
    """The models of garments, offered with one codec more; and a profile for them. Both take png's figures."""
    shutil.copytree(SHIPPED_DIR / "garments", folder)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["image_codecs"].append("packed")
    manifest["payloads"] += [p | {"codec": "packed"} for p in manifest["payloads"] if p["codec"] == "png"]
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    bundle = open_bundle(folder)
    profile = json.loads(shipped_path("garments").read_text()) | {"bundle_digest": bundle.digest}
    for side in ("device", "mec"):
        profile[side]["segments"] += [_packed(s) for s in profile[side]["segments"] if s["key"]["codec"] == "png"]
    path = folder.parent / "profile.json"
    path.write_text(json.dumps(profile))
    return bundle, path


def _packed(segment: dict[str, Any]) -> dict[str, Any]:
    return segment | {"key": segment["key"] | {"codec": "packed"}}


def mecpilot(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mecpilot", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_without_the_package_nobody_knows_the_name() -> None:
    done = mecpilot("device", "--workload", "wardrobe")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "unknown workload 'wardrobe'" in done.stderr


@pytest.mark.usefixtures("installed")
def test_every_command_takes_the_name_of_an_installed_workload(tmp_path: Path) -> None:
    options = ("--workload", "wardrobe", "--controllers", "device-only", "--seeds", "1", "--frames", "5")
    done = mecpilot("evaluate", *options, "--profile", "shipped", "--json", "-")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert "device-only" in json.loads(done.stdout)["controllers"]


@pytest.mark.usefixtures("installed")
def test_device_and_mec_use_an_installed_workload_and_codec(tmp_path: Path) -> None:
    bundle, profile = bundle_with_codec(tmp_path / "bundle")
    options = {"workload": "wardrobe", "bundle": bundle.directory, "profile": profile}
    decision = {"payload": "packed"}
    of_mec = ("--bundle", str(bundle.directory), "--profile", str(profile))
    with running_mec("wardrobe", options=of_mec) as mec:
        done = run_device(
            mec.endpoint, tmp_path / "log", **options, decision=decision, frames=10, fps=20, deadline_ms=2000
        )
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    done.check_no_frame_lost(10)
    by_mec = [o for o in done.outcomes if o["status"] == "ok" and o["decision"]["payload"] == "packed"]
    assert by_mec
    assert all(o["payload_bytes"] > 0 for o in by_mec)
