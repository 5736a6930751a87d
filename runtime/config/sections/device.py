"""What a device reads: who decides, where frames come from, what is asked of it, and what it weighs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from controller.loads import MAX_LOAD_FRAC
from controller.scenario import MAX_IN_FLIGHT, QUEUE_LIMIT
from controller.utility import Utility
from runtime.config.sections.fields import (
    DEFAULT_ENDPOINT,
    DEFAULT_FRAMES,
    Amount,
    Count,
    EngineName,
    FewCount,
    Gate,
    Index,
    Section,
    Slowdown,
    Text,
    Texts,
    about,
)

_UTILITY = Utility()


class ControllerSection(Section, frozen=True):
    """Who decides how each frame is answered. Device only."""

    name: Annotated[
        Text | None,
        about(
            "Controller that decides each frame: ppo, device-only, mec-only, jpeg-offload, static-best, neurosurgeon, "
            "edgent, edgent-dynamic, greedy, expected-utility, oboe, linucb, fugu-mpc or random; default: ppo.",
            "--controller",
            show="ppo",
        ),
    ] = None
    policy: Annotated[Path | None, about("Policy file of ppo; default: the shipped one.", "--policy")] = None
    tuning: Annotated[Path | None, about("File of `mecpilot tune`; default: the shipped one.", "--tuning")] = None
    guard: Annotated[
        bool,
        about(
            "A classical controller takes over from ppo where its policy cannot be trusted, and gives back later.",
            "--guard",
            off="--no-guard",
        ),
    ] = True
    guard_controller: Annotated[Text, about("The classical controller that guards ppo.", "--guard-controller")] = (
        "expected-utility"
    )
    shadow: Annotated[
        Text | None,
        about(
            "A candidate that decides beside the controller and never acts, a name or a policy file: the summary says "
            "how often it agrees, and what its decisions would be worth.",
            "--shadow",
            show="greedy",
        ),
    ] = None
    decision: Annotated[
        Text | None,
        about(
            "Pin one decision, e.g. '{\"partition_point\": 2}'; fields left out take defaults.",
            "--decision",
            show='{"partition_point": 2}',
        ),
    ] = None


class SourceSection(Section, frozen=True):
    """Where the frames come from. Device only."""

    input: Annotated[
        Text | None,
        about(
            "Video file, image folder, camera index or device, FIFO, - for stdin, or URL; letterboxed. "
            "Default: the workload's samples.",
            "--source",
            show="rtsp://camera/stream",
        ),
    ] = None
    retry_s: Annotated[
        float,
        Meta(ge=0.0),
        about(
            "How long a camera, stream or pipe may give no picture, in seconds; a camera or stream is opened again and "
            "again meanwhile. 0: not at all, inf: for ever.",
            "--source-retry",
            endless=True,
        ),
    ] = 60.0
    window: Annotated[
        Text | None,
        about(
            "Only this part of the picture counts, the rest is grey: x,y,w,h in pixels of the workload's frame.",
            "--window",
            show="336,240,192,144",
        ),
    ] = None
    fps_from: Annotated[
        Literal["file"] | None,
        about(
            "file: play a video by the times in it, and --fps is its mean rate. Default: a video or folder is played "
            "at --fps.",
            "--source-fps",
            show="file",
        ),
    ] = None
    fps: Annotated[
        float, Meta(ge=0.0, le=1000.0), about("Frames per second; 0: as fast as they are answered.", "--fps")
    ] = 10.0
    frames: Annotated[
        Count | None,
        about(
            f"Frames to capture; default: {DEFAULT_FRAMES} samples, or the whole --source.",
            "--frames",
            show=DEFAULT_FRAMES,
        ),
    ] = None
    start: Annotated[
        Index | None,
        about("First test image or video frame; default: the first of the test part.", "--start", show=0),
    ] = None
    data: Annotated[
        Path | None, about("Directory with the workload's data; default: fetched.", "--data", show="FOLDER")
    ] = None


class DeviceSection(Section, frozen=True):
    """The device: its MEC, and what is asked of it."""

    mec: Annotated[
        Text | Texts,
        about(
            "Endpoint of the MEC. Several, the preferred one first: one is in use, the others stand by.",
            "--mec",
        ),
    ] = DEFAULT_ENDPOINT
    breaker: Annotated[
        bool,
        about(
            "Stop asking a sole MEC for a while when three requests in a row failed or were answered too late. Several "
            "MECs have such a breaker each, always.",
            "--breaker",
            off="--no-breaker",
        ),
    ] = False
    require_mec: Annotated[
        bool, about("Exit with 1 when no MEC was met during the whole run.", "--require-mec", off="--no-require-mec")
    ] = False
    also_bundle: Annotated[
        Path | None,
        about(
            "Directory of another bundle, used if the MEC serves it and not the first one. Decided once, at the start.",
            "--also-bundle",
            show="FOLDER",
        ),
    ] = None
    deadline_ms: Annotated[
        float, Meta(ge=0.001, le=3.6e6), about("From capture to answer, in milliseconds.", "--deadline-ms")
    ] = 100.0
    gate: Annotated[
        Gate | None,
        about(
            "Confidence from which on an exit before the cut may answer on the device, so that nothing is sent. "
            "Default: no exit is asked.",
            "--gate",
            show=0.9,
        ),
    ] = None
    forecast: Annotated[
        bool | None,
        about(
            "Boxes of frames that are not run move on, by a small tracker, instead of standing still, and get numbers "
            "in the outcome; only for workloads of boxes. Default: if the bundle says what that scores.",
            "--forecast",
            off="--no-forecast",
            show=True,
        ),
    ] = None
    roi: Annotated[
        Literal["off", "auto"],
        about(
            "auto: decisions may run a part of the picture, where something moves, at the model's own resolution; "
            "only for workloads of boxes.",
            "--roi",
        ),
    ] = "off"
    engine: EngineName = None
    seed: Annotated[Index, about("Random seed, of emulated loads and of the controller.", "--seed")] = 0

    @property
    def crops(self) -> bool:
        """Whether decisions may run a part of the picture."""
        return self.roi != "off"


class LimitsSection(Section, frozen=True):
    """How much a device holds at a time."""

    queue_limit: Annotated[
        FewCount, about("Frames that may wait; the oldest is dropped when one more is captured.", "--queue-limit")
    ] = QUEUE_LIMIT
    max_in_flight: Annotated[
        FewCount, about("Requests that may wait for the MEC's reply at a time.", "--max-in-flight")
    ] = MAX_IN_FLIGHT


class PrivacySection(Section, frozen=True):
    """What must never leave the device."""

    no_raw_upload: Annotated[
        bool,
        about(
            "Never send an image, compressed or not: only decisions with partition point 1 or more, or device-only, "
            "are candidates. The shipped policy is not tuned for it; `mecpilot train --no-raw-upload` makes one "
            "that is.",
            "--no-raw-upload",
            off="--raw-upload",
        ),
    ] = False


class ObjectiveSection(Section, frozen=True):
    """What a device weighs: utility = score if on time - energy weight * energy - drop penalty if dropped."""

    energy_weight_per_j: Annotated[
        Amount, about("Utility that one joule of modelled energy costs.", "--energy-weight-per-j")
    ] = _UTILITY.energy_weight_per_j
    drop_penalty: Annotated[
        Amount, about("Utility that a dropped frame costs, beside the score that it does not earn.", "--drop-penalty")
    ] = _UTILITY.drop_penalty
    compute_power_w: Annotated[
        Amount, about("Power of the device while it computes, above idle, in watts.", "--compute-power-w")
    ] = _UTILITY.compute_power_w
    radio_power_w: Annotated[
        Amount, about("Power of the radio while bytes cross the uplink, in watts.", "--radio-power-w")
    ] = _UTILITY.radio_power_w

    def utility(self) -> Utility:
        """The same as the record that controllers use."""
        return Utility(**msgspec.structs.asdict(self))


class EmulationSection(Section, frozen=True):
    """A slower device and a narrower link than those at hand, for experiments. Leave it out on a real device."""

    slowdown: Annotated[Slowdown, about("Emulate a device this many times slower.", "--slowdown")] = 1.0
    load: Annotated[
        float, Meta(ge=0.0, le=MAX_LOAD_FRAC), about("Mean share of the device taken by other tasks.", "--device-load")
    ] = 0.0
    uplink: Annotated[
        Path | None, about("Trace that shapes the uplink; default: not shaped.", "--uplink", show="TRACE")
    ] = None
    uplink_share: Annotated[
        float, Meta(ge=1e-6, le=1.0), about("Share of the trace's bandwidth.", "--uplink-share")
    ] = 1.0
    uplink_start_s: Annotated[Amount, about("Where in the trace to begin, in seconds.", "--uplink-start-s")] = 0.0
    rtt_ms: Annotated[
        float, Meta(ge=0.0, le=60e3), about("Round trip of the shaped link, in milliseconds.", "--rtt-ms")
    ] = 10.0
    hardware_encoder: Annotated[
        bool,
        about(
            "Emulate a camera that encodes H.264 in hardware: with payloads h264qN the device only spends the time and "
            "the energy of resizing the picture.",
            "--hardware-encoder",
            off="--software-encoder",
        ),
    ] = False


class OutputsSection(Section, frozen=True):
    """What a device writes."""

    outcomes: Annotated[
        Text | None,
        about(
            "Append one JSON line per frame to this file or FIFO, - for stdout (the summary then goes to stderr). "
            "SIGHUP reopens it, as logrotate needs. A log that is full or not read costs lines, never frames.",
            "--outcomes",
            show="outcomes.jsonl",
        ),
    ] = None
    video: Annotated[
        Path | None,
        about(
            "Write what it looked like: .mp4 or .avi, or a strip as .png. Keeps all outcomes in memory.",
            "--video",
            show="run.mp4",
        ),
    ] = None
    json: Annotated[Text | None, about("Summary as JSON: a file, or - for stdout.", "--json", show="summary.json")] = (
        None
    )
    quiet: Annotated[bool, about("Print no table at the end.", "--quiet", off="--no-quiet")] = False
