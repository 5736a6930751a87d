"""Packages with entry points that are installed by a folder on the search path, without an installer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

EntryPoints = Mapping[str, Mapping[str, str]]  # group -> name -> module:attribute


def install(site: Path, package: str, groups: EntryPoints) -> None:
    """What an installer leaves of a package's entry points in a folder of packages. Its modules are not copied."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in of.items()) for group, of in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
