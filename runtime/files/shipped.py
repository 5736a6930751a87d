"""Where the bundles, policies and profiles that come with mecpilot are."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parent.parent / "shipped"


def shipped_dir(kind: str) -> Path:
    """The folder of what ships: "bundles", "policies" or "profiles"."""
    return _ROOT / kind
