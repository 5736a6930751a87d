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
from controller.scenario import ScenarioRange
from envs.twin.shortcut import TableShortcut
from envs.twin.twin import Reward, Twin
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.recorded import Recorded
from runtime.config.tree import DEFAULTS, PrivacySection
from runtime.files.scenario_file import range_from, read_range
from runtime.profiling.profile import candidates, load_costs
from runtime.testbed.markov_traces import builtin_traces
from runtime.traces.load import load_traces

if TYPE_CHECKING:
    from envs.live import LiveBackend

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
    gates: tuple[float, ...] | None = None  # that decisions may carry; None: those of the bundle
    forecast: bool = False  # answers that stand for later frames move on; ``recorded`` and ``costs`` say so too

    @property
    def workload(self) -> str:
        return self.bundle.workload

    def on(self, traces: Sequence[Trace]) -> Setup:
        """The same setup over other traces."""
        return replace(self, bank=TraceBank(traces))

    def less(self, without: Collection[str]) -> Setup:
        """The same setup without some techniques or kinds of decision more (``controller.techniques``)."""
        names = (*self.without, *without)
        same = (self.bundle, self.bank, self.split, self.range, self.profile, self.privacy, self.shortcuts)
        return open_setup(*same, without=names, gates=self.gates, forecast=self.forecast)

    def twin(self, batch: int = 1, seed: int = 0, reward: Reward = "replayed", oracle: bool = False) -> Twin:
        """A twin for ``batch`` episodes. ``oracle``: states contain the true latency of every row."""
        parts = (self.costs, self.bank, self.recorded, self.range)
        return Twin(*parts, batch, seed, reward=reward, oracle=oracle, shortcuts=self.shortcuts)

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
    gates: Sequence[float] | None = None,
    forecast: bool = False,
) -> Setup:
    """A setup of a shipped bundle's name, of a bundle's directory, or of an open bundle.

    ``privacy`` may forbid decisions, and ``without`` leaves out techniques or kinds of decision; UsageError when none
    is left, and for an unknown name, field or file. ``gates``: those that decisions may carry, by default those of the
    bundle. ``forecast``: answers move on to later frames; UsageError when the bundle has no scores of that.
    """
    opened, where = open_bundle(bundle), None if profile is None else Path(profile)
    range_, recorded = range_of(range_, opened.default_range), opened.recorded(split)
    if forecast:
        recorded = recorded.with_forecast()
    everything = load_costs(opened, where, hardware_encoder=range_.hardware_encoder, gates=gates, forecast=forecast)
    costs = candidates(everything, opened.default_range, privacy, without)
    if any(shortcut.needs_newest for shortcut in shortcuts) and recorded.lagged is None:
        raise UsageError(
            f"got shortcuts for {opened.workload}, whose bundle has no scores of older answers; expected the bundle of "
            "a video workload, such as campus, or no shortcuts (a real device takes them with any workload)"
        )
    parts = (opened, costs, recorded, traces, range_, where, privacy, tuple(shortcuts), split)
    return Setup(*parts, tuple(without), None if gates is None else tuple(gates), forecast)


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
