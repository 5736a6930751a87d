"""When a device noticed a fault, and when it answered a frame after that without the faulty MEC.

Both are found in its outcomes and its log lines. A fault is *noticed* at the earlier of two moments. One is the log
line that says that a link is down, or that a breaker has opened, stamped when it comes out of the process. The
other is when the first fallback of an offloaded frame begins: its timer has fired, or its request was rejected, lost or
answered wrongly. An outcome does not tell this moment itself. It is the capture, plus waiting, deciding and the time
since the payload was sent, plus the time that the head before the payload took; for the last the median of the answered
frames with the same cut before the fault stands in.
"""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from controller.records import NO_PAYLOAD

#: What a line contains by which a device says that it has noticed something.
_SIGNS = ("the link is down", "the link is refused", "the breaker of")

Lines = Sequence[tuple[float, str]]  # Unix time, text


@dataclass(frozen=True)
class Noticed:
    """Seconds from the fault to the first sign of it, and from there to the first answer without the faulty MEC: of the
    device itself, or of another MEC where there is one."""

    after_s: float
    answered_s: float


def noticed(
    outcomes: Sequence[Mapping[str, Any]], lines: Lines, fault_s: float, others: Collection[str] = ()
) -> Noticed | None:
    """What a device did after a fault at this Unix time; None if it noticed nothing, or answered nothing after that.
    ``others``: the endpoints of MECs without a fault."""
    heads = _heads_s([outcome for outcome in outcomes if _end_s(outcome) < fault_s])
    signs = [at_s for at_s, text in lines if at_s >= fault_s and any(sign in text for sign in _SIGNS)]
    begins = [_fallback_s(outcome, heads) for outcome in outcomes if _fell_back(outcome)]
    seen_s = min([at_s for at_s in [*signs, *begins] if at_s >= fault_s], default=None)
    if seen_s is None:
        return None
    answers = [_end_s(outcome) for outcome in outcomes if _is_local(outcome) or outcome["mec"] in others]
    answered_s = min([at_s for at_s in answers if at_s >= seen_s], default=None)
    return None if answered_s is None else Noticed(seen_s - fault_s, answered_s - seen_s)


def _end_s(outcome: Mapping[str, Any]) -> float:
    return float(outcome["captured_at"] + outcome["latency_ms"] / 1e3)


def _fell_back(outcome: Mapping[str, Any]) -> bool:
    return bool(outcome["status"] == "fallback" and outcome["payload_bytes"])


def _is_local(outcome: Mapping[str, Any]) -> bool:
    local = outcome["status"] == "ok" and outcome["decision"]["payload"] == NO_PAYLOAD
    return bool(local or outcome["status"] == "fallback")


def _cut(outcome: Mapping[str, Any]) -> tuple[Any, ...]:
    decision = outcome["decision"]
    return decision["model"], decision["resolution_px"], decision["partition_point"]


def _heads_s(outcomes: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], float]:
    """Median time of the head of each cut, in seconds."""
    found = defaultdict(list)
    for outcome in outcomes:
        if outcome["status"] == "ok" and not _is_local(outcome):
            found[_cut(outcome)].append(outcome["breakdown_ms"]["head"] / 1e3)
    return {cut: statistics.median(heads) for cut, heads in found.items()}


def _fallback_s(outcome: Mapping[str, Any], heads: Mapping[tuple[Any, ...], float]) -> float:
    """When the fallback of a frame began."""
    spent, head_s = outcome["breakdown_ms"], heads.get(_cut(outcome), 0.0)
    return float(outcome["captured_at"] + (spent["wait"] + spent["decide"] + spent["uplink"]) / 1e3 + head_s)


class StampedLines:
    """Reads what a process says, and keeps each line with the time at which it came."""

    def __init__(self, pipe: IO[bytes], copy: Path) -> None:
        self._lines: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, args=(pipe, copy), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[bytes], copy: Path) -> None:
        with copy.open("w") as file:
            for line in pipe:
                at_s, text = time.time(), line.decode(errors="replace").rstrip()
                self._lines.append((at_s, text))
                file.write(f"{at_s:.3f} {text}\n")

    def finish(self, process: subprocess.Popen[bytes]) -> Lines:
        """All lines, once the process has ended."""
        process.wait()
        self._thread.join()
        return self._lines
