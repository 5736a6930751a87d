"""How long does a request wait at the MEC behind the work of other devices?

Other devices' requests (``controller.neighbours``) are served in order of arrival by one server: M/D/1. Its
workload is simulated once, in units of the service time and for a ladder of loads, and looked up ever after, which
makes a wait cost a few array operations however many requests of others it stands for.

- All loads thin one common stream, so the workload of the next load is nearly the same path:
  when the load changes (once a second) the wait moves on instead of jumping. It is then the wait that there would
  be had the load always been the present one; M/D/1 forgets in 1 / (1 - load)^2 service times, which is less than
  the second for all but the highest loads.
- Own requests add to the work. The extra work that an own request leaves behind can only be done while the others
  leave the server idle, which is 1 - load of the time (``envs.flight``).

Between the points of the table (one service time apart) the workload is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from controller.neighbours import LEVELS, STREAM_UNITS, arrivals
from controller.records import Floats, Ints

_UNITS, _MASK = np.array(STREAM_UNITS), np.array(STREAM_UNITS - 1)


@dataclass(frozen=True)
class NeighbourQueue:
    """Workload of every load of the ladder, in service times: one row per (level, unit), its value there and its
    change to the next unit."""

    table: NDArray[np.float32]  # (LEVELS * STREAM_UNITS, 2)

    def workload(self, level: Ints, units: Floats) -> Floats:
        """Workload at the given times (service times, from 0). Shapes broadcast together."""
        whole = units.astype(np.int64)
        row = self.table.take(level * _UNITS + (whole & _MASK), axis=0)
        return np.asarray(row[..., 0] + (units - whole) * row[..., 1])


@cache
def neighbour_queue() -> NeighbourQueue:
    """The one table of this process (12 MB, a tenth of a second)."""
    stream = arrivals()
    table = np.empty((LEVELS, STREAM_UNITS, 2), np.float32)
    for level in range(LEVELS):
        workload = _cyclic_path(stream.at[stream.needed_load < level / 100])
        table[level, :, 0], table[level, :, 1] = workload[:-1], np.diff(workload)
    return NeighbourQueue(table.reshape(-1, 2))


def _cyclic_path(arrival: Floats) -> Floats:
    """Workload at 0, 1, ... STREAM_UNITS of unit services that repeat for ever.

    The second lap is taken: by then the queue has forgotten that it began empty.
    """
    twice = np.concatenate([arrival, arrival + STREAM_UNITS])
    # Lindley, unrolled: work brought in, less time passed, plus the time that the server was idle.
    idle_at = np.maximum.accumulate(np.append(0.0, twice - np.arange(len(twice))))
    time = np.arange(STREAM_UNITS, 2 * STREAM_UNITS + 1, dtype=np.float64)
    arrived = np.searchsorted(twice, time, side="right")
    idle = np.maximum(idle_at[arrived], time - arrived)
    return np.asarray(arrived - time + idle)
