"""Random conditions for which candidates are chosen: of usual, narrow and fast links."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.predict.expectation import idle_state
from controller.records import NO_ROW, UPLINK_HISTORY, Floats, SystemState
from controller.scenario import ScenarioRange

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Links:
    """Bandwidths, log-uniform between the bounds in bit/s, and how many conditions are drawn over them."""

    name: str
    bps: Bounds
    count: int
    idle: bool  # nothing queues or waits anywhere


#: From a nearly dead link to one on which sending costs little.
USUAL = Links("usual links", (1e4, 3e7), 2000, idle=False)
#: Few rows are in time there for a slow device, and which ones changes with a few bytes and milliseconds. So conditions
#: are drawn densely: a row that alone fits must meet one of them.
NARROW = Links("narrow links", (8e3, 2.5e5), 4000, idle=True)
#: Sending costs nothing there: a slow device wins by what it need not compute, such as the encoding of an image.
FAST = Links("fast links", (3e7, 1.5e8), 2000, idle=False)

ALL_LINKS = (USUAL, NARROW, FAST)
_SEED = 20_260_000


def drawn(family: ScenarioRange, links: Links, seed: int = 0) -> SystemState:
    """Random states (links.count,) of a range over such links; the same for the same seed."""
    rng = np.random.default_rng(_SEED + ALL_LINKS.index(links) + 1000 * seed)
    return _idle(family, links, rng) if links.idle else _busy(family, links, rng)


def _idle(family: ScenarioRange, links: Links, rng: np.random.Generator) -> SystemState:
    """Of an idle device, link and MEC."""
    return idle_state(
        deadline_s=_log_uniform(rng, family.deadline_s, links),
        capture_period_s=1.0 / _log_uniform(rng, family.fps, links),
        device_slowdown=_log_uniform(rng, family.device_slowdown, links),
        mec_slowdown=_log_uniform(rng, family.mec_slowdown, links),
        mec_wait_s=_log_uniform(rng, family.rtt_s, links),
        uplink_bps=_log_uniform(rng, links.bps, links),
    )


def _log_uniform(rng: np.random.Generator, bounds: Bounds, links: Links) -> Floats:
    low, high = np.log(bounds)
    return np.asarray(np.exp(rng.uniform(low, high, links.count)))


def _busy(family: ScenarioRange, links: Links, rng: np.random.Generator) -> SystemState:
    """Half of the frames have waited, and half of the MECs have a queue."""
    n = links.count
    zeros, counts = np.zeros(n), np.zeros(n, dtype=np.int64)
    no_row = np.full(n, NO_ROW)
    history = np.zeros((n, UPLINK_HISTORY))

    def log_uniform(bounds: Bounds) -> Floats:
        return _log_uniform(rng, bounds, links)

    deadline = log_uniform(family.deadline_s)
    queue = deadline * rng.uniform(0.0, 0.3, n) * rng.integers(0, 2, n)
    device_load = rng.uniform(*family.device_load_frac, n)
    return SystemState(
        deadline_s=deadline,
        capture_period_s=1.0 / log_uniform(family.fps),
        frame_age_s=deadline * rng.uniform(0.0, 0.5, n) * rng.integers(0, 2, n),
        uplink_bps=np.repeat(log_uniform(links.bps)[:, None], UPLINK_HISTORY, axis=1),
        uplink_sample_bytes=history,
        uplink_sample_age_s=history,
        uplink_sample_count=counts,
        uplink_age_s=zeros,
        uplink_backlog_bytes=zeros,
        rtt_s=log_uniform(family.rtt_s),
        device_slowdown=log_uniform(family.device_slowdown) / (1.0 - device_load),
        queued_frames=counts,
        in_flight=counts,
        mec_queue_s=queue,
        mec_queue_mean_s=queue,
        mec_slowdown=log_uniform(family.mec_slowdown),
        mec_age_s=zeros,
        replied_row=no_row,
        replied_s=zeros,
        waiting_row=no_row,
        waiting_s=zeros,
        link_up=np.ones(n, dtype=np.bool_),
        on_time_frac=zeros,
        fallback_frac=zeros,
    )
