"""The configuration tree: every setting of ``mecpilot device`` and ``mecpilot mec``, with its default and its meaning.

A section of the tree is a table of ``mecpilot.toml``; a field is a key of that table and one command-line flag. The
sentence of a field is the comment in the file and the help of the flag, and it names the unit. Limits stand in the
type. Nothing here depends on another room, so that every room may import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from controller.cache.rules import CacheRules
from controller.gates import LEAST_GATE, MOST_GATE
from controller.loads import MAX_LOAD_FRAC
from controller.scenario import MAX_COUNT, MAX_IN_FLIGHT, QUEUE_LIMIT
from controller.utility import Utility
from runtime.config.sizes import bytes_of

DEFAULT_WORKLOAD = "campus"
DEFAULT_ENDPOINT = "tcp://127.0.0.1:5577"
#: Seeds, counts and frame numbers: what every library behind the settings accepts.
MAX_INT = 2**31 - 1
MAX_FLOAT = 1e9
#: Requests that wait at a MEC, unless its configuration says otherwise.
MEC_QUEUE_LIMIT = 64
#: Samples of the workload that a device captures, unless a source or a number is given.
DEFAULT_FRAMES = 300
_UTILITY = Utility()


def about(sentence: str, flag: str, **extra: Any) -> Meta:
    """What a field means, and its flag.

    ``off`` is the flag that sets a switch to false, ``show`` an example value for a field without a default;
    ``endless`` says that infinity makes sense.
    """
    return Meta(description=sentence, extra={"flag": flag} | extra)


Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
Index = Annotated[int, Meta(ge=0, le=MAX_INT)]
FewCount = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Amount = Annotated[float, Meta(ge=0.0, le=MAX_FLOAT)]
Gate = Annotated[float, Meta(ge=LEAST_GATE, le=MOST_GATE)]
Distance = Annotated[float, Meta(ge=0.0, le=2.0)]
Slowdown = Annotated[float, Meta(ge=1.0, le=1e4)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class WorkloadSection(Section, frozen=True):
    """What is inferred, with which models. Device and MEC must agree on it."""

    name: Annotated[
        Text, about("Workload: campus, garments, a registered name, or package.module:Class.", "--workload")
    ] = DEFAULT_WORKLOAD
    bundle: Annotated[
        Path | None, about("Directory of a bundle; default: the shipped one.", "--bundle", show="FOLDER")
    ] = None
    profile: Annotated[
        Path | None, about('Profile file, or "shipped"; default: this machine\'s, else shipped.', "--profile")
    ] = None


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

    mec: Annotated[Text, about("Endpoint of the MEC.", "--mec")] = DEFAULT_ENDPOINT
    require_mec: Annotated[
        bool, about("Exit with 1 when no MEC was met during the whole run.", "--require-mec", off="--no-require-mec")
    ] = False
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


class FilterSection(Section, frozen=True):
    """Frames that show nothing new are not run: an earlier answer stands for them. Device only."""

    mode: Annotated[
        Text,
        about(
            "off; auto: the threshold follows --filter-target; or a fixed threshold of the difference from 0 to 1, "
            "such as 0.01.",
            "--filter",
        ),
    ] = "off"
    target: Annotated[
        float,
        Meta(ge=0.5, le=0.999),
        about(
            "With auto: how well the answers of all frames shall agree with those that running every frame would give.",
            "--filter-target",
        ),
    ] = 0.95
    feature: Annotated[
        Literal["pixel", "area", "edge", "corner"],
        about("What is compared: pixels, the largest changed area, edges, or corners.", "--filter-feature"),
    ] = "pixel"
    max_age: Annotated[
        int, Meta(ge=1, le=10), about("Oldest answer that may stand for a frame, in frames.", "--filter-max-age")
    ] = 10

    empty: Annotated[
        Path | None,
        about(
            "File of `mecpilot models empty`, which knows frames that show nothing: their answer is that nothing is "
            "there. Default: none.",
            "--filter-empty",
            show="empty.safetensors",
        ),
    ] = None

    @property
    def is_on(self) -> bool:
        """Whether frames are filtered by their differences."""
        return self.mode != "off"

    @property
    def threshold(self) -> float | None:
        """The fixed threshold; None where it adapts, or where nothing is filtered."""
        return None if self.mode in ("off", "auto") else float(self.mode)


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


class CacheSection(Section, frozen=True):
    """Answers that stand for later pictures much like theirs (docs/cache.md). Device only."""

    size: Annotated[Text, about("Memory for answers, such as 32MB; 0: no cache.", "--cache")] = "0"
    agreement: Annotated[
        float,
        Meta(ge=0.5, le=1.0),
        about("Agreement of the cache's answers with those of a run that the threshold aims at.", "--cache-agreement"),
    ] = 0.95
    verify_frac: Annotated[
        float,
        Meta(ge=0.0, le=1.0),
        about("Share of the frames with a cached answer that are run all the same, to compare.", "--cache-verify"),
    ] = 0.02
    threshold: Annotated[
        Distance | None,
        about("Fixed largest distance between two pictures; default: adapts itself.", "--cache-threshold", show=0.1),
    ] = None
    ttl_s: Annotated[Amount, about("How long an answer is kept at most, in seconds.", "--cache-ttl-s")] = 600.0
    eviction: Annotated[
        Literal["gdsf", "lru", "w-tinylfu"], about("What goes when the memory is full.", "--cache-eviction")
    ] = "gdsf"

    @property
    def size_bytes(self) -> int:
        """0: no cache. UsageError when the size cannot be read."""
        return bytes_of(self.size)

    def rules(self) -> CacheRules:
        """The same as the record that the cache uses."""
        same = (self.agreement, self.verify_frac, self.threshold, self.ttl_s, self.eviction)
        return CacheRules(self.size_bytes, *same)


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


class MecSection(Section, frozen=True):
    """The MEC: where it listens, and how much it takes on."""

    bind: Annotated[Text, about("tcp://HOST:PORT; port * lets the system choose.", "--bind")] = DEFAULT_ENDPOINT
    slowdown: Annotated[Slowdown, about("Emulate a MEC this many times slower.", "--slowdown")] = 1.0
    queue_limit: Annotated[Count, about("Requests that may wait; more are rejected.", "--queue-limit")] = (
        MEC_QUEUE_LIMIT
    )
    cache: Annotated[
        Text, about("Memory for answers to requests that come again byte by byte, such as 64MB; 0: none.", "--cache")
    ] = "0"
    ready_file: Annotated[
        Path | None, about("Write the endpoint here once ready; removed at the end.", "--ready-file", show="mec.ready")
    ] = None
    requests: Annotated[
        Text | None,
        about(
            "Append one JSON line per request to this file or FIFO, - for stdout. SIGHUP reopens it. A log that is "
            "full or not read costs lines, never requests.",
            "--requests",
            show="requests.jsonl",
        ),
    ] = None
    end_with_stdin: Annotated[
        bool,
        about("End when stdin ends: with the program that started the MEC.", "--end-with-stdin"),
    ] = False


class Config(Section, frozen=True):
    """The whole tree. Every part has its defaults."""

    workload: WorkloadSection = WorkloadSection()
    controller: ControllerSection = ControllerSection()
    source: SourceSection = SourceSection()
    device: DeviceSection = DeviceSection()
    limits: LimitsSection = LimitsSection()
    privacy: PrivacySection = PrivacySection()
    filter: FilterSection = FilterSection()
    objective: ObjectiveSection = ObjectiveSection()
    emulation: EmulationSection = EmulationSection()
    cache: CacheSection = CacheSection()
    outputs: OutputsSection = OutputsSection()
    mec: MecSection = MecSection()


#: What holds where nothing else is said.
DEFAULTS = Config()
#: The tables that each command reads, in the order of its help.
DEVICE_SECTIONS = tuple(name for name in Config.__struct_fields__ if name != "mec")
MEC_SECTIONS = ("workload", "mec")
