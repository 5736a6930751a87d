"""Provenance of a result: the files behind it, each with a digest, and the revision of this program."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from runtime.version import VERSION

#: Origins of a file.
SHIPPED, OWN, GIVEN = "shipped", "this machine's", "given"
DIGEST_DIGITS = 12


class Used(msgspec.Struct, frozen=True):
    """A file that a result depends on."""

    path: str  # as it was given; of a file that ships or is this machine's, its name alone
    origin: str  # SHIPPED, OWN or GIVEN
    digest: str  # the first digits of its SHA-256

    @property
    def text(self) -> str:
        """Path or origin, and digest, for people."""
        return f"{self.path if self.origin == GIVEN else self.origin} ({self.digest})"


def used(path: Path, origin: str) -> Used:
    """Provenance of a file with its current digest; OSError when it cannot be read. Results are shared, so they do not
    show where mecpilot is installed."""
    shown = str(path) if origin == GIVEN else path.name
    return Used(shown, origin, hashlib.sha256(path.read_bytes()).hexdigest()[:DIGEST_DIGITS])


class Provenance(msgspec.Struct, frozen=True):
    """Everything that a result depends on, except traces and conditions."""

    workload: str
    bundle_digest: str
    profile: Used | None = None
    policies: tuple[Used, ...] = ()  # of ppo; empty if ppo does not take part
    tuning: Used | None = None  # of the classical controllers
    notes: tuple[str, ...] = ()  # what a reader must know to compare the figures

    def as_json(self) -> dict[str, Any]:
        """JSON-able, with the revision and version of this program."""
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
    """A note for results whose figures depend on the profile of one machine; empty for the shipped profile."""
    if profile.origin == SHIPPED:
        return ()
    return ("slowdowns are relative to that profile; `--profile shipped` gives figures comparable across machines",)


def revision() -> str:
    """Git revision of the checkout that this file belongs to; "" for an installed copy, even inside a repository."""
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
