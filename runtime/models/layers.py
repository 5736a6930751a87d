"""A layer as the latency models see it: its kind, its regressors, its cost, and a way to run it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """Kind and costs of one layer, for a batch of one."""

    kind: str  # conv, depthwise, norm, relu, pool, fc, add, resize or peaks; or a step around the network
    regressors: tuple[float, ...]  # of Edgent's table, for this kind
    macs: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a real pass. ``call`` runs it again on the input that it had there."""

    info: LayerInfo
    call: Call
