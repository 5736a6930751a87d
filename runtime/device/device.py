"""A device, as a program of one's own uses it: frames in, one outcome for each frame out.

    with Device("campus", controller="greedy", mec="tcp://10.0.0.5:5577", deadline_s=0.15) as device:
        for outcome in device.run("rtsp://camera/stream"):
            print(outcome.status, outcome.latency_ms, outcome.prediction)

``mecpilot device`` is made of the same class.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from controller.costs import CostTable
from controller.errors import UsageError
from controller.predict.uplink import TraceBank
from controller.records import Outcome
from controller.scenario import Scenario
from controller.utility import Utility
from runtime.bundles.bundle import DEFAULT_NAME, Bundle, open_pair
from runtime.config.rules import check_cache, check_filter, checked
from runtime.config.sections.device import EmulationSection, LimitsSection, PrivacySection
from runtime.config.sections.fields import DEFAULT_FRAMES, MAX_INT
from runtime.config.sections.security import SecuritySection
from runtime.config.sections.shortcuts import CacheSection, FilterSection
from runtime.config.sizes import bytes_of
from runtime.config.technique_notes import technique_notes
from runtime.config.tree import DEFAULTS
from runtime.device.controllers import ControllerLike
from runtime.device.deadline import deadline_warning
from runtime.device.deciding import Choice, Files, choose, files_of, provenance_of
from runtime.device.named import shadow_of
from runtime.device.plain_state import plain_state
from runtime.device.run import DeviceSetup, Log, Run, check_complete
from runtime.files.provenance import Provenance
from runtime.inference.engines import checked_engine
from runtime.link.mecs.address import addresses_of, names_of
from runtime.profiling.profile import load_costs
from runtime.security.resolve import with_keys
from runtime.shortcuts.base import Shortcut
from runtime.shortcuts.filtering.configured import check_window, known_empty
from runtime.sources.kinds import SourceLike, open_any
from runtime.sources.window import Windowed, window_of
from runtime.workloads.base import Workload


class Device:
    """Answers frames, here or with the help of a MEC, and decides for each frame which.

    Making one checks all arguments and opens the files that they name; ``run`` then imports the networks, which takes
    one to three seconds, and connects. Torch computes on one thread, as in the profile. A MEC that is not there is no
    error: frames are answered here.

    UsageError says which argument cannot be used. FailureError says what went wrong with the source.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = None,
        controller: ControllerLike | None = None,
        mec: str | Sequence[str] = DEFAULTS.device.mec,
        *,
        workload: str | Workload | None = None,
        policy: str | Path | None = None,
        tuning: str | Path | None = None,
        decision: Mapping[str, Any] | None = None,
        profile: str | Path | None = None,
        data: str | Path | None = None,
        fps: float = DEFAULTS.source.fps,
        deadline_s: float = DEFAULTS.device.deadline_ms / 1e3,
        gate: float | None = DEFAULTS.device.gate,
        seed: int = DEFAULTS.device.seed,
        utility: Utility | None = None,
        breaker: bool = DEFAULTS.device.breaker,
        no_raw_upload: bool = DEFAULTS.privacy.no_raw_upload,
        shortcuts: Sequence[Shortcut] = (),
        forecast: bool | None = DEFAULTS.device.forecast,
        roi: bool = DEFAULTS.device.crops,
        engine: str | None = DEFAULTS.device.engine,
        filter: FilterSection = DEFAULTS.filter,
        cache: CacheSection = DEFAULTS.cache,
        limits: LimitsSection = DEFAULTS.limits,
        emulation: EmulationSection = DEFAULTS.emulation,
        security: SecuritySection = DEFAULTS.security,
        guard: bool = DEFAULTS.controller.guard,
        guard_controller: str = DEFAULTS.controller.guard_controller,
        shadow: str | Path | None = DEFAULTS.controller.shadow,
        log: Log | None = None,
    ) -> None:
        """
        bundle: name of a shipped bundle, the directory of one, or an opened one; default: the workload's, or campus.
        controller: a name (default "ppo"); an object with ``decide(state)``, which returns a row of ``costs``; or a
            class or function that makes such an object from ``costs``.
        mec: endpoint of the MEC, tcp://HOST:PORT; or several, the preferred one first. One is in use, the others stand
            by for its failure.
        workload: a name, package.module:Class, or an object; only needed for one's own, or to check the bundle.
        policy, tuning: files of `mecpilot export` and `mecpilot tune`; default: the shipped ones.
        decision: fields of the one decision to take for every frame, instead of a controller.
        profile: file of `mecpilot profile`, or "shipped"; default: this machine's, else the shipped one.
        data: directory with the workload's data set.
        fps: captures per second; 0 captures a frame when the one before was answered.
        deadline_s: seconds from capture to answer.
        gate: confidence from which on an exit before the cut may answer here, so that nothing is sent; None: none.
        seed: of everything random.
        utility: weights of the objective.
        breaker: a sole MEC is not asked for a while when three requests in a row failed or were answered too late.
        no_raw_upload: never send an image: every decision computes at least one stage here. What that leaves is
            ``costs``; a controller of one's own cannot choose anything else.
        shortcuts: may answer a frame before it is decided, by an earlier answer; asked in this order. They may keep
            answers, so give each run a new device. One that raises an error is logged, and the frame is decided.
        forecast: answers that stand for later frames move on, and objects have numbers (``Outcome.track_ids``);
            default: if the bundle says what that scores.
        roi: decisions may run a part of the picture, where something moves (``Outcome.region``).
        engine: what runs the models: "auto" for the fastest of a short measurement, "torch", "onnxruntime", "openvino",
            "cuda" or an installed one; None: the engine that recorded a model's answers.
        filter: frames that show nothing new, or nothing at all, are not run; asked before ``shortcuts``.
        cache: answers that stand for later pictures much like theirs, such as ``CacheSection(size="32MB")``; the
            default has no room for any.
        limits: how many frames may wait, and how many requests may wait for their replies.
        emulation: a slower device and a narrower uplink than those at hand, for experiments.
        security: key files of this device and the MEC's public key, or plain; needed where ``mec`` is another machine.
        guard, guard_controller: the named classical controller takes over from ppo where its policy cannot be trusted.
        shadow: name of a controller, or a policy file, that decides beside the controller and never acts.
        log: takes one line of text for each event; default: warnings of the logger "mecpilot".
        """
        privacy = PrivacySection(no_raw_upload=no_raw_upload)
        guarded_by = guard_controller if guard else ""
        self._choice = Choice(controller, _path(policy), _path(tuning), decision, seed, privacy, gate, roi, guarded_by)
        self._profile = _path(profile)
        self._hardware_encoder = emulation.hardware_encoder
        self.controller_name = self._choice.name
        filter, cache = checked(filter, "filter"), checked(cache, "cache")
        check_filter(filter)
        _check_size("cache", cache.size)
        check_cache(cache)
        log = log or _log_to_logging
        mecs = with_keys(addresses_of(mec), security, log)
        _check_number("fps", fps, 0.0, 1000.0)
        _check_number("deadline_s", deadline_s, 1e-6, 3600.0)
        _check_number("seed", seed, 0, MAX_INT)
        self.bundle, self.workload = open_pair(bundle or (None if workload else DEFAULT_NAME), workload, _path(data))
        utility = utility or Utility()
        self._in_use = self._files(self._choice)
        moves_on = self.bundle.forecasts(forecast, self.workload)
        self._crops = self._choice.crops(self.workload)
        costs = load_costs(
            self.bundle,
            self._profile,
            hardware_encoder=self._hardware_encoder,
            gates=self._choice.gates,
            forecast=moves_on,
            crops=self._crops,
            weighed=self._choice.decision is None,
            sealed=any(address.keys is not None for address in mecs),
        )
        self._setup = DeviceSetup(
            self.bundle,
            self.workload,
            choose(self._choice, costs, self.bundle, utility, self._crops),
            _scenario(fps, deadline_s, seed, emulation),
            utility,
            _trace(_path(emulation.uplink)),
            limits,
            mecs,
            breaker,
            tuple(shortcuts),
            moves_on,
            filter,
            known_empty(filter, self.workload, self.bundle.frame_shape),
            cache,
            checked_engine(engine),
            None if shadow is None else shadow_of(shadow, self._choice.named),
            log,
        )
        if self._setup.shadow is not None:
            self._setup.shadow.make(self.bundle, self.costs, utility)  # a candidate that cannot be used is refused now
        self._run: Run | None = None
        self._reloading = threading.Lock()
        self._reloaded: Provenance | None = None

    @property
    def costs(self) -> CostTable:
        """The decisions that the controller chooses from, and what each of them costs."""
        return self._setup.chosen.costs

    @property
    def mec(self) -> str:
        """Endpoint of the MEC; of several, separated by commas."""
        return names_of(self._setup.mecs)

    @property
    def forecasts(self) -> bool:
        """Whether answers that stand for later frames move on."""
        return self._setup.forecast

    @property
    def is_reloadable(self) -> bool:
        """Whether ``reload`` makes sense: a pinned decision and a controller of one's own come from no file."""
        return self._choice.is_named

    @property
    def reloaded(self) -> Provenance | None:
        """The files that the controller rests on since the last reload; None before one."""
        return self._reloaded

    def provenance(self) -> Provenance:
        """The files that a run rests on, with their digests."""
        return self._provenance(self._choice)

    def _files(self, choice: Choice) -> Files | None:
        """The files that the controller comes from; None when one cannot be read."""
        try:
            return files_of(self.bundle.workload, choice)
        except OSError:
            return None

    def _provenance(self, choice: Choice) -> Provenance:
        setup = self._setup
        notes = technique_notes(choice.gates, setup.forecast, setup.filter, setup.cache, self._crops)
        return provenance_of(self.bundle, choice, self._profile, self._hardware_encoder, notes)

    def run(
        self,
        source: SourceLike = None,
        *,
        frames: int | None = None,
        start: int | None = None,
        retry_s: float = DEFAULTS.source.retry_s,
        own_times: bool = False,
        window: str | None = None,
    ) -> Iterator[Outcome]:
        """Answer the frames of a source; yields each frame's outcome as soon as it is known.

        source: a video file, image folder, camera index or device, FIFO, or URL; any iterable of images, numpy u8 of
            shape (h, w) or (h, w, 3) blue-green-red; None: the workload's own samples, which have a truth.
        frames: how many to capture; default: 300 samples, or the whole source.
        start: first sample or frame of the source.
        retry_s: how long a camera or stream may give no picture.
        own_times: play a video by the times in it, not at ``fps``.
        window: "x,y,w,h", the part of the workload's frame that counts; the rest is grey.

        What the body of the loop takes is taken from the frames, so keep it short. A second run connects anew. Leave
        the loop, or call ``stop``, to end it early. FailureError when the source gives fewer frames than asked for.
        """
        import torch

        run = self.prepare(source, frames=frames, start=start, retry_s=retry_s, own_times=own_times, window=window)
        answered = 0
        try:
            torch.set_num_threads(1)
            run.warm_up()
            for outcome in run:
                answered += 1
                yield outcome
            check_complete(run, answered)
        finally:
            run.close()

    def prepare(
        self,
        source: SourceLike = None,
        *,
        frames: int | None = None,
        start: int | None = None,
        retry_s: float = DEFAULTS.source.retry_s,
        own_times: bool = False,
        window: str | None = None,
        keep: bool = False,
    ) -> Run:
        """The first step of ``run``, for programs that must do something between the steps: open the source and import
        the networks. With ``keep`` the pictures of a camera can be replayed after the run."""
        _check_number("retry_s", retry_s, 0.0, math.inf)
        place = None if window is None else window_of(window, self.bundle.frame_shape)
        check_window(self._setup.empty, place, self.bundle.frame_shape)
        if warning := deadline_warning(self.costs, self._setup.scenario):
            self._setup.log(warning)
        if source is None:
            frames = frames or DEFAULT_FRAMES
        opened = open_any(
            source,
            self.workload,
            self.bundle.frame_shape,
            frames=frames,
            start=start,
            keep=keep,
            retry_s=retry_s,
            own_times=own_times,
            log=self._setup.log,
        )
        if place is not None:
            opened = Windowed(opened, place, self.workload)
        try:
            self._run = Run(self._setup, opened, frames, start or 0)
        except BaseException:
            opened.close()
            raise
        return self._run

    def reload(self, policy: str | Path | None = None, tuning: str | Path | None = None) -> None:
        """Read policy and tuning anew, from other files or from those in use, and let them decide from the next frame
        on. No frame is lost, and none waits. Files that have not changed change nothing: a controller keeps what it
        has seen. Safe on any thread, which reads and checks the files.

        UsageError for files that cannot be used, and for a controller that comes from no file: then nothing changes.
        """
        with self._reloading:
            choice = replace(
                self._choice, policy=_path(policy) or self._choice.policy, tuning=_path(tuning) or self._choice.tuning
            )
            if not self.is_reloadable:
                raise UsageError(f"reload: {choice.name} comes from no file; expected a device with a named controller")
            files = self._files(choice)
            if files is not None and files == self._in_use:
                return
            controller = choice.named.make(self.bundle, self.costs, self._setup.utility)
            controller.decide(plain_state(self._setup.scenario, self.costs))  # what cannot decide never takes the seat
            controller.reset(np.ones(1, dtype=bool))
            if self._files(choice) != files:
                raise UsageError("reload: the files changed while they were read; reload again")
            provenance = self._provenance(choice)
            self._choice, self._in_use, self._reloaded = choice, files, provenance
            self._setup = replace(self._setup, chosen=replace(self._setup.chosen, controller=controller))
            if self._run is not None:
                self._run.offer(controller, f"reloaded {choice.name}: {_files_text(provenance)}")

    def stop(self) -> None:
        """End the run that is under way: capture nothing more, and give the frames at hand half a second. Safe in a
        signal handler and from any thread."""
        if self._run is not None:
            self._run.stop()

    def close(self) -> None:
        """End the run that is under way at once; may be called twice."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _files_text(provenance: Provenance) -> str:
    """The files that a controller comes from, for the log."""
    policies = [f"policy {file.text}" for file in provenance.policies]
    return ", ".join(policies + ([f"tuning {provenance.tuning.text}"] if provenance.tuning else [])) or "no file"


def _check_number(name: str, value: object, least: float, most: float) -> None:
    """UsageError unless the value is a number within the limits."""
    if not isinstance(value, Real) or not least <= float(value) <= most:
        raise UsageError(f"{name}: got {value!r}; expected a number from {least:g} to {most:.12g}")


def _check_size(name: str, size: str) -> None:
    """UsageError unless the text is a number of bytes."""
    try:
        bytes_of(size)
    except UsageError as error:
        raise UsageError(f"{name}: got {error}") from None


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _scenario(fps: float, deadline_s: float, seed: int, emulation: EmulationSection) -> Scenario:
    return Scenario(
        fps=fps,
        deadline_s=deadline_s,
        device_slowdown=emulation.slowdown,
        device_load_frac=emulation.load,
        rtt_s=emulation.rtt_ms / 1e3,
        trace_start_s=emulation.uplink_start_s,
        uplink_share_frac=emulation.uplink_share,
        seed=seed,
    )


def _trace(path: Path | None) -> TraceBank | None:
    if path is None:
        return None
    from runtime.traces.load import load_traces

    return load_traces([path])


def _log_to_logging(text: str) -> None:
    import logging

    logging.getLogger("mecpilot").warning("%s", text)
