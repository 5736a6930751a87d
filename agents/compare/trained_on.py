"""Find the traces that a policy was trained on. Traces are compared by content, so a copy under another name counts.

A policy file names the sources of its training traces, and since it is exported with their digests also what they were.
Of older files the sources are read again; where they are gone, nobody can tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.compare.setup import BUILTIN_TRAIN, traces_of
from controller.errors import UsageError
from controller.predict.uplink import Trace, TraceBank

#: Key of the digests in a policy's description of its training.
DIGESTS = "trace_digests"


def trace_digest(trace: Trace) -> str:
    """Of times and values, not of the name."""
    digest = hashlib.sha256(trace.t_s.astype("<f8").tobytes())
    digest.update(trace.uplink_bps.astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def digests_of(sources: Sequence[str], seed: int = 0) -> list[str] | None:
    """Of the training traces that the sources name, the built-in ones without any; None where they cannot be read."""
    files = [] if tuple(sources) == (BUILTIN_TRAIN,) else [Path(source) for source in sources]
    try:
        return [trace_digest(trace) for trace in traces_of(files, "train", seed).traces]
    except UsageError:
        return None


def training_digests(training: Mapping[str, Any]) -> list[str] | None:
    """Of a policy's training traces, as its manifest describes the training; None where that is unknown."""
    if DIGESTS in training:
        return list(training[DIGESTS])
    if "traces" not in training:
        return None
    return digests_of(training["traces"], training.get("seed", 0))


def seen_before(what: str, learnt_from: list[str] | None, bank: TraceBank) -> list[str]:
    """One line if some of the traces were trained on, or if that is unknown; else empty."""
    if learnt_from is None:
        return [f"{what}: unknown which traces it was trained on"]
    count = _common(learnt_from, bank.traces)
    return (
        [f"{what}: {count} of {len(bank.traces)} traces were trained on, so its figures are optimistic"]
        if count
        else []
    )


def _common(learnt_from: Iterable[str], traces: Sequence[Trace]) -> int:
    known = set(learnt_from)
    return sum(trace_digest(trace) in known for trace in traces)
