"""``oboe``: the best parameters of a simpler controller in each network state (Akhtar et al., SIGCOMM 2018).

Oboe tunes an algorithm for video streaming offline, on each state of the network, and switches its parameters online
when a change point begins a new state. Here the algorithm is ``greedy`` or ``edgent``. A network state is

- the mean bandwidth, relative to what this device needs to send a typical payload within its deadline, and
- the spread around that mean, one of the classes that ``controller.controllers.bandwidth_states`` learns from traces.

``controller.controllers.tuning`` finds the map from states to parameters on the training traces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from controller.controllers.bandwidth_states import BandwidthStates
from controller.controllers.base import Controller
from controller.controllers.uplink_state import UplinkState
from controller.costs import CostTable
from controller.records import Bools, Ints, SystemState

#: Names of the levels, least bandwidth first, and how often a typical payload would cross within the deadline where
#: one begins and the other ends.
LEVELS = ("scarce", "tight", "ample", "plenty")
_EDGES = (1.0, 3.0, 10.0)
#: Names of the spread classes, least spread first.
SPREADS = ("steady", "varying", "wild")
#: All network states; a map of parameters has them as its keys.
NETWORK_STATES = tuple(f"{level} {spread}" for level in LEVELS for spread in SPREADS)


class Oboe:
    """Lets the controller of the present network state decide. Owns, per row of the batch, the state of its uplink."""

    name = "oboe"

    def __init__(
        self,
        costs: CostTable,
        states: BandwidthStates,
        usual: Controller,
        special: Mapping[str, Controller],
        *,
        hazard: float,
        threshold: float,
        batch: int,
    ) -> None:
        """``usual`` decides in every network state that ``special`` does not name. All of them are without memory."""
        self._uplink = UplinkState(states, batch, hazard, threshold)
        self._deciders: Sequence[Controller] = (usual, *special.values())
        names = ("", *special)
        self._decider_of = np.array([names.index(state) if state in special else 0 for state in NETWORK_STATES])
        message_bits = costs.uplink_bytes[~costs.space.device_only] * 8.0
        self._typical_bits = float(np.median(message_bits)) if len(message_bits) else 1.0

    def reset(self, rows: Bools) -> None:
        self._uplink.reset(rows)

    def decide(self, state: SystemState) -> Ints:
        self._uplink.update(state)
        decider = self._decider_of[self.network_state(state)]
        chosen = np.empty(state.batch, dtype=np.int64)
        for number in np.unique(decider).tolist():
            rows = np.flatnonzero(decider == number)
            chosen[rows] = self._deciders[number].decide(state.take(rows))
        return chosen

    def network_state(self, state: SystemState) -> Ints:
        """(B,) index into NETWORK_STATES."""
        crossings = self._uplink.log_bps + np.log(state.deadline_s / self._typical_bits)
        level = np.searchsorted([math.log(edge) for edge in _EDGES], crossings)
        return np.asarray(level * len(SPREADS) + self._uplink.spread)
