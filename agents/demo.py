"""The demo: trains a policy, compares controllers in the twin, then runs them with real processes.

``make demo`` takes a few minutes. It uses the shipped profile, tunings and policy, so its results do not depend on the
load of this machine. ``make demo-full`` profiles this machine and trains its own policy. Every step is a command that a
user could type, and is printed before it runs. Both demos end with real processes: one MEC that also serves other
devices, and one device per controller, over an uplink that replays a trace.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from agents.compare.plots import draw_timeline
from agents.compare.timelines import of_outcomes
from agents.demo_report import captions, demo_table, draw_example_frames
from controller.errors import FailureError, MecpilotError
from controller.predict.uplink import Trace
from controller.records import Outcome
from controller.scenario import Scenario
from runtime.bundles.bundle import open_bundle
from runtime.config.sections.admission import OPEN_OPTIONS
from runtime.observe.tables import table_console
from runtime.profiling.profile import shipped_slowdown
from runtime.testbed.markov_traces import builtin_traces
from runtime.testbed.processes import running_mec, running_neighbours
from runtime.workloads.registry import get_workload

TRACE_FAMILY = "nyc_lte_up"
_console = table_console()


@dataclass(frozen=True)
class Plan:
    """What a demo does, and for how long."""

    workload: str
    full: bool  # profile this machine and train its own policy
    steps: int  # of the training from scratch
    continued: int  # steps of training that continues the shipped policy; 0: none
    frames: int  # per controller, with real processes
    controllers: tuple[str, ...]  # with real processes
    in_twin: tuple[object, ...]  # further options of the comparison in the twin


QUICK = Plan(
    "campus",
    full=False,
    steps=10_000,
    continued=6_000,
    frames=150,
    controllers=("device-only", "jpeg-offload", "greedy", "ppo"),
    in_twin=("--controllers", "device-only,jpeg-offload,edgent,greedy,ppo,greedy-oracle", "--seeds", 1),
)
FULL = Plan(
    "campus",
    full=True,
    steps=300_000,
    continued=0,
    frames=300,
    controllers=("device-only", "jpeg-offload", "neurosurgeon", "edgent", "greedy", "ppo"),
    in_twin=(),
)


@dataclass(frozen=True)
class DemoFiles:
    """Paths of the files and folders that a demo writes."""

    root: Path
    plan: Plan

    @property
    def profile(self) -> str:
        return str(self.root / "profile.json") if self.plan.full else "shipped"

    @property
    def run(self) -> Path:
        return self.root / "from-scratch"

    @property
    def continued(self) -> Path:
        return self.root / "continued"

    @property
    def policy(self) -> Path | None:
        """Policy file for the comparisons; None: the shipped one."""
        return self.root / "policy.safetensors" if self.plan.full else None

    @property
    def twin(self) -> Path:
        return self.root / "twin"

    @property
    def live(self) -> Path:
        return self.root / "live"

    @property
    def trace(self) -> Path:
        return self.live / "uplink.csv"

    @property
    def picture(self) -> Path:
        return self.root / "demo.png"

    def outcomes(self, controller: str) -> Path:
        return self.live / f"{controller}.jsonl"

    def summary(self, controller: str) -> Path:
        return self.live / f"{controller}.json"


def run(files: DemoFiles) -> None:
    """Run all steps in order. FailureError if one fails."""
    began_s, plan = time.monotonic(), files.plan
    if files.live.exists():  # outcome logs are appended to
        shutil.rmtree(files.live)
    files.live.mkdir(parents=True)
    on = ("--workload", plan.workload, "--profile", files.profile)
    if plan.full:
        _step("Profile this machine: measure how long each stage of each network takes")
        _mecpilot("profile", "--workload", plan.workload, "--quick", "--out", files.profile)
    _learn(files, on)
    _step("Compare controllers in the twin (a simulator) on held-out traces")
    _mecpilot("evaluate", *on, *_policy(files), *plan.in_twin, "--out", files.twin)
    _step(f"Run real processes: a MEC, other devices, {plan.frames} frames per controller")
    trace, scenario = _write_trace(files.trace), _scenario(files)
    _deploy(files, scenario)
    _report(files, scenario, trace, time.monotonic() - began_s)


def _learn(files: DemoFiles, on: tuple[str, ...]) -> None:
    plan = files.plan
    _step(f"Train a policy from scratch: {plan.steps:,} decisions in the twin")
    _mecpilot("train", *on, "--steps", plan.steps, "--overwrite", "--out", files.run)
    if plan.continued:
        _step(f"Continue the training of the shipped policy: {plan.continued:,} more decisions")
        _mecpilot("train", *on, "--from", "shipped", "--steps", plan.continued, "--overwrite", "--out", files.continued)
    if files.policy is not None:
        _step("Export the policy to one file")
        _mecpilot("export", files.run, "--out", files.policy)


def _policy(files: DemoFiles) -> tuple[object, ...]:
    return () if files.policy is None else ("--policy", files.policy)


def _scenario(files: DemoFiles) -> Scenario:
    """The workload's demo scenario, with an emulated device that is equally slow on every machine."""
    plan = files.plan
    scenario = replace(get_workload(plan.workload).demo_scenario(), frames=plan.frames)
    return same_device(scenario, plan.workload, Path(files.profile)) if plan.full else scenario


def same_device(scenario: Scenario, workload: str, profile: Path) -> Scenario:
    """The scenario with the slowdown converted from the shipped profile to the given one."""
    slowdown = scenario.device_slowdown * shipped_slowdown(open_bundle(workload), profile)
    return replace(scenario, device_slowdown=max(round(slowdown, 1), 1.0))


def _deploy(files: DemoFiles, scenario: Scenario) -> None:
    workload, profile = files.plan.workload, files.profile
    options = ("--profile", profile, *OPEN_OPTIONS)  # the load of other devices comes over one connection
    with running_mec(workload, slowdown=scenario.mec_slowdown, options=options) as mec:
        for name in files.plan.controllers:
            with running_neighbours(mec.endpoint, workload, scenario, Path(profile)) as others:
                others.begin()
                _mecpilot("device", "--mec", mec.endpoint, *_device_options(files, scenario, name))


def _device_options(files: DemoFiles, s: Scenario, controller: str) -> list[object]:
    options: dict[str, object] = {
        "--workload": files.plan.workload,
        "--profile": files.profile,
        "--controller": controller,
        "--frames": s.frames,
        "--fps": s.fps,
        "--deadline-ms": s.deadline_s * 1e3,
        "--slowdown": s.device_slowdown,
        "--uplink": files.trace,
        "--uplink-share": s.uplink_share_frac,
        "--uplink-start-s": s.trace_start_s,
        "--rtt-ms": s.rtt_s * 1e3,
        "--seed": s.seed,
        "--outcomes": files.outcomes(controller),
        "--json": files.summary(controller),
    }
    policy = _policy(files) if controller == "ppo" else ()
    return [part for pair in options.items() for part in pair] + [*policy, "--quiet"]


def _write_trace(path: Path) -> Trace:
    """Write a generated LTE uplink, which no policy was trained on, to a file that the devices replay."""
    trace = next(t for t in builtin_traces("test").traces if t.name.startswith(TRACE_FAMILY))
    rows = (f"{t:g},{bps / 1e6:.6f}" for t, bps in zip(trace.t_s, trace.uplink_bps, strict=True))
    path.write_text("t_s,uplink_mbps\n" + "\n".join(rows) + "\n")
    return trace


def _report(files: DemoFiles, scenario: Scenario, trace: Trace, elapsed_s: float) -> None:
    """Draw the picture and the timelines; print the table and what to try next."""
    names = files.plan.controllers
    outcomes = {name: _outcomes(files.outcomes(name)) for name in names}
    figures = {name: msgspec.json.decode(files.summary(name).read_bytes(), type=dict[str, Any]) for name in names}
    for name in names:
        draw_timeline(of_outcomes(name, outcomes[name], scenario, trace), files.live / f"timeline_{name}.png")
    draw_example_frames(files.plan.workload, outcomes, captions(figures), files.picture)
    _step(f"Done in {elapsed_s:.0f} s")
    _console.print(demo_table(figures, scenario))
    _console.print(_what_next(files), highlight=False, soft_wrap=True)


def _what_next(files: DemoFiles) -> str:
    on = f"--workload {files.plan.workload}"
    warning = " (expect poor boxes: the models know one camera)" if files.plan.workload == "campus" else ""
    return (
        f"Look at {files.picture}, and at the training curves: tensorboard --logdir {files.root}\n"
        f"The comparison in the twin is in {files.twin}, every frame of the real processes in {files.live}.\n\n"
        f"Try next, with your own camera{warning}, after `. .venv/bin/activate`:\n"
        f"  mecpilot device {on} --source VIDEO.mp4 --video answers.mp4   # draw the answers\n"
        f"  mecpilot mec {on} --bind tcp://0.0.0.0:5577 --key mec.key     # on the server; docs/security.md: keys\n"
        f"  mecpilot device {on} --source rtsp://CAMERA --mec tcp://SERVER:5577 --key camera.key --mec-key mec.pub"
    )


def _outcomes(path: Path) -> list[Outcome]:
    return [msgspec.json.decode(line, type=Outcome) for line in path.read_bytes().splitlines()]


def _step(title: str) -> None:
    _console.rule(f"[bold]{title}", align="left")


def _mecpilot(*arguments: object) -> None:
    """Print a command and run it. FailureError if it fails."""
    words = [str(argument) for argument in arguments]
    _console.print("$ mecpilot " + " ".join(words), style="dim", highlight=False, soft_wrap=True)
    done = subprocess.run([sys.executable, "-m", "mecpilot", *words], check=False)
    if done.returncode:
        raise FailureError(f"`mecpilot {words[0]}` ended with exit code {done.returncode}; see its message above")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m agents.demo")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for all results")
    parser.add_argument("--full", action="store_true", help="profile this machine and train a policy for it")
    parser.add_argument("--workload", default="campus", help="workload: garments or campus")
    parser.add_argument("--steps", type=int, help="decisions of the training from scratch")
    parser.add_argument("--frames", type=int, help="frames per controller with real processes")
    options = parser.parse_args()
    chosen = {name: value for name in ("workload", "steps", "frames") if (value := getattr(options, name)) is not None}
    try:
        run(DemoFiles(options.out, replace(FULL if options.full else QUICK, **chosen)))
    except MecpilotError as error:
        print(f"mecpilot demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
