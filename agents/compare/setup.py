"""What do training, tuning and evaluation share? A workload's costs and recorded answers, and the traces of a split.

Two kinds of traces are kept apart by name: those that agents and tunings learn from, and within them a few that only
judge a training while it runs. Traces for the final evaluation never pass through here during training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import msgspec

from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.uplink import Trace, TraceBank
from controller.scenario import ScenarioRange
from controller.utility import Utility
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.bundles.recorded import Recorded
from runtime.files.traces import load_traces
from runtime.profiling.profile import candidates, load_costs
from runtime.testbed.markov_traces import builtin_traces
from runtime.workloads.registry import get_workload

#: What comparisons and tunings call the built-in traces.
BUILTIN_TEST, BUILTIN_TRAIN = "built-in test traces", "built-in training traces"
#: One of so many training traces judges the training instead.
VALIDATION_SHARE = 8


@dataclass(frozen=True)
class Setup:
    """Everything a twin is made of, but the batch and the seed."""

    bundle: Bundle
    costs: CostTable  # the candidates
    recorded: Recorded
    bank: TraceBank
    range: ScenarioRange
    profile: Path | None = (
        None  # where the costs come from, as the user said; see ``runtime.profiling.profile.find_profile``
    )

    @property
    def workload(self) -> str:
        return self.bundle.workload

    def on(self, traces: Sequence[Trace]) -> Setup:
        """The same setup over other traces."""
        return replace(self, bank=TraceBank(traces))


def open_setup(
    workload: str, traces: TraceBank, split: str, range_: ScenarioRange | None = None, profile: Path | None = None
) -> Setup:
    """Recorded predictions of ``split``: "validation" for learning, "test" for evaluation."""
    bundle = open_bundle(workload)
    costs = candidates(load_costs(bundle, profile), bundle.default_range)
    return Setup(bundle, costs, bundle.recorded(split), traces, range_ or bundle.default_range, profile)


def traces_of(sources: Sequence[Path], split: str, seed: int = 0) -> TraceBank:
    """Traces of the given files and folders; without any, the built-in ones of "train" or "test"."""
    return load_traces(list(sources)) if sources else builtin_traces(split, seed)  # type: ignore[arg-type]


def hold_out(bank: TraceBank) -> tuple[list[Trace], list[Trace]]:
    """Traces to learn from and traces that judge the learning, chosen by a hash of the name.

    The choice does not depend on what else is in the bank. A bank too small to be split serves both purposes.
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


def scenario_range(workload: str, path: Path | None) -> ScenarioRange:
    """The workload's usual range, with the fields that a JSON file overrides. An unknown field is an error."""
    usual = get_workload(workload).scenario_range()
    return usual if path is None else range_from(_read_object(path), str(path), usual)


def range_from(overrides: dict[str, Any], source: str, usual: ScenarioRange) -> ScenarioRange:
    """The usual range with plain values in place of some; bounds are [low, high], or one number for both."""
    known = [field.name for field in fields(ScenarioRange)]
    _check_names(overrides, known, source)
    values = asdict(usual) | overrides
    if isinstance(weights := overrides.get("utility"), dict):
        _check_names(weights, [field.name for field in fields(Utility)], f"{source}: utility")
        values["utility"] = asdict(usual.utility) | weights
    pairs = [name for name in known if isinstance(getattr(usual, name), tuple)]
    single = {n: [v, v] for n, v in overrides.items() if n in pairs and isinstance(v, int | float)}
    try:
        return msgspec.convert(values | single, ScenarioRange)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {error}; expected bounds [low, high], one number for both, or weights") from None
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def _check_names(values: dict[str, Any], known: list[str], source: str) -> None:
    for name in values:
        if name not in known:
            raise UsageError(f"{source}: unknown field {name!r}; expected some of: {', '.join(known)}")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise UsageError(f"scenario file {path}: {error.strerror}; expected a JSON object") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"scenario file {path}: {error}; expected a JSON object of ScenarioRange fields") from None
