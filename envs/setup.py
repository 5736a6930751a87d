"""Opens everything that an emulated or real device plays with: bundle, costs, recorded answers, traces and conditions.

``make_env``, training, tuning and comparison all begin here, so that a new part, such as a shortcut, is added once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from controller.costs import CostTable
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import ScenarioRange
from controller.techniques import COMPRESSION, TECHNIQUES
from envs.played import NO_PICTURES, Pictures, PlayedSplit, check_played, pictures_of, recorded_with, shortcuts_of
from envs.techniques import CACHE, FILTER, Techniques
from envs.twin.shortcut import TableShortcut
from envs.twin.twin import Reward, Twin
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.recorded import Recorded
from runtime.config.sections.device import PrivacySection
from runtime.config.tree import DEFAULTS
from runtime.files.scenario_file import range_from, read_range
from runtime.profiling.profile import candidates, load_costs
from runtime.testbed.markov_traces import builtin_traces
from runtime.traces.load import load_traces

if TYPE_CHECKING:
    from envs.live import LiveBackend
    from envs.networks import NetworkName

#: No technique beside the decisions.
NO_MORE = Techniques()
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
    repetition: float | None = None  # share of the samples that show one again; None: samples as they are
    pictures: Pictures = NO_PICTURES  # what input filter and cache see of the samples

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
        seen = (self.repetition, self.pictures)
        return open_setup(*same, names, techniques, *seen)

    def twin(self, batch: int = 1, seed: int = 0, reward: Reward = "replayed", oracle: bool = False) -> Twin:
        """A twin for ``batch`` episodes. ``oracle``: states contain the true latency of every row."""
        parts = (self.costs, self.bank, self.recorded, self.range)
        return Twin(*parts, batch, seed, reward=reward, oracle=oracle, shortcuts=self.twin_shortcuts)

    @property
    def twin_shortcuts(self) -> Sequence[TableShortcut]:
        """All that may answer a frame of the twin before it is decided, in the order in which they are asked."""
        return shortcuts_of(self.pictures, self.techniques, self.costs, self.recorded, self.shortcuts)

    def live(self, *, learning: bool = True, network: NetworkName = "emulated") -> LiveBackend:
        """Real processes. While a policy learns, the clock stands between two steps. ``network``: what is between
        device and MEC (``envs.networks``)."""
        from envs.live import LiveBackend

        return LiveBackend(self, learning=learning, network=network)


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
    pictures: Pictures | None = None,
) -> Setup:
    """A setup of a shipped bundle's name, of a bundle's directory, or of an open bundle.

    ``privacy`` may forbid decisions, and ``without`` leaves out techniques or kinds of decision; UsageError when none
    is left, and for an unknown name, field or file. ``techniques`` are switched on beside the decisions; UsageError
    when the bundle has not recorded what the twin needs for them. ``repetition``: see ``Workload.repeating``.
    ``pictures``: of a setup of the same samples and of these techniques or more, so as not to compute them again.
    """
    opened, where = open_bundle(bundle), None if profile is None else Path(profile)
    if repetition is not None:
        opened = opened.served_by(opened.work.repeating(repetition))
    techniques = replace(techniques, forecast=opened.forecasts(techniques.forecast, opened.work))
    range_, recorded = range_of(range_, opened.default_range), recorded_with(opened, split, techniques)
    everything = _everything(opened, where, range_, techniques)
    costs = candidates(everything, opened.default_range, privacy, without, opened.compressed_models)
    check_played(opened.workload, recorded, techniques, shortcuts)
    parts = (opened, costs, recorded, traces, range_, where, privacy, tuple(shortcuts), split)
    seen = pictures_of(opened, split, recorded.score.shape[1], techniques, pictures)
    return Setup(*parts, tuple(without), techniques, repetition, seen)


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
