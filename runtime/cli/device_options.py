"""What may the user say to ``mecpilot device``? One record: a field per option, its help and its default."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, TypeVar, get_type_hints

import typer

from controller.errors import UsageError
from runtime.files.atomic import STDOUT, check_apart, check_writable
from runtime.files.trace_formats import TRACE_HELP
from runtime.link.endpoint import DEFAULT_ENDPOINT
from runtime.sources.kinds import DEFAULT_RETRY_S
from runtime.workloads.base import WORKLOADS
from runtime.workloads.datasets import check_data_dir

MAX_SLOWDOWN = 1e4
MIN_FPS = 0.001

PROFILE_HELP = 'Profile file, or "shipped"; default: this machine\'s, else shipped.'
WorkloadName = Annotated[str, typer.Option("--workload", help=f"One of: {', '.join(WORKLOADS)}.")]
BundleDir = Annotated[Path | None, typer.Option("--bundle", help="Directory of a bundle; default: the shipped one.")]
ProfileFile = Annotated[Path | None, typer.Option("--profile", help=PROFILE_HELP)]
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
            help="Video file, image folder, camera index or device, FIFO, - for stdin, or URL; letterboxed. "
            "Default: the workload's samples."
        ),
    ] = None
    source_retry: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="How long a camera, stream or pipe may give no picture; a camera or stream is opened again and "
            "again meanwhile. 0: not at all, inf: for ever.",
        ),
    ] = DEFAULT_RETRY_S
    source_fps: Annotated[
        str | None,
        typer.Option(
            metavar="file",
            help="file: play a video by the times in it, and --fps is its mean rate. Default: a video or folder is "
            "played at --fps.",
        ),
    ] = None
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to capture; default: 300 samples, or the whole --source.")
    ] = None
    fps: Annotated[
        float, typer.Option(min=0.0, max=1000.0, help="Frames per second; 0: as fast as they are answered.")
    ] = 10.0
    deadline_ms: Annotated[float, typer.Option(min=0.001, max=3.6e6, help="From capture to answer.")] = 100.0
    slowdown: Annotated[
        float, typer.Option(min=1.0, max=MAX_SLOWDOWN, help="Emulate a device this many times slower.")
    ] = 1.0
    device_load: Annotated[float, typer.Option(min=0.0, max=0.95, help="Mean share taken by other tasks.")] = 0.0
    uplink: Annotated[
        Path | None, typer.Option(help=f"Trace that shapes the uplink; default: not shaped. {TRACE_HELP}")
    ] = None
    uplink_share: Annotated[float, typer.Option(min=1e-6, max=1.0, help="Share of the trace's bandwidth.")] = 1.0
    uplink_start_s: Annotated[float, typer.Option(min=0.0, help="Where in the trace to begin.")] = 0.0
    rtt_ms: Annotated[float, typer.Option(min=0.0, max=60e3, help="Round trip of the shaped link.")] = 10.0
    start: Annotated[
        int | None, typer.Option(min=0, help="First test image or video frame; default: the first of the test part.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed.")] = 0
    outcomes: Annotated[
        str | None,
        typer.Option(
            help="Append one JSON line per frame to this file or FIFO, - for stdout (the summary then goes to stderr). "
            "SIGHUP reopens it, as logrotate needs. A log that is full or not read costs lines, never frames."
        ),
    ] = None
    video: Annotated[
        Path | None,
        typer.Option(help="Write what it looked like: .mp4 or .avi, or a strip as .png. Keeps all outcomes in memory."),
    ] = None
    json_out: Annotated[str | None, typer.Option("--json", help="Summary as JSON: a file, or - for stdout.")] = None
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table at the end.")] = False
    bundle: BundleDir = None
    profile: ProfileFile = None
    data: Annotated[Path | None, typer.Option(help="Directory with the workload's data.")] = None

    def check(self) -> None:
        """UsageError for what cannot be, before anything is touched or takes time."""
        if 0 < self.fps < MIN_FPS:
            raise UsageError(f"--fps {self.fps:g}; expected 0, or at least {MIN_FPS:g}")
        self._check_source()
        check_data_dir(self.data)
        outputs = {"--outcomes": self.outcomes, "--json": self.json_out, "--video": self.video}
        inputs = {"--policy": self.policy, "--tuning": self.tuning, "--uplink": self.uplink, "--profile": self.profile}
        for option, path in outputs.items():
            check_writable(path, option)
        source = None if self.source == STDOUT else self.source
        check_apart(outputs, {**inputs, "--source": source})

    def _check_source(self) -> None:
        """UsageError where the options of the source contradict each other."""
        if self.source_fps not in (None, "file"):
            raise UsageError(f"got --source-fps {self.source_fps}; expected file: the times in the video file")
        if self.source_fps and self.source is None:
            raise UsageError("got --source-fps without --source; expected a video file as --source")
        if self.source_fps and self.fps == 0:
            raise UsageError("got --source-fps file with --fps 0 (as fast as they are answered); expected one of them")
        if math.isnan(self.source_retry):
            raise UsageError("got --source-retry nan; expected seconds, or inf")
