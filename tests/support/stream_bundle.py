"""The shipped garments bundle, offered with the stream codecs of ``support.xor_streams`` as well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from controller.records import Decision
from runtime.bundles.bundle import SHIPPED_DIR, Bundle
from runtime.bundles.manifest import MANIFEST_FILE
from runtime.profiling.profile import shipped_path
from support.xor_streams import register

WORKLOAD = "garments"
#: Stream codec -> the codec whose sizes and times stand for it, and the field of the manifest that lists it.
_LIKE = {"xor": ("raw", "image_codecs"), "xorchain": ("raw", "image_codecs"), "xort": ("u8", "tensor_codecs")}
FREE = Decision("mobilenet", 28, 3, 0, "xor")
CHAINED = Decision("mobilenet", 28, 3, 0, "xorchain")
TENSOR = Decision("resnet", 28, 3, 2, "xort")


def make(folder: Path) -> None:
    """Write the bundle and a profile of it to a new folder."""
    register()
    shutil.copytree(SHIPPED_DIR / WORKLOAD, folder / "bundle")
    path = folder / "bundle" / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    for codec, (like, field) in _LIKE.items():
        manifest[field].append(codec)
        manifest["payloads"] += _copies(manifest["payloads"], "codec", like, codec)
    path.write_text(json.dumps(manifest))
    profile = json.loads(shipped_path(WORKLOAD).read_text())
    profile["bundle_digest"] = Bundle(folder / "bundle").digest
    for side in ("device", "mec"):
        segments = profile[side]["segments"]
        for codec, (like, _) in _LIKE.items():
            segments += [s | {"key": s["key"] | {"codec": codec}} for s in segments if s["key"]["codec"] == like]
    (folder / "profile.json").write_text(json.dumps(profile))


def _copies(rows: list[dict[str, Any]], field: str, value: str, other: str) -> list[dict[str, Any]]:
    return [row | {field: other} for row in rows if row[field] == value]
