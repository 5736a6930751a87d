"""What does mecpilot do, from nothing to a measured comparison? ``make demo``: profile, train, freeze, deploy, compare.

Every step is a command that a user could type, and is printed before it runs. The comparison at the end is made of
real processes: one MEC that also serves other devices, and one device per controller, over an uplink that replays a
trace.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from agents.plots import draw_comparison, draw_timeline
from agents.report import Comparison, as_json
from agents.tables import ranking_table, table_console
from agents.timelines import of_outcomes
from controller.errors import FailureError, MecpilotError
from controller.metrics import Frames
from controller.records import Outcome
from controller.scenario import Scenario
from controller.uplink import Trace
from runtime.bundle import open_bundle
from runtime.markov_traces import builtin_traces
from runtime.pictures import draw_strip
from runtime.processes import running_mec, running_neighbours
from runtime.profile import shipped_slowdown
from runtime.workloads.base import get_workload

#: What is compared live.
CONTROLLERS = ("device-only", "jpeg-offload", "neurosurgeon", "edgent", "greedy", "ppo")
TRACE_FAMILY = "nyc_lte_up"
_console = table_console()


@dataclass(frozen=True)
class Places:
    """Where the demo leaves what it made."""

    root: Path

    @property
    def profile(self) -> Path:
        return self.root / "profile.json"

    @property
    def run(self) -> Path:
        return self.root / "ppo"

    @property
    def policy(self) -> Path:
        return self.root / "policy.safetensors"

    @property
    def twin(self) -> Path:
        return self.root / "twin"

    @property
    def live(self) -> Path:
        return self.root / "live"

    @property
    def trace(self) -> Path:
        return self.live / "uplink.csv"

    def outcomes(self, controller: str) -> Path:
        return self.live / f"{controller}.jsonl"


def run(places: Places, workload: str, steps: int, scenario: Scenario) -> None:
    """All steps, one after the other."""
    start_s = time.monotonic()
    places.live.mkdir(parents=True, exist_ok=True)
    on = ("--workload", workload, "--profile", places.profile)
    _step("1. Profile this machine (Edgent, stage 1)")
    _mecpilot("profile", "--workload", workload, "--quick", "--out", places.profile)
    _step("2. Train a policy on the twin")
    _mecpilot("train", *on, "--steps", steps, "--seed", 0, "--out", places.run, "--overwrite")
    _step("3. Freeze it into one file")
    _mecpilot("export", places.run, "--out", places.policy)
    _step("4. Compare controllers on the twin, on traces that were not trained on")
    _mecpilot("evaluate", *on, "--policy", places.policy, "--out", places.twin)
    _step(f"5. Deploy: a MEC, other devices, and one device per controller for {scenario.frames} frames, as processes")
    trace, scenario = _write_trace(places.trace), same_device(scenario, workload, places.profile)
    _deploy(places, workload, scenario)
    _compare(places, workload, scenario, trace)
    _say_where(places, time.monotonic() - start_s)


def _deploy(places: Places, workload: str, scenario: Scenario) -> None:
    profile = ("--profile", str(places.profile))
    with running_mec(workload, slowdown=scenario.mec_slowdown, options=profile) as mec:
        for name in CONTROLLERS:
            with running_neighbours(mec.endpoint, workload, scenario, places.profile) as others:
                others.begin()
                _mecpilot("device", "--mec", mec.endpoint, *_device_options(places, workload, scenario, name))


def same_device(scenario: Scenario, workload: str, profile: Path) -> Scenario:
    """The scenario with a device that is as slow wherever the demo runs: its slowdown counts from the shipped profile,
    while a device counts from this machine's."""
    slowdown = scenario.device_slowdown * shipped_slowdown(open_bundle(workload), profile)
    return replace(scenario, device_slowdown=max(round(slowdown, 1), 1.0))


def _device_options(places: Places, workload: str, s: Scenario, controller: str) -> list[object]:
    options: dict[str, object] = {
        "--workload": workload,
        "--profile": places.profile,
        "--controller": controller,
        "--frames": s.frames,
        "--fps": s.fps,
        "--deadline-ms": s.deadline_s * 1e3,
        "--slowdown": s.device_slowdown,
        "--uplink": places.trace,
        "--uplink-share": s.uplink_share_frac,
        "--uplink-start-s": s.trace_start_s,
        "--rtt-ms": s.rtt_s * 1e3,
        "--seed": s.seed,
        "--outcomes": places.outcomes(controller),
    }
    if controller == "ppo":
        options["--policy"] = places.policy
    return [part for pair in options.items() for part in pair]


def _write_trace(path: Path) -> Trace:
    """A generated LTE uplink that no policy was trained on, as a file that the device replays."""
    trace = next(t for t in builtin_traces("test").traces if t.name.startswith(TRACE_FAMILY))
    rows = (f"{t:g},{bps / 1e6:.6f}" for t, bps in zip(trace.t_s, trace.uplink_bps, strict=True))
    path.write_text("t_s,uplink_mbps\n" + "\n".join(rows) + "\n")
    return trace


def _compare(places: Places, workload: str, scenario: Scenario, trace: Trace) -> None:
    outcomes = {name: _read(places.outcomes(name)) for name in CONTROLLERS}
    runs = {name: (Frames.from_outcomes(o, 1.0 / scenario.fps),) for name, o in outcomes.items()}
    comparison = Comparison(workload, "live", (str(places.trace),), 1, (TRACE_FAMILY,), runs)
    report = as_json(comparison)
    (places.live / "comparison.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    _console.print(ranking_table(comparison, report))
    draw_comparison(report["controllers"], f"{workload}, live, {scenario.frames} frames", places.live / "compared.png")
    for name in CONTROLLERS:
        draw_timeline(of_outcomes(name, outcomes[name], scenario, trace), places.live / f"timeline_{name}.png")
        draw_strip(workload, outcomes[name], places.live / f"strip_{name}.png")


def _read(path: Path) -> list[Outcome]:
    return [msgspec.json.decode(line, type=Outcome) for line in path.read_bytes().splitlines()]


def _say_where(places: Places, elapsed_s: float) -> None:
    _step(f"Done in {elapsed_s:.0f} s. What was made:")
    _console.print(
        f"  policy        {places.policy}\n"
        f"  TensorBoard   {places.run / 'tensorboard'}   (tensorboard --logdir {places.run / 'tensorboard'})\n"
        f"  profile       {places.profile}\n"
        f"  twin          {places.twin}   tables and plots\n"
        f"  outcome logs  {places.live}/*.jsonl   one line per frame\n"
        f"  plots         {places.live}/compared.png, timeline_*.png, strip_*.png: frames with their answers",
        highlight=False,
        soft_wrap=True,
    )


def _step(title: str) -> None:
    _console.rule(f"[bold]{title}", align="left")


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "mecpilot", *map(str, arguments)]


def _mecpilot(*arguments: object) -> None:
    """Show a command, run it, and stop the demo when it fails."""
    _console.print("$ mecpilot " + " ".join(map(str, arguments)), style="dim", highlight=False, soft_wrap=True)
    done = subprocess.run(_command(*arguments), check=False)
    if done.returncode:
        raise FailureError(
            f"`mecpilot {arguments[0]}` ended with exit code {done.returncode}; its message stands above"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m agents.demo")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for all that is made")
    parser.add_argument("--workload", default="campus", help="what the camera sees")
    parser.add_argument("--steps", type=int, default=300_000, help="environment steps of the training")
    parser.add_argument("--frames", type=int, default=300, help="frames per controller in the live comparison")
    options = parser.parse_args()
    try:
        scenario = replace(get_workload(options.workload).telling_scenario(), frames=options.frames)
        run(Places(options.out), options.workload, options.steps, scenario)
    except MecpilotError as error:
        print(f"mecpilot demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
