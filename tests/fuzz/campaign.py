"""A run of the fuzzer on one target, in a process of its own: libFuzzer ends the process that it runs in."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.target import CORPUS

ROOT = Path(__file__).parents[2]
#: What libFuzzer names the inputs that it stops at.
_FOUND = ("crash-*", "timeout-*", "oom-*", "leak-*")
_MOST_BYTES = 4096
#: Of one target, in the repository.
_MOST_KEPT_BYTES, _MOST_KEPT = 20_000, 40
_START_S = 120.0


@dataclass(frozen=True)
class Result:
    """What a run did. ``found`` counts inputs that break the rule; the first one ends the run."""

    target: str
    runs: int
    seconds: float
    peak_mb: int
    found: int
    text: str  # the error, or the end of the output

    def line(self) -> str:
        """One line for people; with the error, if there is one."""
        counted = f"{self.target:15} {self.runs:9} runs in {self.seconds:5.0f} s, peak {self.peak_mb:5} MB"
        return counted + (f", FOUND {self.found}\n{self.text}" if self.found else "")


def fuzz(name: str, seconds: float, work: Path) -> Result:
    """Run a target for so long, or until something is found. ``work`` keeps its grown corpus and what was found."""
    grown, found = work / "corpus" / name, work / "found" / name
    for folder in (grown, found):
        folder.mkdir(parents=True, exist_ok=True)
    before = _inputs(found)
    with tempfile.TemporaryDirectory() as first:
        options = [f"-max_total_time={max(round(seconds), 1)}", f"-artifact_prefix={found}/", f"-max_len={_MOST_BYTES}"]
        folders = [str(grown), *([str(CORPUS / name)] if (CORPUS / name).is_dir() else [])]
        options += ["-timeout=20", "-rss_limit_mb=3000", "-print_final_stats=1"]
        done = _run(name, first, [*options, *folders], seconds)
    new = len(_inputs(found) - before)
    if done.returncode and not new:
        raise RuntimeError(f"the fuzzer of {name} ended with {done.returncode}: {done.stderr[-2000:]}")
    runs, took, peak = (
        int(match[1]) if (match := re.search(pattern, done.stderr)) else 0
        for pattern in (r"number_of_executed_units:\s*(\d+)", r"Done \d+ runs in (\d+)", r"peak_rss_mb:\s*(\d+)")
    )
    error = (done.stdout + done.stderr).partition("Uncaught Python exception")[2].partition("ERROR: libFuzzer")[0]
    return Result(name, runs, float(took), peak, new, (error or done.stderr)[-3000:])


def keep(name: str, work: Path) -> int:
    """Put the smallest of the inputs that reached new code into the repository; returns how many there are."""
    kept = CORPUS / name
    paths = [path for folder in (work / "corpus" / name, kept) if folder.is_dir() for path in folder.glob("*")]
    chosen: dict[str, bytes] = {}
    for data in sorted({path.read_bytes() for path in paths}, key=lambda data: (len(data), data)):
        if len(chosen) == _MOST_KEPT or sum(map(len, chosen.values())) + len(data) > _MOST_KEPT_BYTES:
            break
        chosen[hashlib.sha256(data).hexdigest()[:16]] = data
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for digest, data in chosen.items():
        (kept / digest).write_bytes(data)
    return len(chosen)


def _inputs(found: Path) -> set[Path]:
    return {path for pattern in _FOUND for path in found.glob(pattern)}


def _run(name: str, seeds: str, options: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer, which begins with its seeds: it writes them to a folder, and reads it.

    It runs below a shell, because Linux hands the peak memory of a process on to the program that it starts, and the
    fuzzer would take that of a test process for its own.
    """
    shell = ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
    command = [*shell, sys.executable, "-m", "tests.fuzz.instrumented", name, seeds, *options, seeds]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + _START_S, check=False)
