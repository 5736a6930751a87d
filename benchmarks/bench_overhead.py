"""Measures the time that the runtime adds to a full offload: capture to answer, minus encoding and the MEC's tail.

``python -m benchmarks.bench_overhead`` starts ``mecpilot mec`` and ``mecpilot device`` as two processes on loopback,
without an emulated uplink, one frame after another, and reads the device's outcome log. The encoding is the device's
whole head (resize included), the tail is the time that the MEC reports (decoding included). The difference contains the
decision, the messages of both sides, the sockets, all wake-ups and the judging of the answer. The budget is 1.0 ms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from runtime.testbed.processes import running_mec

BUDGET_MS = 1.0
CODECS = ("raw", "png")
#: Frames at the start that are not counted.
SKIPPED = 50


def outcomes(endpoint: str, workload: str, codec: str, frames: int, folder: Path) -> list[dict]:
    """Run the device with one full offload for all frames. Returns its outcome log."""
    log = folder / f"{codec}.jsonl"
    decision = json.dumps({"partition_point": 0, "payload": codec})
    command = [sys.executable, "-m", "mecpilot", "device", "--mec", endpoint, "--workload", workload]
    command += ["--fps", "0", "--frames", str(frames), "--decision", decision, "--outcomes", str(log), "--json", "-"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in log.read_text().splitlines()][SKIPPED:]


def overhead_ms(outcome: dict) -> float:
    return outcome["latency_ms"] - outcome["breakdown_ms"]["head"] - outcome["breakdown_ms"]["tail"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="garments")
    parser.add_argument("--frames", type=int, default=1000)
    options = parser.parse_args()
    within = True
    print(f"{'codec':<6} {'end to end':>11} {'encode':>8} {'tail':>8} {'overhead p50':>13} {'p95':>8}   (ms)")
    with tempfile.TemporaryDirectory() as folder, running_mec(options.workload) as mec:
        for codec in CODECS:
            log = outcomes(mec.endpoint, options.workload, codec, options.frames, Path(folder))
            sent = [outcome for outcome in log if outcome["status"] == "ok"]
            head, tail = (np.median([o["breakdown_ms"][term] for o in sent]) for term in ("head", "tail"))
            p50, p95 = np.percentile([overhead_ms(o) for o in sent], [50, 95])
            latency = np.median([o["latency_ms"] for o in sent])
            print(f"{codec:<6} {latency:>11.3f} {head:>8.3f} {tail:>8.3f} {p50:>13.3f} {p95:>8.3f}")
            within = within and p50 <= BUDGET_MS
    print(f"budget {BUDGET_MS} ms at p50: {'kept' if within else 'MISSED'}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
