"""Compares four uplinks: the twin's, the one emulated in the device's process, and two of a lab (docs/lab.md).

``python -m benchmarks.bench_lab messages`` (root): how long messages of several sizes take to cross uplinks of constant
rate, after a pause and one behind the other, against the time that the twin and the emulated uplink compute.

``python -m benchmarks.bench_lab replay --traces FILE ... [--json FILE]`` (root): what controllers send in the twin is
sent again over a lab, at the same times: the time on the uplink against that of the twin, per controller and trace. It
needs little of the processor, so it is right on a busy machine too. And how far two estimates of the bytes that still
have to cross are off at each of these times: that of the device's own messages, and that with what TCP knows.

``python -m benchmarks.bench_lab controllers --traces FILE ... [--json FILE]`` (root): every controller plays the same
scenario on every trace: in the twin, and live with ``evaluate``'s three networks.

``python -m benchmarks.bench_lab tcp --traces FILE ... [--json FILE]`` (root): the same in the lab, twice: with what the
kernel knows of the connection (``runtime.link.tcp_state``), and without it.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.compare.evaluation import Entrants, compare_live, entrants_of, play_in_twin
from agents.compare.report import Comparison
from controller.packets import segments_bytes, wire_bytes
from controller.predict.uplink import Trace, TraceBank
from controller.records import Floats
from controller.scenario import Scenario
from envs.networks import NETWORKS
from envs.setup import Setup, open_setup, traces_of
from runtime.link.connection import MecConnection
from runtime.link.dealer import Dealer
from runtime.link.router import Router
from runtime.link.shaped_link import Shaper
from runtime.protocol import wire
from runtime.testbed.lab.names import FAR_ADDRESS
from runtime.testbed.lab.namespaces import inside
from runtime.testbed.lab.network import CONGESTION, MTU, SHAPERS, Lab, ShaperKind, open_lab

CONTROLLERS = "ppo,expected-utility,fugu-mpc,edgent,mec-only"
SIZES = (100, 1_000, 3_000, 10_000, 30_000, 100_000)
#: Mbit/s and round trip in ms of the uplinks of ``messages``.
UPLINKS = ((0.2, 10.0), (2.0, 20.0), (20.0, 20.0), (100.0, 40.0))
PORT = 5598
#: Messages that take longer are left out: a device's connection does not outlive a silence of three seconds.
MOST_CROSSING_S = 0.6


# Messages ----------------------------------------------------------------------------------------------------


class _Receiver:
    """The MEC's end: notes when each message arrived. Owns a thread, which ends with the block."""

    def __init__(self, lab: Lab, answer_s: float = 0.0) -> None:
        with inside(lab.mec):
            self._router = Router(f"tcp://{FAR_ADDRESS}:{PORT}")
        self._answer_s = answer_s  # from the arrival of a message to its answer
        self.arrived_s: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due: deque[tuple[float, bytes, int]] = deque()
        while not self._stop.is_set():
            self._router.wait(min(0.05, due[0][0] - time.perf_counter()) if due else 0.05)
            for peer, parts, *_ in self._router.receive():
                message, _ = wire.decode(parts)
                if isinstance(message, wire.InferRequest):
                    now_s = self.arrived_s[message.request_id] = time.perf_counter()
                    due.append((now_s + self._answer_s, peer, message.request_id))
            while due and due[0][0] <= time.perf_counter():
                _, peer, request_id = due.popleft()
                self._router.send(peer, wire.encode(wire.Pong(request_id)))

    def wait_for(self, request_id: int, timeout_s: float) -> float:
        """When a message arrived; NaN if it did not."""
        until_s = time.perf_counter() + timeout_s
        while request_id not in self.arrived_s and time.perf_counter() < until_s:
            time.sleep(0.0005)
        return self.arrived_s.get(request_id, float("nan"))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._router.close()


@contextmanager
def ends(lab: Lab, answer_s: float = 0.0) -> Iterator[tuple[Dealer, _Receiver]]:
    receiver = _Receiver(lab, answer_s)
    with inside(lab.devices[0]):
        dealer = Dealer(f"tcp://{FAR_ADDRESS}:{PORT}")
    try:
        until_s = time.perf_counter() + 10.0
        while not dealer.connected and time.perf_counter() < until_s:
            dealer.wait(0.05)
        yield dealer, receiver
    finally:
        dealer.close()
        receiver.close()


def messages(options: argparse.Namespace) -> dict[str, Any]:
    """Print a row per uplink, size and way of sending: ms computed, and the median measured with each shaper."""
    print(
        f"{'Mbit/s':>7} {'rtt ms':>7} {'bytes':>8} {'sent':<12} {'computed':>9}" + "".join(f" {s:>9}" for s in SHAPERS)
    )
    found: dict[str, dict[str, float]] = {}
    for mbps, rtt_ms in UPLINKS:
        for shaper in SHAPERS:
            for key, ms in _measured(mbps, rtt_ms, shaper, options).items():
                found.setdefault(key, {})[shaper] = ms
        for size in _sizes(mbps):
            for way in ("after pause", "back to back"):
                key = f"{mbps} {rtt_ms} {size} {way}"
                computed = 1e3 * wire_bytes(size) * 8 / (mbps * 1e6) + rtt_ms / 2
                found[key]["computed"] = computed
                cells = "".join(f" {found[key][shaper]:>9.1f}" for shaper in SHAPERS)
                print(f"{mbps:>7} {rtt_ms:>7} {size:>8} {way:<12} {computed:>9.1f}{cells}", flush=True)
    return found


def _sizes(mbps: float) -> list[int]:
    return [size for size in SIZES if size * 8 / (mbps * 1e6) < MOST_CROSSING_S]


def _measured(mbps: float, rtt_ms: float, shaper: Any, options: argparse.Namespace) -> dict[str, float]:
    """Medians in ms, from sending to arrival; back to back: between two arrivals, plus half the round trip."""
    bank = TraceBank([Trace("constant", np.zeros(1), np.array([mbps * 1e6]), 1.0)])
    found, number = {}, 0
    with open_lab(shaper=shaper, mtu=options.mtu, congestion=options.congestion) as lab:
        lab.replay(bank, Scenario(rtt_s=rtt_ms / 1e3))
        with ends(lab) as (dealer, receiver):
            for size in _sizes(mbps):
                alone, train, payload = [], [], np.random.default_rng(0).bytes(size)
                for _ in range(options.repeats):
                    time.sleep(options.pause_s)
                    number += 1
                    sent_s = time.perf_counter()
                    dealer.send(wire.encode(wire.InferRequest(number, 1200, 150), payload))
                    alone.append(receiver.wait_for(number, 30.0) - sent_s)
                    list(dealer.receive())
                for _ in range(4):
                    number += 1
                    dealer.send(wire.encode(wire.InferRequest(number, 1200, 150), payload))
                    train.append(number)
                receiver.wait_for(number, 60.0)
                gaps = np.diff([receiver.arrived_s[one] for one in train])
                found[f"{mbps} {rtt_ms} {size} after pause"] = 1e3 * float(np.median(alone))
                found[f"{mbps} {rtt_ms} {size} back to back"] = 1e3 * float(np.median(gaps)) + rtt_ms / 2
    return found


# Replay ------------------------------------------------------------------------------------------------------


def replay(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print a row per trace, controller and shaper: ms on the uplink, and errors of the backlog in kB."""
    setup, entrants, scenarios, sources, traces = _opened(options)
    comparison = play_in_twin(setup, entrants, sources, 1, scenarios)
    names = f"{'trace':<36} {'controller':<17} {'shaper':<8}"
    print(f"{names} messages   twin p50  p95    lab p50  p95  off p50  p95   backlog off: own   TCP (kB)")
    rows = []
    for number, (scenario, trace) in enumerate(zip(scenarios, traces, strict=True)):
        for name, (frames, *_) in comparison.runs.items():
            sizes = frames.payload_bytes[frames.episode == number]
            sends = [(place / scenario.fps, int(size)) for place, size in enumerate(sizes) if size > 0]
            for shaper in SHAPERS if len(sends) > 1 else ():
                found = _replayed(setup.bank, scenario, sends, shaper, options.answer_ms / 1e3)
                rows.append({"trace": trace, "controller": name, "shaper": shaper, **found})
                cells = " ".join(f"{found[key]:7.1f}" for key in _SHOWN)
                print(f"{trace:<36.36} {name:<17} {shaper:<8} {len(sends):>8} {cells}", flush=True)
    return rows


_SHOWN = ("twin_p50", "twin_p95", "lab_p50", "lab_p95", "off_p50", "off_p95", "own_kb", "tcp_kb")


def _replayed(
    bank: TraceBank, scenario: Scenario, sends: list[tuple[float, int]], shaper: ShaperKind, answer_s: float
) -> dict[str, float]:
    """Send payloads of these sizes at these times; ms on the uplink, and mean absolute errors of the backlog in kB."""
    rng, sent_s, own = np.random.default_rng(0), {}, dict[int, int]()
    twin = Shaper(bank, scenario.trace_index, scenario.trace_start_s, scenario.uplink_share_frac)
    computed, own_off, tcp_off = [], [], []
    with open_lab(shaper=shaper) as lab:
        lab.replay(bank, scenario)
        with ends(lab, answer_s) as (dealer, receiver):
            twin.origin_s = time.perf_counter() + 0.2
            lab.begin(twin.origin_s)
            for number, (after_s, size) in enumerate(sends, 1):
                while (left_s := twin.origin_s + after_s - time.perf_counter()) > 0:
                    dealer.wait(left_s)
                    _forget_answered(dealer, own)
                now_s = sent_s[number] = time.perf_counter()
                state, ours = dealer.tcp_state(), sum(own.values())
                known = ours if state is None else min(ours, segments_bytes(state.queued_bytes))
                truth = _bytes_to_cross(twin, now_s)
                own_off.append(abs(ours - truth))
                tcp_off.append(abs(known - truth))
                own[number] = wire_bytes(size)
                computed.append(twin.cross(wire_bytes(size), now_s).finish_s + scenario.rtt_s / 2 - now_s)
                dealer.send(wire.encode(wire.InferRequest(number, 1200, 150), rng.bytes(size)))
            receiver.wait_for(len(sends), 20.0)
            measured = [receiver.arrived_s.get(number, np.nan) - at_s for number, at_s in sent_s.items()]
    arrived = ~np.isnan(measured)
    in_twin, in_lab = 1e3 * np.array(computed)[arrived], 1e3 * np.array(measured)[arrived]
    found = {"messages": len(sends), "lost": int((~arrived).sum())}
    for name, values in (("twin", in_twin), ("lab", in_lab), ("off", in_lab - in_twin)):
        found |= {f"{name}_p50": _percentile(values, 50), f"{name}_p95": _percentile(values, 95)}
    return found | {"own_kb": float(np.mean(own_off)) / 1e3, "tcp_kb": float(np.mean(tcp_off)) / 1e3}


def _forget_answered(dealer: Dealer, own: dict[int, int]) -> None:
    """Answers come in the order of the messages: an answered one has crossed, and all before it."""
    for parts in dealer.receive():
        message, _ = wire.decode(parts)
        if isinstance(message, wire.Pong):
            for number in [number for number in own if number <= message.ping_id]:
                del own[number]


def _bytes_to_cross(shaper: Shaper, now_s: float) -> float:
    """What a shaper has taken and not yet sent: bisection over the time at which so many bytes would have crossed."""
    if shaper.free_s <= now_s:
        return 0.0
    low, high = 0.0, 1e7
    for _ in range(40):
        middle = (low + high) / 2
        probe = replace(shaper)
        probe.free_s = now_s
        low, high = (middle, high) if probe.cross(int(middle), now_s).finish_s < shaper.free_s else (low, middle)
    return low


# Controllers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What a controller did on one trace over one network."""

    trace: str
    controller: str
    network: str
    utility: float
    in_time: float  # of the frames that were run
    offloaded: float  # share of the frames that were run
    kilobytes: float  # per frame
    median_ms: float
    p95_ms: float

    def line(self) -> str:
        shares = f"{self.utility:7.3f} {self.in_time:8.3f} {self.offloaded:9.3f} {self.kilobytes:9.2f}"
        names = f"{self.trace:<36.36} {self.controller:<17} {self.network:<11}"
        return f"{names} {shares} {self.median_ms:7.1f} {self.p95_ms:7.1f}"


def rows_of(comparison: Comparison, network: str, traces: list[str]) -> list[Row]:
    """One row for each controller and trace (episode)."""
    rows = []
    for name, (frames, *_) in comparison.runs.items():
        for episode, trace in enumerate(traces):
            here = frames.episode == episode
            run = here & ~frames.dropped & ~frames.reused
            latency = frames.latency_s[run & frames.answered] * 1e3
            rows.append(
                Row(
                    trace,
                    name,
                    network,
                    float(comparison.utility(name)[0, episode]),
                    float(frames.in_time[run].mean()),
                    float((frames.payload_bytes[run] > 0).mean()),
                    float(frames.payload_bytes[here].mean() / 1e3),
                    _percentile(latency, 50),
                    _percentile(latency, 95),
                )
            )
    return rows


def tcp(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Play everything in the lab with the kernel's knowledge and without, in turn; print a row for each."""
    known = MecConnection._unacknowledged_bytes
    setup, entrants, scenarios, sources, traces = _opened(options)
    rows: list[Row] = []
    for number, scenario in enumerate(scenarios):
        for name, asked in (("with", known), ("without", lambda _: None)):
            setattr(MecConnection, "_unacknowledged_bytes", asked)  # noqa: B010 - for the comparison only
            comparison, _ = compare_live(setup, entrants, sources, [scenario], network="lab")
            rows += rows_of(comparison, name, traces[number : number + 1])
    setattr(MecConnection, "_unacknowledged_bytes", known)  # noqa: B010
    _print(rows, traces, ("with", "without"))
    return [row.__dict__ for row in rows]


def _percentile(values: Floats, share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float("nan")


def scenarios_of(setup: Setup, options: argparse.Namespace) -> list[Scenario]:
    """One scenario per trace: the middle of the range, at the given place in the trace, with an idle MEC and device."""
    middle = replace(setup.range.middle(), device_load_frac=0.0, mec_load_frac=0.0, frames=options.frames)
    return [
        replace(
            middle,
            trace_index=index,
            trace_start_s=min(options.start_s, trace.duration_s / 2),
            uplink_share_frac=options.share,
            rtt_s=options.rtt_ms / 1e3,
            fps=options.fps,
            deadline_s=options.deadline_ms / 1e3,
            device_slowdown=options.slowdown,
        )
        for index, trace in enumerate(setup.bank.traces)
    ]


def controllers(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Play everything; print a row as soon as its network has been played."""
    setup, entrants, scenarios, sources, traces = _opened(options)
    rows = rows_of(play_in_twin(setup, entrants, sources, 1, scenarios), "twin", traces)
    for network in NETWORKS:
        comparison, _ = compare_live(setup, entrants, sources, scenarios, network=network)
        rows += rows_of(comparison, network, traces)
    _print(rows, traces, ("twin", *NETWORKS))
    return [row.__dict__ for row in rows]


def _opened(options: argparse.Namespace) -> tuple[Setup, Entrants, list[Scenario], list[str], list[str]]:
    """The setup, who plays, the scenarios, where their traces come from, and the names of these."""
    setup = open_setup(options.workload, traces_of(options.traces, "test"), "test", profile=options.profile)
    setup = replace(setup, range=replace(setup.range, frames=options.frames))
    entrants = entrants_of(options.workload, options.controllers, live=True)
    sources = [str(source) for source in options.traces]
    return setup, entrants, scenarios_of(setup, options), sources, [trace.name for trace in setup.bank.traces]


def _print(rows: list[Row], traces: list[str], networks: Sequence[str]) -> None:
    columns = f"{'utility':>7} {'in time':>8} {'offloaded':>9} {'kB/frame':>9} {'p50 ms':>7} {'p95 ms':>7}"
    print(f"{'trace':<36} {'controller':<17} {'network':<11} {columns}")
    order = {name: place for place, name in enumerate(networks)}
    for row in sorted(rows, key=lambda row: (traces.index(row.trace), row.controller, order[row.network])):
        print(row.line())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("messages", "replay", "controllers", "tcp"))
    parser.add_argument("--repeats", type=int, default=5, help="messages of each size after a pause")
    parser.add_argument("--pause-s", type=float, default=0.3, help="before each of these messages")
    parser.add_argument("--mtu", type=int, default=MTU, help="largest packet of `messages`, in bytes")
    parser.add_argument("--congestion", default=CONGESTION, help="congestion control of TCP in `messages`")
    parser.add_argument("--workload", default="campus")
    parser.add_argument("--traces", type=Path, nargs="*", default=[], help="default: the built-in test traces")
    parser.add_argument("--controllers", default=CONTROLLERS, help="names, separated by commas")
    parser.add_argument("--profile", type=Path, help="of this machine (default: the shipped one)")
    parser.add_argument("--frames", type=int, default=200, help="per controller and trace")
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--deadline-ms", type=float, default=200.0)
    parser.add_argument("--slowdown", type=float, default=20.0, help="of the device")
    parser.add_argument("--share", type=float, default=0.1, help="of each trace's bandwidth")
    parser.add_argument("--rtt-ms", type=float, default=30.0)
    parser.add_argument("--start-s", type=float, default=60.0, help="where in each trace to begin")
    parser.add_argument("--answer-ms", type=float, default=20.0, help="of `replay`: from arrival to answer at the MEC")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: Any = {"messages": messages, "replay": replay, "controllers": controllers, "tcp": tcp}[options.what](options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
