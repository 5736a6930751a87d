"""Finds out what a policy was trained on and with, so that a report can warn about traces that it has seen.

Traces are compared by content, so a copy under another name counts. A policy file contains the digests of its training
traces. An older file only names their sources, which are read again; if they are gone, the answer is unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agents.compare.traces import BUILTIN_TRAIN
from controller.errors import UsageError
from controller.predict.uplink import Trace, TraceBank
from envs.setup import traces_of
from envs.techniques import Techniques

#: Key of the digests in the description of a policy's training.
DIGESTS = "trace_digests"


def trace_digest(trace: Trace) -> str:
    """Digest of a trace's times and values; its name does not matter."""
    digest = hashlib.sha256(trace.t_s.astype("<f8").tobytes())
    digest.update(trace.uplink_bps.astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def digests_of(sources: Sequence[str], seed: int = 0) -> list[str] | None:
    """Digests of the training traces in these files and folders, or of the built-in ones if there are no sources.

    None if a source cannot be read.
    """
    files = [] if tuple(sources) == (BUILTIN_TRAIN,) else [Path(source) for source in sources]
    try:
        return [trace_digest(trace) for trace in traces_of(files, "train", seed).traces]
    except UsageError:
        return None


def training_digests(training: Mapping[str, Any]) -> list[str] | None:
    """Digests of a policy's training traces from the description in its manifest; None if unknown."""
    if DIGESTS in training:
        return list(training[DIGESTS])
    if "traces" not in training:
        return None
    return digests_of(training["traces"], training.get("seed", 0))


def seen_before(what: str, trained_on: list[str] | None, bank: TraceBank) -> list[str]:
    """A warning if a policy was trained on some of the bank's traces, or if that is unknown; else nothing.

    ``what`` names the policy; ``trained_on``: digests of its training traces, None if unknown.
    """
    if trained_on is None:
        return [f"{what}: unknown which traces it was trained on"]
    count = _common(trained_on, bank.traces)
    return (
        [f"{what}: {count} of {len(bank.traces)} traces were trained on, so its figures are optimistic"]
        if count
        else []
    )


def _common(trained_on: Iterable[str], traces: Sequence[Trace]) -> int:
    known = set(trained_on)
    return sum(trace_digest(trace) in known for trace in traces)


def trained_with(what: str, training: Mapping[str, Any]) -> list[str]:
    """The techniques that were on in a policy's training, from the description in its manifest; ``what`` names it."""
    try:
        techniques = msgspec.convert(training.get("techniques", {}), Techniques)
    except msgspec.ValidationError:
        return [f"{what}: unknown which techniques it was trained with"]
    return [f"{what} was trained with {note}" for note in techniques.notes]
