"""What of the twin is compiled: functions of one environment, and loops over a batch of them that Python calls."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import controller.controllers.scalar
import controller.fallback
import controller.features.scalar
import controller.loads
import controller.packets
import controller.timeline
import controller.waiting
from runtime.compiler import Compiled, Sources, inlined, rule, rules, sums

__all__ = ["compiled", "inlined", "rule", "rules", "sums"]

_ENVS = Path(__file__).parent.parent
_TWIN = Sources("the twin", 20, (Path(controller.timeline.__file__).parent, _ENVS / "twin", _ENVS / "search"))
#: A function with a loop over environments. Its first argument are the tables of a twin.
compiled = partial(Compiled, _TWIN)

rules(
    controller.packets,
    controller.timeline,
    controller.fallback,
    controller.features.scalar,
    controller.controllers.scalar,
    controller.loads,
    controller.waiting,
)
