"""One pass of a device over a source: made ready, connected to the MEC, then one outcome for each frame.

The order matters to a daemon. Making ready takes seconds (networks are imported and run for the first time) and touches
nothing outside the process; connecting comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from controller.controllers.base import Controller
from controller.errors import FailureError, MecpilotError
from controller.predict.uplink import TraceBank
from controller.records import Decision, Outcome
from controller.scenario import Scenario
from controller.shadow import Shadow
from controller.utility import Utility
from runtime.bundles.bundle import Bundle
from runtime.config.sections.device import LimitsSection
from runtime.config.sections.shortcuts import CacheSection, FilterSection
from runtime.device.deciding import Chosen
from runtime.device.named import Named
from runtime.device.seat import Offer, Seat
from runtime.device.shadowing import BoundedShadow
from runtime.emptiness.file import EmptyKnown
from runtime.link.background import Ahead
from runtime.link.mecs.address import MecAddress
from runtime.regions.part import moved_region
from runtime.workloads.base import Workload, forecaster_of
from runtime.workloads.placement import Placement

if TYPE_CHECKING:
    from runtime.device.local_compute import LocalCompute
    from runtime.device.loop import DeviceLoop
    from runtime.link.link_watch import Counts
    from runtime.shortcuts.base import Notes, Shortcut
    from runtime.sources.samples import Source

UNLIMITED_FRAMES = 1_000_000_000  # a source ends before, or is stopped: three years at ten frames per second

Log = Callable[[str], None]


@dataclass(frozen=True)
class DeviceSetup:
    """What a device is made of. Nothing in it is started."""

    bundle: Bundle
    workload: Workload
    chosen: Chosen
    scenario: Scenario  # fps 0: as fast as frames are answered
    utility: Utility
    trace: TraceBank | None  # shapes the uplink; None leaves the network as it is
    limits: LimitsSection
    mecs: tuple[MecAddress, ...]  # the preferred one first
    breaker: bool  # a sole MEC has one too
    shortcuts: Sequence[Shortcut]  # asked before a frame is decided, after those of ``filter``
    forecast: bool  # reused answers move on, by the workload's forecaster
    filter: FilterSection
    empty: EmptyKnown | None  # what knows empty frames, as ``filter`` names it
    cache: CacheSection  # asked last; each run begins with an empty one
    engine: str | None  # see `runtime.inference.engines.open_engines`
    shadow: Named | None  # a candidate that decides beside the controller
    log: Log


class Run:
    """Owns a source, and the connection to the MEC while frames are answered. Iterate it once, then close it."""

    def __init__(self, setup: DeviceSetup, source: Source, frames: int | None = None, start: int = 0) -> None:
        """``frames``: how many to capture; None is up to the end of the source. The source is read ahead from now on,
        and the networks are imported."""
        self.source, self.frames = source, frames
        self._setup = setup
        fps = setup.scenario.fps if source.fps is None else source.fps
        self._closed_loop = fps == 0
        self.scenario = replace(
            setup.scenario,
            fps=fps or 1.0 / setup.scenario.deadline_s,
            frames=frames or UNLIMITED_FRAMES,
            first_sample=start,
        )
        self._ahead = Ahead(source.prepare)
        self._compute: LocalCompute = _compute(setup, source)
        self._loop: DeviceLoop | None = None
        self._stopped = False
        self.seat = Seat(setup.chosen.controller, setup.log)
        self.shadow = self._new_shadow()

    @property
    def capture_period_s(self) -> float | None:
        """Time between captures, where a clock makes them; None where frames come when they come."""
        return None if self._closed_loop or self.source.feed is not None else 1.0 / self.scenario.fps

    @property
    def is_closed_loop(self) -> bool:
        """Whether each frame is captured when the one before was answered."""
        return self._closed_loop

    @property
    def pinned(self) -> Decision | None:
        """The decision that the user has pinned for every frame."""
        return self._setup.chosen.pinned

    @property
    def counts(self) -> Counts:
        """What the link to the MEC did so far."""
        assert self._loop is not None, "connect() first"
        return self._loop.counts

    @property
    def shortcut_notes(self) -> dict[str, Notes]:
        """What each shortcut has to say about the run so far, by its name."""
        assert self._loop is not None, "connect() first"
        return self._loop.shortcut_notes

    @property
    def oversight(self) -> dict[str, dict[str, Any]]:
        """What guard and shadow have to say about the run so far, by their names; those that are off say nothing."""
        guard = self.seat.guard_notes()
        notes = {} if guard is None else {"guard": guard}
        return notes if self.shadow is None else {**notes, "shadow": self.shadow.notes()}

    def offer(self, controller: Controller, line: str) -> None:
        """Let this controller decide from the next frame on, and log the line then. The shadow begins anew beside it,
        with its files read anew; a candidate that can no longer be made goes on as it is. Safe on any thread."""
        shadow = self.shadow
        if shadow is None:
            self.seat.offer(Offer(controller, line))
            return
        try:
            candidate = self._candidate()
        except MecpilotError as error:
            candidate = None
            self._setup.log(f"the candidate in the shadow stays as it is: {error}")
        self.seat.offer(Offer(controller, line, lambda: shadow.restart(candidate)))

    def warm_up(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Run everything that frames may need once, so that none of them pays for a first run. ``stopping`` ends this
        early."""
        self._compute.warm_up(self._setup.chosen.decisions_in_use, stopping)
        self._ahead.wait(stopping)

    def connect(self) -> None:
        """Open the connection to the MEC, in the background; may be called twice."""
        if self._loop is None:
            self._loop = self._new_loop()
            if self._stopped:
                self._loop.stop()

    def watch(self, polled: Callable[[], None]) -> None:
        """Call this from the loop whenever it polls, which shows that it is not stuck; after ``connect``."""
        assert self._loop is not None, "connect() first"
        self._loop.watch(polled)

    def __iter__(self) -> Iterator[Outcome]:
        """Each frame's outcome as soon as it is known, its prediction in pixels of the source's picture. The time that
        the caller takes between two of them is taken from the frames."""
        from runtime.device.daemon import drive

        self.connect()
        loop = self._loop
        assert loop is not None
        self.seat.reset(np.ones(1, dtype=bool))
        for outcome in drive(loop, self.seat, self._setup.log, self.shadow):
            if self.shadow is not None:
                self.shadow.ended(outcome)
            yield from self._released(outcome)
        loop.close()
        for outcome in loop.take_outcomes():  # of frames that an end in mid-frame left behind
            yield from self._released(outcome)

    def _released(self, outcome: Outcome) -> Iterator[Outcome]:
        placement = self.source.placement(outcome.source_index)
        yield outcome if placement is None else self._moved(outcome, placement)
        self.source.release(outcome.source_index)

    def on_frame(self, outcome: Outcome) -> Outcome:
        """An outcome that was just yielded, with its prediction in pixels of the workload's frame again."""
        placement = self.source.placement(outcome.source_index)
        if placement is None:
            return outcome
        return self._moved(outcome, placement.inverse(self._setup.bundle.frame_shape))

    def _moved(self, outcome: Outcome, placement: Placement) -> Outcome:
        if outcome.region is not None:
            seen = len(self._setup.workload.to_picture(outcome.prediction[: outcome.region.seen], placement))
            outcome = replace(outcome, region=moved_region(outcome.region, seen, placement))
        if outcome.prediction is None:
            return outcome
        convert = self._setup.workload.to_picture
        if outcome.track_ids is None:
            return replace(outcome, prediction=convert(outcome.prediction, placement))
        # One by one, because an item outside the picture is left out, and its number with it.
        items = zip(outcome.track_ids, outcome.prediction, strict=True)
        moved = [(track, item) for track, one in items for item in convert([one], placement)]
        return replace(outcome, prediction=[item for _, item in moved], track_ids=tuple(track for track, _ in moved))

    def stop(self) -> None:
        """Capture nothing more; the frames at hand get half a second. Safe in a signal handler and from any thread."""
        self._stopped = True
        if self._loop is not None:
            self._loop.stop()

    def shortfall(self, answered: int) -> str:
        """Why fewer frames were answered than were asked for; empty when that was not the source's doing."""
        if self.source.failure:
            return self.source.failure
        if self._stopped or self.source.feed is None or answered >= (self.frames or 1):
            return ""
        asked = f"{self.frames} were asked for with --frames" if self.frames else "expected at least one"
        return f"source {self.source.name} ended after {answered} frames; {asked}"

    def close(self) -> None:
        """Leave the MEC and close the source; may be called twice."""
        self._ahead.abandon()
        if self._loop is not None:
            self._loop.close()
        self.source.close()

    def _new_shadow(self) -> BoundedShadow | None:
        setup = self._setup
        if setup.shadow is None:
            return None
        label = setup.shadow.name if setup.shadow.policy is None else str(setup.shadow.policy)
        shadow = Shadow(label, self._candidate(), setup.chosen.costs, setup.utility)
        return BoundedShadow(shadow, setup.log)

    def _candidate(self) -> Controller:
        """The candidate that sits in the shadow, from its files as they are now."""
        setup = self._setup
        assert setup.shadow is not None
        return setup.shadow.make(setup.bundle, setup.chosen.costs, setup.utility)

    def _new_loop(self) -> DeviceLoop:
        from runtime.device.daemon import open_loop
        from runtime.shortcuts.configured import shortcuts_of

        setup = self._setup
        return open_loop(
            setup.mecs,
            self._compute,
            setup.chosen.costs,
            self.scenario,
            setup.utility,
            setup.trace,
            setup.limits,
            breaker=setup.breaker,
            closed_loop=self._closed_loop,
            feed=self.source.feed,
            forecaster=forecaster_of(setup.workload) if setup.forecast else None,
            shortcuts=shortcuts_of(
                setup.filter,
                setup.cache,
                setup.workload,
                moves=setup.forecast,
                seed=self.scenario.seed,
                empty=setup.empty,
                own=setup.shortcuts,
            ),
            log=setup.log,
            link_log=_silent if setup.chosen.never_asks else setup.log,
        )


def _silent(_: str) -> None:
    """Takes a line of text and drops it."""


def _compute(setup: DeviceSetup, source: Source) -> LocalCompute:
    import runtime.device.daemon  # noqa: F401 - all imports happen here, where a signal ends the process at once
    from runtime.device.local_compute import LocalCompute

    return LocalCompute(
        setup.bundle,
        setup.workload,
        source=source,
        gates=setup.chosen.costs.gates,
        engine=setup.engine,
        log=setup.log,
    )


def check_complete(run: Run, answered: int) -> None:
    """FailureError when the source gave fewer frames than were asked for."""
    if failure := run.shortfall(answered):
        raise FailureError(failure) from run.source.cause
