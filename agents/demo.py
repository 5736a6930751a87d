"""The demo: ``make demo`` takes a few minutes, ``make demo-full`` profiles this machine and trains a policy for it.

Every step is a command that a user could type, and is printed before it runs. The quick demo takes the profile, the
tunings and the policy that ship with mecpilot, so that what it shows does not depend on how busy this machine is. The
full demo profiles this machine and trains a policy of its own. Both end with real processes: one MEC that also serves
other devices, and one device per controller, over an uplink that replays a trace.
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
from agents.demo_report import captions, demo_table, draw_moments
from controller.errors import FailureError, MecpilotError
from controller.predict.uplink import Trace
from controller.records import Outcome
from controller.scenario import Scenario
from runtime.bundles.bundle import open_bundle
from runtime.observe.tables import table_console
from runtime.profiling.profile import shipped_slowdown
from runtime.testbed.markov_traces import builtin_traces
from runtime.testbed.processes import running_mec, running_neighbours
from runtime.workloads.registry import get_workload

TRACE_FAMILY = "nyc_lte_up"
_console = table_console()


@dataclass(frozen=True)
class Plan:
    """How much a demo does."""

    workload: str
    full: bool
    steps: int  # of a training from nothing
    continued: int  # steps by which the shipped policy is trained on; 0 for none
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
    in_twin=("--controllers", "device-only,jpeg-offload,edgent,greedy,ppo,hindsight", "--seeds", 1),
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
class Places:
    """Where a demo leaves what it made."""

    root: Path
    plan: Plan

    @property
    def profile(self) -> str:
        return str(self.root / "profile.json") if self.plan.full else "shipped"

    @property
    def run(self) -> Path:
        return self.root / "from-nothing"

    @property
    def continued(self) -> Path:
        return self.root / "continued"

    @property
    def policy(self) -> Path | None:
        """None: the one that ships."""
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


def run(places: Places) -> None:
    """All steps, one after the other."""
    began_s, plan = time.monotonic(), places.plan
    if places.live.exists():  # outcome logs are appended to
        shutil.rmtree(places.live)
    places.live.mkdir(parents=True)
    on = ("--workload", plan.workload, "--profile", places.profile)
    if plan.full:
        _step("Profile this machine: how long does each part of each network take? (Edgent, stage 1)")
        _mecpilot("profile", "--workload", plan.workload, "--quick", "--out", places.profile)
    _learn(places, on)
    _step(
        "Compare controllers in the twin, a simulator of device, uplink and MEC, on traces that nothing was trained on"
    )
    _mecpilot("evaluate", *on, *_policy(places), *plan.in_twin, "--out", places.twin)
    _step(f"Run real processes: a MEC, other devices, and one device per controller for {plan.frames} frames each")
    trace, scenario = _write_trace(places.trace), _scenario(places)
    _deploy(places, scenario)
    _report(places, scenario, trace, time.monotonic() - began_s)


def _learn(places: Places, on: tuple[str, ...]) -> None:
    plan = places.plan
    _step(f"Learn from nothing: {plan.steps:,} decisions in the twin")
    _mecpilot("train", *on, "--steps", plan.steps, "--overwrite", "--out", places.run)
    if plan.continued:
        _step(f"Go on with the policy that ships: {plan.continued:,} more decisions")
        _mecpilot(
            "train", *on, "--from", "shipped", "--steps", plan.continued, "--overwrite", "--out", places.continued
        )
    if places.policy is not None:
        _step("Freeze the policy into one file")
        _mecpilot("export", places.run, "--out", places.policy)


def _policy(places: Places) -> tuple[object, ...]:
    return () if places.policy is None else ("--policy", places.policy)


def _scenario(places: Places) -> Scenario:
    """The workload's demonstration, with a device that is as slow wherever the demo runs."""
    plan = places.plan
    scenario = replace(get_workload(plan.workload).demo_scenario(), frames=plan.frames)
    return same_device(scenario, plan.workload, Path(places.profile)) if plan.full else scenario


def same_device(scenario: Scenario, workload: str, profile: Path) -> Scenario:
    """The scenario for a device that counts its slowdown from another profile than the shipped one."""
    slowdown = scenario.device_slowdown * shipped_slowdown(open_bundle(workload), profile)
    return replace(scenario, device_slowdown=max(round(slowdown, 1), 1.0))


def _deploy(places: Places, scenario: Scenario) -> None:
    workload, profile = places.plan.workload, places.profile
    with running_mec(workload, slowdown=scenario.mec_slowdown, options=("--profile", profile)) as mec:
        for name in places.plan.controllers:
            with running_neighbours(mec.endpoint, workload, scenario, Path(profile)) as others:
                others.begin()
                _mecpilot("device", "--mec", mec.endpoint, *_device_options(places, scenario, name))


def _device_options(places: Places, s: Scenario, controller: str) -> list[object]:
    options: dict[str, object] = {
        "--workload": places.plan.workload,
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
        "--json": places.summary(controller),
    }
    policy = _policy(places) if controller == "ppo" else ()
    return [part for pair in options.items() for part in pair] + [*policy, "--quiet"]


def _write_trace(path: Path) -> Trace:
    """A generated LTE uplink that no policy was trained on, as a file that the device replays."""
    trace = next(t for t in builtin_traces("test").traces if t.name.startswith(TRACE_FAMILY))
    rows = (f"{t:g},{bps / 1e6:.6f}" for t, bps in zip(trace.t_s, trace.uplink_bps, strict=True))
    path.write_text("t_s,uplink_mbps\n" + "\n".join(rows) + "\n")
    return trace


def _report(places: Places, scenario: Scenario, trace: Trace, elapsed_s: float) -> None:
    """The picture, the table, and what to try next."""
    names = places.plan.controllers
    outcomes = {name: _outcomes(places.outcomes(name)) for name in names}
    figures = {name: msgspec.json.decode(places.summary(name).read_bytes(), type=dict[str, Any]) for name in names}
    for name in names:
        draw_timeline(of_outcomes(name, outcomes[name], scenario, trace), places.live / f"timeline_{name}.png")
    draw_moments(places.plan.workload, outcomes, captions(figures), places.picture)
    _step(f"Done in {elapsed_s:.0f} s")
    _console.print(demo_table(figures, scenario))
    _console.print(_what_next(places), highlight=False, soft_wrap=True)


def _what_next(places: Places) -> str:
    on = f"--workload {places.plan.workload}"
    return (
        f"Look at {places.picture}, and at the curves: tensorboard --logdir {places.root}\n"
        f"The comparison in the twin is in {places.twin}, every frame of the real processes in {places.live}.\n\n"
        "Try next, with your own camera, after `. .venv/bin/activate`:\n"
        f"  mecpilot device {on} --source VIDEO.mp4 --video answers.mp4   # look at the answers\n"
        f"  mecpilot mec {on} --bind tcp://0.0.0.0:5577                   # on the server\n"
        f"  mecpilot device {on} --source rtsp://CAMERA --mec tcp://SERVER:5577 --outcomes log.jsonl"
    )


def _outcomes(path: Path) -> list[Outcome]:
    return [msgspec.json.decode(line, type=Outcome) for line in path.read_bytes().splitlines()]


def _step(title: str) -> None:
    _console.rule(f"[bold]{title}", align="left")


def _mecpilot(*arguments: object) -> None:
    """Show a command, run it, and stop the demo when it fails."""
    words = [str(argument) for argument in arguments]
    _console.print("$ mecpilot " + " ".join(words), style="dim", highlight=False, soft_wrap=True)
    done = subprocess.run([sys.executable, "-m", "mecpilot", *words], check=False)
    if done.returncode:
        raise FailureError(f"`mecpilot {words[0]}` ended with exit code {done.returncode}; see its message above")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m agents.demo")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for all that is made")
    parser.add_argument("--full", action="store_true", help="profile this machine and train a policy from nothing")
    parser.add_argument("--workload", default="campus", help="what the camera sees")
    parser.add_argument("--steps", type=int, help="decisions that the training takes")
    parser.add_argument("--frames", type=int, help="frames per controller with real processes")
    options = parser.parse_args()
    chosen = {name: value for name in ("workload", "steps", "frames") if (value := getattr(options, name)) is not None}
    try:
        run(Places(options.out, replace(FULL if options.full else QUICK, **chosen)))
    except MecpilotError as error:
        print(f"mecpilot demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
