"""Keeps traces apart: those that training learns from, those that judge it while it runs, and those of evaluation.

Training traces are split by name: most are learned from, a few only judge the training while it runs. The traces of
the final evaluation are never used in training.
"""

from __future__ import annotations

import hashlib

from controller.predict.uplink import Trace, TraceBank

#: What comparisons and tunings call the built-in traces.
BUILTIN_TEST, BUILTIN_TRAIN = "built-in test traces", "built-in training traces"
#: 1 in 8 training traces is held out to judge the training.
VALIDATION_SHARE = 8


def hold_out(bank: TraceBank) -> tuple[list[Trace], list[Trace]]:
    """Split a bank into traces to learn from and traces that judge the learning, by a hash of the name.

    The choice does not depend on the other traces. A bank that is too small to be split serves both purposes.
    """
    judge = [trace for trace in bank.traces if _share_of(trace.name) == 0]
    learn = [trace for trace in bank.traces if _share_of(trace.name) != 0]
    return (learn, judge) if learn and judge else (list(bank.traces), list(bank.traces))


def family(trace: Trace) -> str:
    """Traces of one folder (or one built-in kind of link) are named ``family/trace``."""
    return trace.name.split("/")[0]


def families(bank: TraceBank) -> list[str]:
    """Family of each trace."""
    return [family(trace) for trace in bank.traces]


def _share_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % VALIDATION_SHARE
