"""Requests per second of a MEC that many devices ask all the time, against a bare loop of the same tails.

``python -m benchmarks.bench_batches`` starts ``mecpilot mec`` once for each ``--batch``, and clients in processes of
their own, over ZeroMQ on loopback. The MEC and the bare loop (decode, tail, nothing else, in this process) take turns,
so that a machine that does other work disturbs both alike. Beside the rates over the clock stand those over the
processor time of each process, which other work disturbs less; on a GPU only those over the clock count.

Batch sizes are those of the MEC's own request log.

``--sizes`` starts no MEC: it computes batches of each size in this process, and prints how much less processor time a
request takes than alone, and how far its outputs lie from those alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.support.ending import exit_code
from benchmarks.support.pressing import payloads_of
from controller.errors import UsageError
from controller.records import Decision
from runtime.bundles.bundle import Bundle, open_pair
from runtime.config.sections.admission import OPEN_OPTIONS
from runtime.inference.segments import Segments
from runtime.testbed.processes import RunningMec, running_mec

#: Devices of one client process.
_DEVICES = 32
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """What was served in all rounds."""

    count: int = 0
    computed: int = 0  # in the processor time
    clock_s: float = 0.0
    processor_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    rejected: int = 0

    @property
    def per_s(self) -> float:
        return self.count / max(self.clock_s, 1e-9)

    @property
    def per_processor_s(self) -> float:
        return self.computed / max(self.processor_s, 1e-9)


def chosen_row(bundle: Bundle, o: argparse.Namespace) -> int:
    """The row of the decision that the options describe, at its last exit."""
    found = [
        (d.exit_branch, row)
        for row, d in enumerate(bundle.space.decisions)
        if (d.model, d.resolution_px, d.partition_point, d.payload) == (o.model, o.px, o.cut, o.payload)
        and not d.gate
        and not d.crop
        and d.frame_stride == 1
    ]
    if not found:
        raise UsageError(f"{o.workload} has no decision with {o.model}, {o.px} px, cut {o.cut} and payload {o.payload}")
    return max(found)[1]


def bare_loop(segments: Segments, payloads: list[bytes], decision: Decision, size: int, seconds: float) -> Measured:
    """Decode and compute in batches of one size, one after the other."""
    found, place = Measured(), 0
    began_s, processor_s = time.perf_counter(), time.process_time()
    while time.perf_counter() - began_s < seconds:
        batch = [payloads[(place + n) % len(payloads)] for n in range(size)]
        segments.tails([segments.decoded(memoryview(payload), decision) for payload in batch], decision)
        place, found.count = place + size, found.count + size
    found.computed = found.count
    found.clock_s, found.processor_s = time.perf_counter() - began_s, time.process_time() - processor_s
    return found


def compare_sizes(segments: Segments, payloads: list[bytes], row: int, o: argparse.Namespace) -> None:
    """Batches of each size, decoded before; the sizes take turns, and the fastest round of each counts."""
    decision = segments.bundle.space.decisions[row]
    arrays = [segments.decoded(memoryview(payload), decision) for payload in payloads]
    sizes = [1 << power for power in range(len(arrays).bit_length())]
    least_s, furthest = dict.fromkeys(sizes, np.inf), dict.fromkeys(sizes, 0.0)
    alone = np.concatenate([segments.tails([array], decision) for array in arrays])
    for _ in range(o.rounds + 1):
        for size in sizes:
            began_s = time.process_time()
            parts = [segments.tails(arrays[at : at + size], decision) for at in range(0, len(arrays), size)]
            least_s[size] = min(least_s[size], (time.process_time() - began_s) / len(arrays))
            furthest[size] = max(furthest[size], float(np.abs(np.concatenate(parts) - alone).max()))
    table = Table("size", "ms per request", "times as fast as alone", "largest difference", box=box.MARKDOWN)
    for size in sizes:
        speedup = f"{least_s[1] / least_s[size]:.2f}"
        table.add_row(str(size), f"{1e3 * least_s[size]:.2f}", speedup, f"{furthest[size]:.1e}")
    Console(width=140).print(table)


def under_load(mec: RunningMec, log: Path, row: int, o: argparse.Namespace, into: Measured) -> None:
    """One round with all devices. Rates count what the clients got after their warm-up; processor time is that of the
    whole round, over all that the MEC computed in it."""
    processes = []
    for first in range(0, o.devices, _DEVICES):
        options = {"--mec": mec.endpoint, "--workload": o.workload, "--row": row, "--first": first}
        options |= {"--devices": min(_DEVICES, o.devices - first), "--in-flight": o.in_flight}
        options |= {"--warm-s": o.warm_s, "--seconds": o.seconds}
        command = [str(part) for pair in options.items() for part in pair]
        module = (sys.executable, "-m", "benchmarks.support.pressing")
        processes.append(subprocess.Popen([*module, *command], stdout=subprocess.PIPE, text=True))
    before_s, before, served = _processor_s(mec.process.pid), rows_in(log), 0
    for process in processes:
        out, _ = process.communicate()
        if process.returncode:
            raise UsageError(f"a client ended with exit code {process.returncode}")
        found = json.loads(out)
        into.latencies_ms += found["latencies_ms"]
        into.rejected += found["rejected"]
        served += len(found["latencies_ms"])
    into.count += served
    into.clock_s += o.seconds
    drained(log)
    into.processor_s += _processor_s(mec.process.pid) - before_s
    into.computed += rows_in(log) - before


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def rows_in(log: Path) -> int:
    """Requests that the MEC has answered so far."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def drained(log: Path) -> None:
    """Wait until the MEC has computed what clients left behind."""
    last = -1
    while last != (last := rows_in(log)):
        time.sleep(1.0)


def sizes_in(log: Path) -> Counter[int]:
    """Requests of the log by the size of their batch."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return Counter(row["together"] for row in rows if row["ending"] == "served")


def run(o: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    bundle, work = open_pair(o.workload)
    segments, row = Segments(bundle, work, o.engine, print), chosen_row(bundle, o)
    decision = bundle.space.decisions[row]
    payloads = payloads_of(segments, bundle, decision, range(min(o.devices, 16)))
    if o.sizes:
        print(f"{o.workload}, {o.model} {o.px} px, cut {o.cut}, {o.payload}, exit {decision.exit_branch}")
        compare_sizes(segments, payloads, row, o)
        return
    bare_loop(segments, payloads, decision, 1, 1.0)  # warms up
    print(
        f"{o.workload}, {o.model} {o.px} px, cut {o.cut}, {o.payload}, exit {decision.exit_branch}; {o.devices} "
        f"devices with {o.in_flight} requests each; {o.rounds} rounds of {o.seconds:g} s; engine "
        f"{o.engine or 'of the bundle'}"
    )
    headings = ("batch", "requests/s", "bare loop/s", "ratio", "processor ratio", "p50 ms", "p95 ms", "rejected")
    table = Table(*headings, "requests by size", box=box.MARKDOWN)
    for batch in o.batch:
        table.add_row(str(batch), *_measured(segments, payloads, row, batch, o))
    Console(width=140).print(table)


def _measured(segments: Segments, payloads: list[bytes], row: int, batch: int, o: argparse.Namespace) -> list[str]:
    decision = segments.bundle.space.decisions[row]
    bare, served = Measured(), Measured()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.jsonl"
        options = (*OPEN_OPTIONS, "--batch", str(batch), "--requests", str(log))
        options += ("--engine", o.engine) if o.engine else ()
        with running_mec(o.workload, options=(*options, "--queue-limit", str(2 * o.devices * o.in_flight))) as mec:
            for _ in range(o.rounds):
                one = bare_loop(segments, payloads, decision, o.bare, o.seconds / 2)
                under_load(mec, log, row, o, served)
                two = bare_loop(segments, payloads, decision, o.bare, o.seconds / 2)
                for each in (one, two):
                    bare.count += each.count
                    bare.computed += each.computed
                    bare.clock_s += each.clock_s
                    bare.processor_s += each.processor_s
        sizes = sizes_in(log)
    p50, p95 = np.percentile(served.latencies_ms or [np.nan], [50, 95])
    return [
        f"{served.per_s:.1f}",
        f"{bare.per_s:.1f}",
        f"{served.per_s / bare.per_s:.2f}",
        f"{served.per_processor_s / bare.per_processor_s:.2f}",
        f"{p50:.1f}",
        f"{p95:.1f}",
        str(served.rejected),
        shown(sizes),
    ]


def shown(sizes: Counter[int]) -> str:
    """Share of the requests that were computed in batches of each size."""
    total = max(sum(sizes.values()), 1)
    return ", ".join(f"{size}: {count / total:.0%}" for size, count in sorted(sizes.items()))


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.bench_batches")
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--model", default="medium")
    parser.add_argument("--px", type=int, default=768)
    parser.add_argument("--cut", type=int, default=0, help="partition point")
    parser.add_argument("--payload", default="raw")
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=1, help="requests that each device keeps unanswered")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--bare", type=int, default=1, help="size of the batches of the bare loop")
    parser.add_argument("--sizes", action="store_true", help="only compare batch sizes in this process")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a round")
    parser.add_argument("--warm-s", type=float, default=4.0, help="before each round, under load")
    parser.add_argument("--engine", help="of the MEC and the bare loop, such as cuda; default: the bundle's")
    return parser.parse_args(arguments)


def main() -> int:
    options = parsed(sys.argv[1:])
    return exit_code("bench_batches", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
