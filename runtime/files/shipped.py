"""Folders of the bundles, policies and profiles that mecpilot ships."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parent.parent / "shipped"


def shipped_dir(kind: str) -> Path:
    """The folder of a kind of shipped files: "bundles", "policies" or "profiles"."""
    return _ROOT / kind
