"""What may the user say to ``mecpilot device``? One record: a field per option, its help and its default."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, TypeVar, get_type_hints

import typer

from controller.scenario import Scenario
from runtime.workloads.base import WORKLOADS

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5577"
DEFAULT_FRAMES = 300
UNLIMITED_FRAMES = 1_000_000_000  # a source ends before, or is stopped: three years at ten frames per second

WorkloadName = Annotated[str, typer.Option("--workload", help=f"One of: {', '.join(WORKLOADS)}.")]
BundleDir = Annotated[Path | None, typer.Option("--bundle", help="Directory of a bundle; default: the shipped one.")]
ProfileFile = Annotated[
    Path | None, typer.Option("--profile", help="Profile file; default: this machine's, else shipped.")
]
Options = TypeVar("Options")


def takes(record: type[Options]) -> Callable[[Callable[[Options], int]], Callable[..., int]]:
    """A command with one option per field of a dataclass, handed to a function of that record."""
    hints = get_type_hints(record, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(record)  # type: ignore[arg-type]
    ]

    def command_of(function: Callable[[Options], int]) -> Callable[..., int]:
        def command(**options: object) -> int:
            return function(record(**options))

        command.__doc__, command.__name__ = function.__doc__, function.__name__
        command.__annotations__ = {**hints, "return": int}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return command_of


@dataclass(frozen=True)
class DeviceOptions:
    """``mecpilot device``."""

    mec: Annotated[str, typer.Option("--mec", help="Endpoint of the MEC.")] = DEFAULT_ENDPOINT
    require_mec: Annotated[
        bool, typer.Option("--require-mec", help="Exit with 1 when no MEC was met during the whole run.")
    ] = False
    workload: WorkloadName = WORKLOADS[0]
    controller: Annotated[str | None, typer.Option(help="Who decides; default: ppo.")] = None
    policy: Annotated[Path | None, typer.Option(help="Policy file of ppo; default: the shipped one.")] = None
    tuning: Annotated[Path | None, typer.Option(help="File of `mecpilot tune`; default: the shipped one.")] = None
    decision: Annotated[
        str | None, typer.Option(help="Pin one decision, e.g. '{\"partition_point\": 2}'; fields not named default.")
    ] = None
    source: Annotated[
        str | None,
        typer.Option(
            help="Video file, image folder, camera index or URL, letterboxed; default: the workload's samples."
        ),
    ] = None
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to capture; default: 300 samples, or the whole --source.")
    ] = None
    fps: Annotated[float, typer.Option(min=0.0, help="Frames per second; 0: as fast as they are answered.")] = 10.0
    deadline_ms: Annotated[float, typer.Option(min=0.001, help="From capture to answer.")] = 100.0
    slowdown: Annotated[float, typer.Option(min=1.0, help="Emulate a device this many times slower.")] = 1.0
    device_load: Annotated[float, typer.Option(min=0.0, max=0.95, help="Mean share taken by other tasks.")] = 0.0
    uplink: Annotated[Path | None, typer.Option(help="Trace that shapes the uplink; default: not shaped.")] = None
    uplink_share: Annotated[float, typer.Option(min=1e-6, max=1.0, help="Share of the trace's bandwidth.")] = 1.0
    uplink_start_s: Annotated[float, typer.Option(min=0.0, help="Where in the trace to begin.")] = 0.0
    rtt_ms: Annotated[float, typer.Option(min=0.0, help="Round trip of the shaped link.")] = 10.0
    start: Annotated[
        int | None, typer.Option(min=0, help="First test image or video frame; default: the first of the test part.")
    ] = None
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0
    outcomes: Annotated[Path | None, typer.Option(help="JSONL file, one line per frame.")] = None
    video: Annotated[
        Path | None, typer.Option(help="Write what it looked like: .mp4 or .avi, or a strip of frames as .png.")
    ] = None
    json_out: Annotated[str | None, typer.Option("--json", help="Summary as JSON: a file, or - for stdout.")] = None
    bundle: BundleDir = None
    profile: ProfileFile = None
    data: Annotated[Path | None, typer.Option(help="Directory with the workload's data.")] = None

    def scenario(self) -> Scenario:
        """The conditions that the options describe."""
        return Scenario(
            fps=self.fps or 1e3 / self.deadline_ms,
            deadline_s=self.deadline_ms / 1e3,
            device_slowdown=self.slowdown,
            device_load_frac=self.device_load,
            rtt_s=self.rtt_ms / 1e3,
            trace_start_s=self.uplink_start_s,
            uplink_share_frac=self.uplink_share,
            frames=self.frames_ahead or UNLIMITED_FRAMES,
            first_sample=self.start or 0,
            seed=self.seed,
        )

    @property
    def frames_ahead(self) -> int | None:
        """How many frames there will be, where that is known."""
        return self.frames or (DEFAULT_FRAMES if self.source is None else None)
