"""Makes small cost tables, random states and random policies for tests."""

from __future__ import annotations

import dataclasses

import numpy as np

from controller.controllers.learned import FrozenPolicy
from controller.costs import CostTable
from controller.features.schema import FEATURE_SCHEMA
from controller.records import NO_ROW, UPLINK_HISTORY, Decision, SystemState
from controller.space import DecisionSpace


def make_costs(rows: int = 12, seed: int = 0) -> CostTable:
    """A table of ``rows`` decisions of one model: every third is device-only, the others send the whole image."""
    rng = np.random.default_rng(seed)
    local = np.arange(rows) % 3 == 0
    decisions = tuple(
        Decision("net", 28, exit_branch=i, partition_point=4 if alone else 0, payload="none" if alone else "raw")
        for i, alone in enumerate(local)
    )
    space = DecisionSpace(decisions, np.full(rows, 4), np.arange(rows))
    return CostTable(
        space,
        accuracy=rng.uniform(0.8, 0.94, rows),
        head_s=np.where(local, rng.uniform(2e-4, 2e-3, rows), 1e-4),
        payload_bytes=np.where(local, 0.0, rng.uniform(100, 784, rows)),
        payload_std_bytes=np.where(local, 0.0, 10.0),
        mec_s=np.where(local, 0.0, rng.uniform(2e-4, 2e-3, rows)),
    )


def make_state(batch: int = 1, seed: int = 0, **fixed: float) -> SystemState:
    """Random but plausible states; a keyword fixes one field in every row."""
    rng = np.random.default_rng(seed)

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, batch)

    columns = {
        "deadline_s": uniform(0.03, 0.3),
        "capture_period_s": uniform(0.05, 0.2),
        "frame_age_s": uniform(0.0, 0.05),
        "uplink_bps": rng.uniform(1e5, 1e7, (batch, UPLINK_HISTORY)),
        "uplink_sample_bytes": rng.uniform(100, 4096, (batch, UPLINK_HISTORY)),
        "uplink_sample_age_s": np.sort(rng.uniform(0.0, 3.0, (batch, UPLINK_HISTORY)), axis=1),
        "uplink_sample_count": rng.integers(1, 50, batch),
        "uplink_age_s": uniform(0.0, 1.0),
        "uplink_backlog_bytes": rng.choice([0.0, 700.0], batch),
        "rtt_s": uniform(0.0, 0.02),
        "device_slowdown": uniform(20, 200),
        "queued_frames": rng.integers(0, 3, batch),
        "in_flight": rng.integers(0, 4, batch),
        "mec_queue_s": uniform(0.0, 0.01),
        "mec_queue_mean_s": uniform(0.0, 0.01),
        "mec_slowdown": uniform(1, 8),
        "mec_age_s": uniform(0.0, 1.0),
        "replied_row": np.full(batch, NO_ROW),
        "replied_s": np.zeros(batch),
        "waiting_row": np.full(batch, NO_ROW),
        "waiting_s": np.zeros(batch),
        "link_up": np.ones(batch, dtype=bool),
        "on_time_frac": uniform(0.0, 1.0),
        "fallback_frac": uniform(0.0, 1.0),
        "motion": _partly(rng, 0.0, 0.02, batch),
        "confidence": _partly(rng, 0.0, 1.0, batch),
        "reused_frac": uniform(0.0, 1.0),
        "tracked_speed": _partly(rng, 0.0, 0.3, batch),
    }
    for name, value in fixed.items():
        columns[name] = np.full(columns[name].shape, value, columns[name].dtype)
    return SystemState(**columns)


def _partly(rng: np.random.Generator, low: float, high: float, batch: int) -> np.ndarray:
    """Known in about two of three rows."""
    return np.where(rng.random(batch) < 0.67, rng.uniform(low, high, batch), np.nan)


def random_policy(seed: int = 0) -> FrozenPolicy:
    """A policy of the present feature schema with random weights."""
    rng = np.random.default_rng(seed)
    context, candidate = len(FEATURE_SCHEMA.context), len(FEATURE_SCHEMA.candidate)
    shapes = [(context, 24), (candidate, 24), (24,), (24, 16), (16,), (16,), (candidate,)]
    return FrozenPolicy(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


def row_of(state: SystemState, row: int) -> SystemState:
    return SystemState(
        **{
            f.name: None if getattr(state, f.name) is None else getattr(state, f.name)[row : row + 1]
            for f in dataclasses.fields(state)
        }
    )
