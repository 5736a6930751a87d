"""Opens everything that an emulated or real device plays with: bundle, costs, recorded answers, traces and conditions.

``make_env``, training, tuning and comparison all begin here, so that a new part, such as a shortcut, is added once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.uplink import Trace, TraceBank
from controller.records import Floats
from controller.scenario import ScenarioRange
from controller.techniques import COMPRESSION, TECHNIQUES
from envs.techniques import CACHE, FILTER, Techniques
from envs.twin.caching import CacheTable, ShownSamples, shown_by
from envs.twin.filtering import FilterTable, differences
from envs.twin.shortcut import TableShortcut
from envs.twin.twin import Reward, Twin
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.recorded import Recorded
from runtime.config.tree import DEFAULTS, PrivacySection
from runtime.files.scenario_file import range_from, read_range
from runtime.gating.calibration import Calibrations
from runtime.profiling.profile import candidates, load_costs
from runtime.regions.scores import scores_of, with_crop_scores
from runtime.shortcuts.filtering.features import Differencer
from runtime.testbed.markov_traces import builtin_traces
from runtime.traces.load import load_traces
from runtime.workloads.registry import get_workload, is_workload

if TYPE_CHECKING:
    from envs.live import LiveBackend

#: No technique beside the decisions.
NO_MORE = Techniques()
#: Samples that are played: "validation" for learning, "test" for evaluation.
PlayedSplit = Literal["validation", "test"]
#: Files and folders of uplink traces, or a bank of them.
TracesLike = TraceBank | str | Path | Sequence[str | Path] | None
#: A range, or the fields that differ from a default range: a mapping, or a JSON file.
RangeLike = ScenarioRange | Mapping[str, Any] | str | Path | None


@dataclass(frozen=True)
class Setup:
    """Everything that a twin or a live backend is made of, except the batch and the seed."""

    bundle: Bundle
    costs: CostTable  # the candidates
    recorded: Recorded
    bank: TraceBank
    range: ScenarioRange
    profile: Path | None = None  # as the user named it; see ``runtime.profiling.profile.find_profile``
    privacy: PrivacySection = DEFAULTS.privacy  # what the candidates respect
    shortcuts: Sequence[TableShortcut] = ()  # of the twin: what may answer a frame before it is decided
    split: PlayedSplit = "validation"  # that ``recorded`` belongs to
    without: tuple[str, ...] = ()  # techniques and kinds of decision that the candidates lack
    techniques: Techniques = NO_MORE  # in the twin and live; ``recorded`` and ``costs`` are theirs
    differences: Floats | None = None  # of the samples' pictures, where frames are filtered
    repetition: float | None = None  # share of the samples that show one again; None: samples as they are
    shown: ShownSamples | None = None  # by the samples' pictures, where there is a cache

    @property
    def workload(self) -> str:
        return self.bundle.workload

    def on(self, traces: Sequence[Trace]) -> Setup:
        """The same setup over other traces."""
        return replace(self, bank=TraceBank(traces))

    @property
    def everything(self) -> CostTable:
        """Costs of every legal decision, not only of the candidates."""
        return _everything(self.bundle, self.profile, self.range, self.techniques)

    @property
    def technique_names(self) -> tuple[str, ...]:
        """The techniques that the setup has, by the names that ``less`` takes."""
        compression = (COMPRESSION,) if self.bundle.compressed_models else ()
        return (*compression, *TECHNIQUES, *self.techniques.before_decisions)

    def less(self, without: Collection[str]) -> Setup:
        """The same setup without some techniques or kinds of decision more."""
        if not without:
            return self
        names = (*self.without, *(name for name in without if name not in (FILTER, CACHE)))
        same = (self.bundle, self.bank, self.split, self.range, self.profile, self.privacy, self.shortcuts)
        techniques = self.techniques.without(without)
        return open_setup(*same, without=names, techniques=techniques, repetition=self.repetition)

    def twin(self, batch: int = 1, seed: int = 0, reward: Reward = "replayed", oracle: bool = False) -> Twin:
        """A twin for ``batch`` episodes. ``oracle``: states contain the true latency of every row."""
        parts = (self.costs, self.bank, self.recorded, self.range)
        return Twin(*parts, batch, seed, reward=reward, oracle=oracle, shortcuts=self.twin_shortcuts)

    @property
    def twin_shortcuts(self) -> Sequence[TableShortcut]:
        """All that may answer a frame of the twin before it is decided, in the order in which they are asked."""
        members = list(self.shortcuts)
        if self.differences is not None:
            parts = (self.techniques.filter, self.differences, self.costs, self.recorded)
            members.insert(0, FilterTable(*parts, moves=bool(self.techniques.forecast)))
        if self.shown is not None and self.recorded.label is not None:
            members.append(CacheTable(self.techniques.cache.rules(), self.shown, self.costs, self.recorded.label))
        return tuple(members)

    def live(self, *, learning: bool = True) -> LiveBackend:
        """Real processes. While a policy learns, the clock stands between two steps."""
        from envs.live import LiveBackend

        return LiveBackend(self, learning=learning)


def open_setup(
    bundle: str | Path | Bundle,
    traces: TraceBank,
    split: PlayedSplit,
    range_: RangeLike = None,
    profile: str | Path | None = None,
    privacy: PrivacySection = DEFAULTS.privacy,
    shortcuts: Sequence[TableShortcut] = (),
    without: Collection[str] = (),
    techniques: Techniques = NO_MORE,
    repetition: float | None = None,
) -> Setup:
    """A setup of a shipped bundle's name, of a bundle's directory, or of an open bundle.

    ``privacy`` may forbid decisions, and ``without`` leaves out techniques or kinds of decision; UsageError when none
    is left, and for an unknown name, field or file. ``techniques`` are switched on beside the decisions; UsageError
    when the bundle has not recorded what the twin needs for them. ``repetition``: see ``Workload.repeating``.
    """
    opened, where = open_bundle(bundle), None if profile is None else Path(profile)
    if repetition is not None:
        opened = opened.served_by(opened.work.repeating(repetition))
    techniques = replace(techniques, forecast=opened.forecasts(techniques.forecast, opened.work))
    range_, recorded = range_of(range_, opened.default_range), _recorded(opened, split)
    if techniques.forecast:
        recorded = recorded.with_forecast()
    if recorded.lagged is not None:  # samples of a stream: the last answer says something of the next frame
        recorded = Calibrations(opened).expected_scores(recorded)
    if techniques.crops:
        recorded = _with_crops(opened, recorded, split)
    everything = _everything(opened, where, range_, techniques)
    costs = candidates(everything, opened.default_range, privacy, without, opened.compressed_models)
    if techniques.filter.empty is not None:
        raise UsageError(
            f"got --filter-empty {techniques.filter.empty} in a comparison, which plays whole frames without a camera; "
            "expected it on a device"
        )
    if techniques.filter.is_on and recorded.lagged is None:
        raise UsageError(
            f"got --filter {techniques.filter.mode} for {opened.workload}, whose samples are no stream; expected the "
            "bundle of a video workload, such as campus, or --filter off"
        )
    if any(shortcut.needs_newest for shortcut in shortcuts) and recorded.lagged is None:
        raise UsageError(
            f"got shortcuts for {opened.workload}, whose bundle has no scores of older answers; expected the bundle of "
            "a video workload, such as campus, or no shortcuts (a real device takes them with any workload)"
        )
    if techniques.cache.size_bytes and recorded.label is None:
        raise UsageError(
            f"got --cache for {opened.workload}, whose bundle has no answers, only their scores; expected a bundle of "
            "class labels, such as garments, or no cache (a real device has one with any workload)"
        )
    parts = (opened, costs, recorded, traces, range_, where, privacy, tuple(shortcuts), split)
    setup = Setup(*parts, tuple(without), techniques, repetition=repetition)
    if techniques.filter.is_on:
        setup = replace(setup, differences=_differences(setup))
    return replace(setup, shown=_shown(setup)) if techniques.cache.size_bytes else setup


def _recorded(bundle: Bundle, split: PlayedSplit) -> Recorded:
    """What is recorded of the samples that the workload shows."""
    samples = bundle.work.recorded_samples(split) if is_workload(bundle.workload) else None
    return bundle.recorded(split) if samples is None else bundle.recorded(split).at(samples)


def _everything(bundle: Bundle, profile: Path | None, range_: ScenarioRange, techniques: Techniques) -> CostTable:
    encoder = range_.hardware_encoder
    return load_costs(
        bundle,
        profile,
        hardware_encoder=encoder,
        gates=techniques.gates,
        forecast=bool(techniques.forecast),
        crops=techniques.crops,
    )


def _with_crops(bundle: Bundle, recorded: Recorded, split: PlayedSplit) -> Recorded:
    """With the answers to parts of pictures, if they were measured; if not, the cost table refuses them."""
    scores = scores_of(bundle)
    return recorded if scores is None else with_crop_scores(recorded, scores, split, Calibrations(bundle))


def _differences(setup: Setup) -> Floats:
    """What the filter finds in the twin, which replays the frames of the workload that the bundle was made for."""
    frames = setup.bundle.work if setup.bundle.work.name == setup.workload else get_workload(setup.workload)
    pictures = (frames.sample(index, setup.split)[0] for index in range(setup.recorded.score.shape[1]))
    return differences(Differencer(setup.techniques.filter.feature), pictures)


def _shown(setup: Setup) -> ShownSamples:
    """What the cache sees in the twin."""
    samples = setup.recorded.score.shape[1]
    return shown_by(setup.bundle.work.sample(index, setup.split) for index in range(samples))


def range_of(given: RangeLike, default: ScenarioRange) -> ScenarioRange:
    """The range that is given, or the default one with the fields that a mapping or a JSON file overrides."""
    if given is None or isinstance(given, ScenarioRange):
        return given or default
    return range_from(given, "scenario", default) if isinstance(given, Mapping) else read_range(Path(given), default)


def traces_of(given: TracesLike, split: Literal["train", "test"], seed: int = 0) -> TraceBank:
    """The traces of files and folders; by default the built-in ones of the split, drawn from the seed."""
    if isinstance(given, TraceBank):
        return given
    if not given:
        return builtin_traces(split, seed)
    return load_traces([Path(given)] if isinstance(given, str | Path) else [Path(trace) for trace in given])
