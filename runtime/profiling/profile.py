"""Read, find and write profile files (times of all segments on one machine), and make cost tables from them.

A profile has two sides: the device side holds the time of every head, the MEC side the time of every tail. Both hold
the layer regressions of Edgent with their errors. A profile belongs to the bundle with its digest. Times are medians of
CPU time on one thread.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from controller import techniques
from controller.controllers.shortlist import Loss, losses, shortlist
from controller.costs import CostTable
from controller.errors import FailureError, UsageError
from controller.predict.regression import LayerModel, PredictionError
from controller.records import NO_PAYLOAD, Decision, Floats, PayloadKey
from controller.references import NO_STREAM, ReferenceCosts
from controller.scenario import ScenarioRange
from runtime.bundles.bundle import Bundle
from runtime.config.privacy import allowed
from runtime.config.sections.device import PrivacySection
from runtime.config.tree import DEFAULTS
from runtime.files.atomic import write_whole
from runtime.files.fetch import cache_dir
from runtime.files.provenance import GIVEN, OWN, SHIPPED, Used, used
from runtime.files.reading import format_version, read_bounded
from runtime.files.shipped import shipped_dir
from runtime.profiling.hardware_encoder import with_hardware_encoder

FORMAT_VERSION = 1
SHIPPED_DIR = shipped_dir("profiles")
PROFILE_FILE = "profile.json"  # in the folder of a bundle that was made with one; the bundle's digest leaves it out

Side = Literal["device", "mec"]
SIDES: tuple[Side, ...] = ("device", "mec")
#: In place of a codec: the segment is an exit head alone.
EXIT_ALONE = "exit"
#: Where costs come from: measured segments, or the summed regressions of their layers.
Source = Literal["measured", "regression"]


class SegmentKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that the time of a segment depends on; a field without influence is "" or -1."""

    model: str
    resolution_px: int
    partition_point: int
    exit_branch: int
    codec: str


class SegmentTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measured and predicted time of one head or tail."""

    key: SegmentKey
    median_s: float
    p95_s: float
    regression_s: float  # predicted by the sum of the layer regressions


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine and the conditions of a measurement."""

    cpu: str
    engine_version: str = msgspec.field(name="torch")  # the file keeps the old name, so old profiles load
    threads: int
    rounds: int  # measurements per segment


class Errors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Errors of three predictions of the measured segment times."""

    regression: PredictionError  # sum of layer regressions, on cuts that were not used for the fit
    layers: PredictionError  # sum of measured layers
    segments: PredictionError  # the first half of the rounds predicts the second


class SideProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Heads (device) or tails (MEC)."""

    machine: Machine
    segments: tuple[SegmentTime, ...]
    regressions: dict[str, LayerModel]
    errors: Errors


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a profile file. A side that was not measured is null."""

    format_version: int
    workload: str
    bundle_digest: str
    device: SideProfile | None
    mec: SideProfile | None

    @property
    def has_both_sides(self) -> bool:
        return self.device is not None and self.mec is not None


def head_key(decision: Decision) -> SegmentKey:
    """Key of a decision's head. The exit matters only if the device answers, the model only if it runs a stage."""
    d = decision
    if d.payload == NO_PAYLOAD:
        return SegmentKey(d.model, d.resolution_px, d.partition_point, d.exit_branch, d.payload)
    return SegmentKey(d.model if d.partition_point else "", d.resolution_px, d.partition_point, -1, d.payload)


def exit_key(model: str, resolution_px: int, exit_branch: int, after: int) -> SegmentKey:
    """Key of an exit head alone, as a gate runs it on the way: the head, and judging its answer."""
    return SegmentKey(model, resolution_px, after, exit_branch, EXIT_ALONE)


def is_exit(key: SegmentKey) -> bool:
    """Whether the segment is an exit head alone."""
    return key.codec == EXIT_ALONE


def tail_key(decision: Decision) -> SegmentKey:
    """Key of a decision's tail, which depends on every field."""
    d = decision
    return SegmentKey(d.model, d.resolution_px, d.partition_point, d.exit_branch, d.payload)


def load_costs(
    bundle: Bundle,
    profile_path: Path | None = None,
    source: Source = "measured",
    *,
    hardware_encoder: bool = False,
    gates: Sequence[float] | None = None,
    forecast: bool = True,
    crops: Sequence[float] = (),
    weighed: bool = True,
    sealed: bool = False,
) -> CostTable:
    """Costs of every legal decision of the bundle, from the profile that ``find_profile`` returns.

    ``hardware_encoder``: of a device that encodes H.264 in hardware. ``gates``: those that decisions may carry; None
    are those of the bundle. ``forecast``: of a device whose answers move on; if the bundle has no scores of forecasts,
    those of answers that stand still. ``crops``: those that decisions may have; if a controller weighs such decisions
    (``weighed``), they must have been measured. ``sealed``: of a device whose messages are encrypted. UsageError when
    there is no such profile, when it lacks a segment, and for a gate that cannot be one.
    """
    profile = read_profile(find_profile(bundle, profile_path)[0], bundle)
    costs = replace(cost_table(bundle, profile, source, forecast=forecast), sealed=sealed)
    costs = with_hardware_encoder(costs) if hardware_encoder else costs
    if crops:
        from runtime.regions.costs import with_crops

        costs = with_crops(costs, bundle, crops, forecast=forecast, weighed=weighed)
    wanted = bundle.manifest.gates if gates is None else gates
    if not wanted:
        return costs
    from runtime.gating.costs import with_gates
    from runtime.profiling.exit_heads import exit_times

    return with_gates(costs, bundle, wanted, exit_times(bundle, profile, source), forecast=forecast)


def candidates(
    costs: CostTable,
    usual: ScenarioRange,
    privacy: PrivacySection = DEFAULTS.privacy,
    without: Collection[str] = (),
    compressed: Collection[str] = (),
) -> CostTable:
    """The decisions that privacy allows and that can be best under a workload's usual conditions.

    ``without``: techniques and kinds of decision (``controller.techniques``) to leave out, which shows what they are
    worth; ``compressed`` names the models that go without compression. Controllers and the policy see only these.
    UsageError when no decision is left.
    """
    permitted = techniques.without(allowed(costs, privacy), without, usual, compressed)
    return permitted.take(shortlist(permitted, usual))


@dataclass(frozen=True)
class Choice:
    """How many of the legal decisions controllers choose from, and what leaving out the others costs."""

    candidates: int
    legal: int
    losses: list[Loss]


def choice_of(bundle: Bundle, profile: Profile) -> Choice:
    """The choice on the machine of a profile that has both sides, under the bundle's usual conditions."""
    costs, usual = cost_table(bundle, profile), bundle.default_range
    rows = shortlist(costs, usual)
    return Choice(len(rows), len(costs), losses(costs, rows, usual))


def cost_table(bundle: Bundle, profile: Profile, source: Source = "measured", *, forecast: bool = True) -> CostTable:
    """Join the decisions, accuracy and payloads of a bundle with the times of a profile; UsageError if one is
    missing."""
    decisions = bundle.space.decisions
    offloaded = ~bundle.space.device_only
    head_s = _times(profile, "device", [head_key(d) for d in decisions], source)
    mec_s = np.zeros(len(decisions))
    tails = [tail_key(d) for d, is_offloaded in zip(decisions, offloaded, strict=True) if is_offloaded]
    mec_s[offloaded] = _times(profile, "mec", tails, source)
    accuracy = np.array([variant.accuracy["validation"] for variant in bundle.manifest.variants])
    payloads = [bundle.payload(decision) for decision in decisions]
    references = reference_costs(bundle)
    return CostTable(
        bundle.space,
        accuracy[bundle.space.variant],
        head_s,
        np.array([payload.mean_bytes for payload in payloads]) if references is None else _steady(bundle, references),
        np.array([payload.std_bytes for payload in payloads]),
        mec_s,
        lagged_accuracy=_lagged_accuracy(bundle, forecast),
        references=references,
    )


def reference_costs(bundle: Bundle) -> ReferenceCosts | None:
    """Bytes of every decision by the age of the reference; None for a bundle whose payloads refer to no other."""
    ages = np.array(bundle.manifest.reference_ages, np.int64)
    if not len(ages):
        return None
    payloads = [bundle.payload(decision) for decision in bundle.space.decisions]
    numbers: dict[PayloadKey, int] = {}
    stream = [
        numbers.setdefault(decision.payload_key, len(numbers)) if payload.mean_bytes_by_age else NO_STREAM
        for decision, payload in zip(bundle.space.decisions, payloads, strict=True)
    ]
    by_age = [payload.mean_bytes_by_age or (payload.mean_bytes,) * (1 + len(ages)) for payload in payloads]
    chained = np.array([payload.chained for payload in payloads])
    return ReferenceCosts(ages, np.array(by_age), np.array(stream, np.int64), chained)


def _steady(bundle: Bundle, references: ReferenceCosts) -> Floats:
    """(C,) bytes with a reference that is as old as the frame stride."""
    columns = references.column(bundle.space.frame_stride)
    return np.asarray(references.payload_bytes[np.arange(len(columns)), columns])


def _lagged_accuracy(bundle: Bundle, forecast: bool) -> Floats | None:
    """(C, lags) mean score over the validation split; None for a bundle whose samples are not a stream."""
    if bundle.manifest.frame_strides == (1,):
        return None
    recorded = bundle.recorded("validation")
    lagged = recorded.lagged
    if forecast and recorded.lagged_forecast is not None:
        lagged = recorded.lagged_forecast
    if lagged is None:
        raise FailureError(f"{bundle.directory} has frame strides but no lagged scores; train it again")
    return np.asarray(lagged.mean(axis=2, dtype=float).T[bundle.space.variant])


def _times(profile: Profile, side: Side, keys: list[SegmentKey], source: Source) -> Floats:
    measured = getattr(profile, side)
    if measured is None:
        raise UsageError(f"the profile has no {side} side; add one with `mecpilot profile --side {side} --merge FILE`")
    field = "median_s" if source == "measured" else "regression_s"
    time_of = {segment.key: getattr(segment, field) for segment in measured.segments}
    missing = [key for key in keys if key not in time_of]
    if missing:
        raise UsageError(f"the profile lacks the {side}'s time of {missing[0]}; run `mecpilot profile` again")
    return np.array([time_of[key] for key in keys])


def default_out(bundle: Bundle) -> Path:
    """The path that `mecpilot profile` writes to, and where `load_costs` looks first."""
    return cache_dir() / "profiles" / f"{bundle.workload}-{bundle.digest[:16]}.json"


def shipped_path(workload: str) -> Path:
    """Path of the profile that mecpilot ships for a workload's bundle; the file may not exist."""
    return SHIPPED_DIR / f"{workload}.json"


def shipped_with(bundle: Bundle) -> Path:
    """Path of the profile that came with a bundle: in its folder, or with mecpilot; the file may not exist."""
    beside = bundle.directory / PROFILE_FILE
    return beside if os.path.isfile(beside) else shipped_path(bundle.workload)


def find_profile(bundle: Bundle, given: Path | None = None) -> tuple[Path, str]:
    """Path of the profile to use, and its origin (``runtime.files.provenance``).

    The given file, or the one that came with the bundle if ``given`` is "shipped". If None: the profile of this bundle
    in the user's cache, else the one that came with it. UsageError if there is none.
    """
    own, shipped = default_out(bundle), shipped_with(bundle)
    if given is not None and given != Path(SHIPPED):
        return given, GIVEN
    if given is None and os.path.isfile(own):
        return own, OWN
    if not os.path.isfile(shipped):
        raise UsageError(f"there is no profile of the bundle {bundle.digest[:12]}...; run {_command(bundle)} first")
    return shipped, SHIPPED


def used_profile(bundle: Bundle, given: Path | None = None) -> Used:
    """Provenance of the profile of a result: path, origin and digest."""
    return used(*find_profile(bundle, given))


def shipped_slowdown(bundle: Bundle, path: Path) -> float:
    """Median ratio of the head times in the shipped profile to those in the profile at ``path``.

    Slowdowns are relative to the profile of the machine. A device with slowdown s relative to the shipped profile has
    slowdown s times this ratio relative to the profile at ``path``.
    """
    shipped_s, here_s = (load_costs(bundle, p).head_s for p in (shipped_with(bundle), path))
    return float(np.median(shipped_s / here_s))


def read_profile(path: Path, bundle: Bundle | None = None) -> Profile:
    """The profile in a file; UsageError when the file is not a profile, or the profile of another bundle."""
    try:
        data = read_bounded(path)
        version = format_version(data)
        if version != FORMAT_VERSION:
            raise UsageError(f"{path}: got profile format {version}, expected {FORMAT_VERSION}; run `mecpilot profile`")
        profile = msgspec.json.decode(data, type=Profile)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected a file that `mecpilot profile` wrote") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not a profile ({error}); expected a file that `mecpilot profile` wrote") from None
    if bundle is not None and profile.bundle_digest != bundle.digest:
        raise UsageError(
            f"{path} was measured with bundle {profile.bundle_digest[:12]}..., but this is bundle "
            f"{bundle.digest[:12]}...; run {_command(bundle)}"
        )
    return profile


def _command(bundle: Bundle) -> str:
    own = bundle.manifest.adoption is not None
    return f"`mecpilot profile --workload {bundle.directory if own else bundle.workload}`"


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile file atomically; FailureError when that is not possible."""
    data = msgspec.json.format(msgspec.json.encode(profile, order="deterministic"), indent=1) + b"\n"
    write_whole(path, data, "the profile", "choose another --out", make_folder=True)


def merge(mine: Profile, other: Profile) -> Profile:
    """Add the sides that a profile lacks from another profile of the same bundle; UsageError for different bundles."""
    if mine.bundle_digest != other.bundle_digest:
        raise UsageError(
            f"profiles of two bundles, {mine.bundle_digest[:12]}... and {other.bundle_digest[:12]}...; "
            "expected one: profile both machines with the same bundle"
        )
    return msgspec.structs.replace(mine, device=mine.device or other.device, mec=mine.mec or other.mec)
