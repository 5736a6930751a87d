"""The conditions of a device's run, as its configuration describes them."""

from __future__ import annotations

import msgspec

from controller.scenario import Scenario
from runtime.config.tree import DEFAULT_FRAMES, Config

UNLIMITED_FRAMES = 1_000_000_000  # a source ends before, or is stopped: three years at ten frames per second


def device_scenario(config: Config) -> Scenario:
    """One episode as long as the source, or nearly without end where nobody knows how long that is."""
    device, source, emulation = config.device, config.source, config.emulation
    return Scenario(
        fps=source.fps or 1e3 / device.deadline_ms,
        deadline_s=device.deadline_ms / 1e3,
        device_slowdown=emulation.slowdown,
        device_load_frac=emulation.load,
        rtt_s=emulation.rtt_ms / 1e3,
        trace_start_s=emulation.uplink_start_s,
        uplink_share_frac=emulation.uplink_share,
        frames=frames_ahead(config) or UNLIMITED_FRAMES,
        first_sample=source.start or 0,
        seed=device.seed,
    )


def frames_ahead(config: Config) -> int | None:
    """How many frames there will be, where that is known."""
    return config.source.frames or (DEFAULT_FRAMES if config.source.input is None else None)


def paced(config: Config, own_fps: float | None) -> Config:
    """The same at the frame rate of the source, if that is played by its own times."""
    if own_fps is None:
        return config
    return msgspec.structs.replace(config, source=msgspec.structs.replace(config.source, fps=own_fps))
