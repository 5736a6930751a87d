"""Many devices against one MEC, and one that floods it: latency, shares and answers. Real processes and sockets.

``--flood``: the 95th percentile of a good device's latency while another one floods, over that in quiet, in turns.
``--many``: 64 devices ask for more than the MEC can do. Share of requests answered within their budget, Jain's index of
their counts over devices (1: all are equal), queueing times, and whether every answer equals the one computed alone.
The MEC is emulated: a tail takes ``--tail-ms``, most of it idle, so that a shared machine disturbs little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.support.crowd import payload_of
from benchmarks.support.flooder import KINDS
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.config.sections.admission import OPEN_OPTIONS
from runtime.profiling.profile import load_costs
from runtime.testbed.processes import running_mec

WORKLOAD = "garments"
ARMS = {"admission": (), "without": OPEN_OPTIONS}
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.bench_many")
    parser.add_argument("--flood", action="store_true")
    parser.add_argument("--many", action="store_true")
    parser.add_argument("--tail-ms", type=float, default=10.0)
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--greedy", type=int, default=8, help="of these ask four times as often")
    parser.add_argument("--fps", type=float, default=3.0, help="of each device; of the good one against a flood: 20")
    parser.add_argument("--budget-ms", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of the flood, in turns with quiet")
    o = parser.parse_args()
    bundle = open_bundle(WORKLOAD)
    if o.flood or not o.many:
        flood(bundle, o)
    if o.many or not o.flood:
        many(bundle, o)
    return 0


def raw_row(bundle: Bundle) -> int:
    """The full offload of a raw picture that takes the MEC longest."""
    space, mec_s = bundle.space, load_costs(bundle, None).mec_s
    rows = [row for row, d in enumerate(space.decisions) if d.payload == "raw"]
    return max(rows, key=lambda row: float(mec_s[row]))


def slowdown_for(bundle: Bundle, row: int, tail_ms: float) -> float:
    """What makes the tail of a row take so long."""
    return tail_ms / 1e3 / float(load_costs(bundle, None).mec_s[row])


# One that floods --------------------------------------------------------------------------------------------------


def flood(bundle: Bundle, o: argparse.Namespace) -> None:
    row = raw_row(bundle)
    slowdown = slowdown_for(bundle, row, o.tail_ms)
    print(f"a device of 20 frames/s, tail {o.tail_ms:g} ms; latency p50 / p95 in ms, quiet and flooded in turns")
    for arm, options in ARMS.items():
        with running_mec(WORKLOAD, slowdown=slowdown, options=(*options, "--bundle", str(bundle.directory))) as mec:
            quiet: list[float] = []
            flooded: dict[str, list[float]] = defaultdict(list)
            for _ in range(o.rounds):
                quiet += latencies(ask_all(mec.endpoint, row, [20.0], o.seconds / o.rounds, 1000.0))
                for kind in KINDS:
                    with flooding(kind, mec.endpoint, row):
                        flooded[kind] += latencies(ask_all(mec.endpoint, row, [20.0], o.seconds / o.rounds, 1000.0))
        for kind, values in flooded.items():
            ratio = percentile(values, 95) / percentile(quiet, 95)
            print(f"{arm:10} {kind:9} quiet {shown(quiet)}  flooded {shown(values)}  p95 ratio {ratio:.2f}", flush=True)


@contextmanager
def flooding(kind: str, endpoint: str, row: int) -> Iterator[None]:
    """One device floods during a block."""
    command = [sys.executable, "-m", "benchmarks.support.flooder", kind, "--mec", endpoint, "--bundle", WORKLOAD]
    process = subprocess.Popen([*command, "--row", str(row)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield
    finally:
        process.communicate()


def latencies(rows: Sequence[Row]) -> list[float]:
    """Of every request; of one without an answer, infinity."""
    return [row["latency_ms"] if row["ending"] == "served" else np.inf for row in rows]


def percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent, method="higher"))


def shown(values: Sequence[float]) -> str:
    return f"{percentile(values, 50):6.1f} / {percentile(values, 95):6.1f} (n {len(values)})"


# Many -------------------------------------------------------------------------------------------------------------


def many(bundle: Bundle, o: argparse.Namespace) -> None:
    row = raw_row(bundle)
    fps = [o.fps * (4 if number < o.greedy else 1) for number in range(o.devices)]
    load = sum(fps) * o.tail_ms / 1e3
    print(
        f"{o.devices} devices, {o.greedy} of them of {4 * o.fps:g} frames/s, the others of {o.fps:g}; tail "
        f"{o.tail_ms:g} ms, budget {o.budget_ms:g} ms: {load:.1f} times what the MEC can do"
    )
    expected = digests_alone(bundle, row, o.devices)
    for arm, options in ARMS.items():
        slowdown = slowdown_for(bundle, row, o.tail_ms)
        with running_mec(WORKLOAD, slowdown=slowdown, options=(*options, "--bundle", str(bundle.directory))) as mec:
            rows = ask_all(mec.endpoint, row, fps, o.seconds, o.budget_ms)
        report(arm, rows, expected, o)


def report(arm: str, rows: Sequence[Row], expected: Sequence[int], o: argparse.Namespace) -> None:
    served = [row for row in rows if row["ending"] == "served"]
    equal = sum(row["digest"] == expected[row["device"]] for row in served)
    asked, in_time = defaultdict(int), defaultdict(int)
    for row in rows:
        asked[row["device"]] += 1
        in_time[row["device"]] += row["ending"] == "served" and row["latency_ms"] <= o.budget_ms
    counts = np.array([in_time[device] for device in range(o.devices)], float)
    shares = np.array([in_time[device] / max(asked[device], 1) for device in range(o.devices)])
    queue = [row["queue_ms"] for row in served]
    refused = [row["latency_ms"] for row in rows if row["ending"] in ("busy", "expired")]
    print(
        f"{arm:10} asked {len(rows)}, served {len(served)} ({equal} equal to those alone), in budget "
        f"{counts.sum():.0f} ({counts.sum() / max(len(rows), 1):.1%})\n"
        f"           in budget of the modest {shares[o.greedy :].mean():.1%}, of the greedy "
        f"{shares[: o.greedy].mean():.1%}; Jain's index of answers {jain(counts):.3f}, among the modest "
        f"{jain(counts[o.greedy :]):.3f}\n"
        f"           queueing p50 {percentile(queue or [0.0], 50):.1f}, p95 {percentile(queue or [0.0], 95):.1f} ms; "
        f"a refusal came after p50 {percentile(refused or [0.0], 50):.1f} ms",
        flush=True,
    )


def jain(values: np.ndarray) -> float:
    """Jain's index of fairness: 1 if all values are equal, 1/n if one has everything."""
    return float(values.sum() ** 2 / (len(values) * (values**2).sum())) if values.any() else 0.0


def digests_alone(bundle: Bundle, row: int, devices: int) -> list[int]:
    """Digest of the outputs for each device's payload, computed in this process one after the other."""
    import torch

    from runtime.inference.segments import Segments

    torch.set_num_threads(1)
    segments, decision = Segments(bundle, bundle.work), bundle.space.decisions[row]
    payloads = (payload_of(bundle, row, device) for device in range(devices))
    tails = (segments.tail(memoryview(payload), decision) for payload in payloads)
    return [zlib.crc32(np.ascontiguousarray(outputs).tobytes()) for outputs in tails]


def ask_all(endpoint: str, row: int, fps: Sequence[float], seconds: float, budget_ms: float) -> list[Row]:
    """What becomes of the requests of so many devices, in processes of at most 32."""
    processes = []
    for first in range(0, len(fps), 32):
        command = [sys.executable, "-m", "benchmarks.support.crowd", "--mec", endpoint, "--bundle", WORKLOAD]
        options = {"--row": row, "--first": first, "--budget-ms": budget_ms, "--seconds": seconds}
        command += [str(part) for pair in options.items() for part in pair]
        command += ["--fps", *map(str, fps[first : first + 32])]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    found: list[Row] = []
    for process in processes:
        out, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a crowd ended with exit code {process.returncode}")
        found += [json.loads(line) for line in out.splitlines()]
    return found


if __name__ == "__main__":
    sys.exit(main())
