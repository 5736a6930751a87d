"""The options of the learning side's commands: records whose fields are options, and what several of them share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_type_hints

import typer
from rich.console import Console

from controller.errors import UsageError
from runtime.cli.shared_options import BundleDir, DecoderCode, HardwareEncoder, NoRawUpload, ProfileFile, ScorerCode
from runtime.config.rules import check_filter
from runtime.config.sections.device import PrivacySection
from runtime.config.sections.fields import DEFAULT_WORKLOAD
from runtime.config.sections.shortcuts import FilterSection
from runtime.config.tree import DEFAULTS
from runtime.traces.formats import TRACE_HELP
from runtime.workloads.registry import WORKLOADS

if TYPE_CHECKING:
    from agents.compare.spread import Spread
    from agents.scale.runner import Runner
    from controller.scenario import ScenarioRange
    from envs.techniques import Techniques
    from runtime.bundles.bundle import Bundle

Options = TypeVar("Options")
#: More frames take longer than to start processes: about ten seconds on one core.
LARGE_FRAMES = 3_000_000


def takes(record: type[Options]) -> Callable[[Callable[[Options], int]], Callable[..., int]]:
    """Make a command with one option per field of a dataclass; its function receives the record."""
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


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What is played: the options that train, tune and evaluate share."""

    workload: Annotated[
        str | None,
        typer.Option(
            help=f"Workload: {', '.join(WORKLOADS)}, package.module:Class, or an adopted bundle (default: "
            f"{DEFAULT_WORKLOAD})."
        ),
    ] = None
    bundle: BundleDir = None
    decode: DecoderCode = None
    scorer: ScorerCode = None
    traces: Annotated[
        list[Path] | None,
        typer.Option(help=f"Trace files or folders; may be repeated (default: built-in). {TRACE_HELP}"),
    ] = None
    scenario: Annotated[Path | None, typer.Option(help="JSON file that overrides fields of the scenario range.")] = None
    profile: ProfileFile = None
    no_raw_upload: NoRawUpload = False
    hardware_encoder: HardwareEncoder = False

    @property
    def privacy(self) -> PrivacySection:
        """What the candidate decisions must respect."""
        return PrivacySection(no_raw_upload=self.no_raw_upload)

    def open(self) -> Bundle:
        """The bundle that is named; UsageError if it is not of the named workload."""
        from runtime.bundles.bundle import open_bundle, open_pair
        from runtime.decoders.given import give_all

        give_all(self.decode, self.scorer)
        if self.bundle is None:
            return open_bundle(self.workload or DEFAULT_WORKLOAD)
        if self.workload is None:
            return open_bundle(self.bundle)
        return open_pair(self.bundle, self.workload)[0]

    def range_of(self, bundle: Bundle, frames: int | None = None) -> ScenarioRange:
        """The scenario range, with a hardware encoder and another number of frames per episode if they are given."""
        from envs.setup import range_of

        chosen = range_of(self.scenario, bundle.default_range)
        if self.hardware_encoder:
            chosen = replace(chosen, hardware_encoder=True)
        return chosen if frames is None else replace(chosen, frames=frames)


@dataclass(frozen=True, kw_only=True)
class TechniqueOptions:
    """What is switched on beside the decisions: the options that train, tune and evaluate share."""

    forecast: Annotated[
        bool | None,
        typer.Option(
            "--forecast/--no-forecast",
            help="Boxes of frames that are not run move on, by a small tracker, instead of standing still (default: if "
            "the bundle says what that scores).",
        ),
    ] = None
    gate: Annotated[
        list[float] | None,
        typer.Option(help="Decisions may carry this gate, a confidence such as 0.9; may be repeated (docs/gate.md)."),
    ] = None
    filter: Annotated[
        str,
        typer.Option(
            help="Frames that show nothing new are not run: off, auto, or a threshold of the difference such as 0.01 "
            "(see docs/filter.md)."
        ),
    ] = DEFAULTS.filter.mode
    filter_target: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="With --filter auto: agreement with running every frame.")
    ] = DEFAULTS.filter.target

    def techniques(self) -> Techniques:
        """What is switched on beside the decisions."""
        from envs.techniques import Techniques

        filter_ = FilterSection(mode=self.filter, target=self.filter_target)
        check_filter(filter_)
        return Techniques(tuple(self.gate) if self.gate else None, self.forecast, filter_)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who does the work: the options that train, tune and evaluate share."""

    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="Processes side by side (default: one per core, where that pays); with --ray: most tasks at a time.",
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Ray cluster: ray://HOST:10001, HOST:6379, auto, or local, which starts one."
        ),
    ] = None

    def workers(self, *, worth_it: bool) -> AbstractContextManager[Runner]:
        """What carries out pieces of work; see ``agents.scale.runner.workers``."""
        from agents.scale.runner import workers

        return workers(self.jobs, self.ray, worth_it=worth_it)

    @contextmanager
    def spread(self, frames: int) -> Iterator[Spread]:
        """Plays that many frames: large work on several workers and so that an interrupted command can go on."""
        from agents.compare.spread import Spread
        from agents.scale.kept import kept_until_done

        large = frames > LARGE_FRAMES

        def say(text: str) -> None:
            Console(stderr=True).print(text, highlight=False, soft_wrap=True)

        with self.workers(worth_it=large) as runner:
            if large:
                with kept_until_done(say) as kept:
                    yield Spread(runner, kept)
            else:
                yield Spread(runner)

    def refuse_workers(self, why: str) -> None:
        """UsageError if one of the options was given."""
        for name, value in (("--jobs", self.jobs), ("--ray", self.ray)):
            if value is not None:
                raise UsageError(f"got {name} {value} {why}")


Frames = Annotated[int | None, typer.Option(min=1, help="Frames per episode (default: as the scenario range says).")]
