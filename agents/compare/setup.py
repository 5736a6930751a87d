"""What training, tuning and evaluation share: a bundle's costs and recorded answers, and the traces of a split.

Training traces are split by name: most are learned from, a few only judge the training while it runs. The traces of
the final evaluation are never used in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from controller.costs import CostTable
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import ScenarioRange
from envs.twin.tables import TableShortcut
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.recorded import Recorded
from runtime.config.tree import DEFAULTS, PrivacySection
from runtime.files.scenario_file import read_range
from runtime.profiling.profile import candidates, load_costs
from runtime.testbed.markov_traces import builtin_traces
from runtime.traces.load import load_traces

#: What comparisons and tunings call the built-in traces.
BUILTIN_TEST, BUILTIN_TRAIN = "built-in test traces", "built-in training traces"
#: 1 in 8 training traces is held out to judge the training.
VALIDATION_SHARE = 8


@dataclass(frozen=True)
class Setup:
    """Everything a twin is made of, except the batch and the seed."""

    bundle: Bundle
    costs: CostTable  # the candidates
    recorded: Recorded
    bank: TraceBank
    range: ScenarioRange
    profile: Path | None = None  # as the user named it; see ``runtime.profiling.profile.find_profile``
    privacy: PrivacySection = DEFAULTS.privacy  # what the candidates respect
    shortcuts: Sequence[TableShortcut] = ()  # what may answer a frame before it is decided

    @property
    def workload(self) -> str:
        return self.bundle.workload

    def on(self, traces: Sequence[Trace]) -> Setup:
        """The same setup over other traces."""
        return replace(self, bank=TraceBank(traces))


def open_setup(
    bundle: str | Path | Bundle,
    traces: TraceBank,
    split: str,
    range_: ScenarioRange | None = None,
    profile: Path | None = None,
    privacy: PrivacySection = DEFAULTS.privacy,
) -> Setup:
    """A setup of a shipped bundle's name, of a bundle's directory, or of an open bundle.

    ``split`` chooses the recorded answers: "validation" for learning, "test" for evaluation. ``privacy`` may forbid
    decisions; UsageError when it leaves none.
    """
    opened = open_bundle(bundle)
    costs = candidates(load_costs(opened, profile), opened.default_range, privacy)
    return Setup(opened, costs, opened.recorded(split), traces, range_ or opened.default_range, profile, privacy)


def scenario_range(bundle: Bundle, path: Path | None) -> ScenarioRange:
    """The default range of the bundle's workload, with the fields that a JSON file overrides."""
    return bundle.default_range if path is None else read_range(path, bundle.default_range)


def traces_of(sources: Sequence[Path], split: str, seed: int = 0) -> TraceBank:
    """Traces of the given files and folders; by default the built-in ones of "train" or "test"."""
    return load_traces(list(sources)) if sources else builtin_traces(split, seed)  # type: ignore[arg-type]


def hold_out(bank: TraceBank) -> tuple[list[Trace], list[Trace]]:
    """Split a bank into traces to learn from and traces that judge the learning, by a hash of the name.

    The choice does not depend on the other traces. A bank that is too small to be split serves both purposes.
    """
    judge = [trace for trace in bank.traces if _share_of(trace.name) == 0]
    learn = [trace for trace in bank.traces if _share_of(trace.name) != 0]
    return (learn, judge) if learn and judge else (list(bank.traces), list(bank.traces))


def family(trace: Trace) -> str:
    """Traces of one folder (or one built-in kind of link) are named ``family/trace``."""
    return trace.name.split("/")[0]


def families(bank: TraceBank) -> list[str]:
    """Family of each trace."""
    return [family(trace) for trace in bank.traces]


def _share_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % VALIDATION_SHARE
