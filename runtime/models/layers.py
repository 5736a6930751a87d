"""A layer for the latency models: its kind, regressors and multiply-accumulates, and a call that runs it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """Kind and cost of one layer, for a batch of one."""

    kind: str  # a name of the table in `runtime.models.layer_kinds`; or a step around the network
    regressors: tuple[float, ...]  # of Edgent's table, for this kind
    macs: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a forward pass. ``call`` runs it again on the same input."""

    info: LayerInfo
    call: Call
