"""Runs every benchmark, or those that are named.

Each benchmark is a module of this package that prints its own table and can be run alone.
"""

from __future__ import annotations

import subprocess
import sys

#: name -> what it measures, the quick ones first.
BENCHMARKS = {
    "bench_wire": "bytes of each message's header",
    "bench_ready": "seconds from the start of a MEC or device until ready, and until its first answer",
    "bench_decide": "time of one decision in numpy, and of predict() of an SB3 MlpPolicy",
    "bench_twin": "environment steps per second of the twin",
    "bench_scale": "steps per second over worker processes, and what a worker's start and a piece's way cost",
    "bench_payloads": "bytes per frame against score: splits, H.264, JPEG and WebP, payload alone and whole message",
    "bench_compression": "bytes, multiply-accumulates, time and score of compressed models, in a bundle that has some",
    "bench_cuts": "where models made elsewhere can be cut, and how far head and tail are from the whole; names models",
    "bench_engines": "time of a model's stages in float32 and 8 bits, per library",
    "bench_labels": "text detection on the rendered goods: F1 against the true boxes, agreement, time per resolution",
    "bench_energy": "the device's energy per frame: device-only against splits and images of no less score",
    "bench_forecast": "streaming accuracy of boxes that move on against boxes that stand still, per stride and latency",
    "bench_cache": "what a cache on the device finds, how far its answers agree with fresh ones, and what it saves",
    "bench_map": "which kind of decision is best by how much, over device speed and uplink bandwidth",
    "bench_overhead": "time that the runtime adds to a full offload on loopback",
    "bench_curve": "what encryption adds to a request and a handshake: time, processor time, bytes",
    "bench_many": "latency beside a device that floods, and shares of 64 devices that ask for more than the MEC can do",
    "bench_batches": "requests per second and batch sizes of a MEC with many devices, against a bare loop of its tails",
    "bench_faults": "frames in time after a fault of the MEC or the link, relative to device-only",
    "bench_fidelity": "latency in the twin against real processes, term by term",
    "bench_narrow": "the best decision of each kind over 16 kbit/s, with real processes and in the twin",
    "bench_live": "ranking of controllers with real processes, and in the twin on the same scenarios",
    "bench_one_policy": "one policy for both workloads against one policy for each",
    "bench_guard": "a policy with its guard and without, sound and broken; with --shadow, estimates beside the truth",
    "bench_transfer": "how often transfers lie below the predicted quantiles, per family of traces",
    "bench_ablation": "what each part of the learning and the splits are worth: trainings without, on held-out traces",
    "bench_learning": "PPO against every classical controller: five training seeds, held-out traces",
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; expected some of: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or BENCHMARKS:
        print(f"\n== {name}: {BENCHMARKS[name]}\n$ python -m benchmarks.{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
