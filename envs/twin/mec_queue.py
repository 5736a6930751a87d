"""How long does a request wait at the MEC behind the work of other devices?

Other devices' requests (``controller.predict.arrivals``) are served in order of arrival by one server: M/D/1. Its
workload is simulated once, in units of the service time and for a ladder of loads, and looked up ever after, which
makes a wait cost one search however many requests of others it stands for.

- All loads thin one common stream, so the workload of the next load is nearly the same path:
  when the load changes (once a second) the wait moves on instead of jumping. It is then the wait that there would
  be had the load always been the present one; M/D/1 forgets in 1 / (1 - load)^2 service times, which is less than
  the second for all but the highest loads.
- Own requests add to the work. The extra work that an own request leaves behind can only be done while the others
  leave the server idle, which is 1 - load of the time (``envs.twin.request``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from controller.predict.arrivals import LEVELS, STREAM_UNITS, arrivals
from controller.records import Floats, Ints

_UNITS = np.array(float(STREAM_UNITS))
_ONE, _IDLE = np.array(1), np.array(0.0)


@dataclass(frozen=True)
class NeighbourQueue:
    """The workload's path for every load of the ladder, one path behind the other: it leaps at each arrival and falls
    by one per service time until the next. (N,) each, N about 750,000."""

    at: Floats  # of the arrival, plus STREAM_UNITS for each level before; each path begins with a point at its 0
    work: Floats  # just after it, in service times

    def workload(self, level: Ints, units: Floats) -> Floats:
        """Workload at the given times (service times, from 0). Shapes broadcast together."""
        time = level * _UNITS + units % _UNITS
        last = self.at.searchsorted(time, side="right") - _ONE
        return np.asarray(np.maximum(self.work.take(last) - (time - self.at.take(last)), _IDLE))


@cache
def neighbour_queue() -> NeighbourQueue:
    """The one table of this process (12 MB, a tenth of a second)."""
    stream = arrivals()
    paths = [_cyclic_path(stream.at[stream.needed_load < level / 100]) for level in range(LEVELS)]
    return NeighbourQueue(
        at=np.concatenate([at + level * STREAM_UNITS for level, (at, _) in enumerate(paths)]),
        work=np.concatenate([work for _, work in paths]),
    )


def _cyclic_path(arrival: Floats) -> tuple[Floats, Floats]:
    """Times from 0 to STREAM_UNITS, and the workload just after each, of unit services that repeat for ever.

    The second lap is taken: by then the queue has forgotten that it began empty.
    """
    twice = np.concatenate([arrival, arrival + STREAM_UNITS])
    # Lindley, unrolled: work brought in, less time passed, plus the time that the server was idle.
    brought = np.arange(1.0, len(twice) + 1)
    work = brought - twice + np.maximum.accumulate(np.maximum(twice - (brought - 1.0), 0.0))
    first = len(arrival)
    left = max(float(work[first - 1] - STREAM_UNITS + arrival[-1]), 0.0) if first else 0.0
    return np.append(0.0, arrival), np.append(left, work[first:])
