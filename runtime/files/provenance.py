"""Provenance of a result: the files it was made with, each with a digest, and the revision of this program."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from runtime.version import VERSION

#: Where a file comes from.
SHIPPED, OWN, GIVEN = "shipped", "this machine's", "given"
DIGEST_DIGITS = 12


class Used(msgspec.Struct, frozen=True):
    """One file."""

    path: str  # as it was given; of a file that ships or is this machine's, its name alone
    origin: str  # SHIPPED, OWN or GIVEN
    digest: str  # the first digits of its SHA-256

    @property
    def text(self) -> str:
        return f"{self.path if self.origin == GIVEN else self.origin} ({self.digest})"


def used(path: Path, origin: str) -> Used:
    """The file as it is now. Results are shared, so they do not show where mecpilot is installed."""
    shown = str(path) if origin == GIVEN else path.name
    return Used(shown, origin, hashlib.sha256(path.read_bytes()).hexdigest()[:DIGEST_DIGITS])


class Provenance(msgspec.Struct, frozen=True):
    """Everything that a result rests on, but the traces and the conditions."""

    workload: str
    bundle_digest: str
    profile: Used | None = None
    policies: tuple[Used, ...] = ()  # of ppo; empty where it does not take part
    tuning: Used | None = None  # of the classical controllers
    notes: tuple[str, ...] = ()  # what a reader must know to compare the figures

    def as_json(self) -> dict[str, Any]:
        return {**msgspec.to_builtins(self), "revision": revision(), "version": VERSION}

    @property
    def lines(self) -> list[str]:
        """The same for people."""
        policies = ", ".join(policy.text for policy in self.policies)
        named = {
            "profile": self.profile.text if self.profile else "",
            "policy": policies,
            "tuning": self.tuning.text if self.tuning else "",
            "bundle": self.bundle_digest[:DIGEST_DIGITS],
        }
        return ["; ".join(f"{name} {text}" for name, text in named.items() if text), *self.notes]


def comparability(profile: Used) -> tuple[str, ...]:
    """A note where figures depend on the machine."""
    if profile.origin == SHIPPED:
        return ()
    return (
        "slowdowns count from that profile; `--profile shipped` gives figures that can be compared across machines",
    )


def revision() -> str:
    """Of the checkout that this file belongs to; empty where it is installed, also inside somebody's repository."""
    if not _git("ls-files", "--error-unmatch", Path(__file__).name):
        return ""
    return _git("describe", "--always", "--dirty", "--abbrev=12")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
