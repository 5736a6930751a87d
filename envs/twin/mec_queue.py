"""How long does a request wait at the MEC behind the work of other devices?

Other devices' requests (``controller.predict.arrivals``) are served in order of arrival by one server: M/D/1. Its
workload is simulated once, in units of the service time and for a ladder of loads, and looked up ever after, which
makes a wait cost one search however many requests of others it stands for.

- All loads thin one common stream, so the workload of the next load is nearly the same path:
  when the load changes (once a second) the wait moves on instead of jumping. It is then the wait that there would
  be had the load always been the present one; M/D/1 forgets in 1 / (1 - load)^2 service times, which is less than
  the second for all but the highest loads.
- Own requests add to the work. The extra work that an own request leaves behind can only be done while the others
  leave the server idle, which is 1 - load of the time (``envs.twin.link.wait_at_mec``).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from controller.predict.arrivals import LEVELS, STREAM_UNITS, arrivals
from controller.records import Floats
from envs.twin.state import record_type

#: The workload leaps at each arrival and falls by one per service time until the next.
ARRIVAL = record_type(
    at="f8",  # in service times, plus STREAM_UNITS for each level before
    work="f8",  # just after it, in service times
)


def workload(paths: Any, started: Any, level: int, units: float) -> float:
    """Workload of others at a time in service times, from 0; ``paths`` and ``started`` as ``neighbour_queue``."""
    time = units % STREAM_UNITS
    place = started[level, int(time) & (STREAM_UNITS - 1)]
    time += level * STREAM_UNITS
    while paths[place + 1].at <= time:
        place += 1
    return max(paths[place].work - (time - paths[place].at), 0.0)


@cache
def neighbour_queue() -> tuple[Any, Any]:
    """The workload's path for every load of the ladder, and where to look in it.

    The paths stand one behind the other, (N,) ARRIVAL with N about 750,000; each begins with a point at its time 0 and
    ends with one that is never reached. The second array (LEVELS, STREAM_UNITS) has the place of the last arrival
    before each whole time. There is one such table in a process (18 MB, a fifth of a second).
    """
    stream, count = arrivals(), 0
    paths, started = [], np.empty((LEVELS, STREAM_UNITS), np.int32)
    for level in range(LEVELS):
        path = _cyclic_path(stream.at[stream.needed_load < level / 100])
        started[level] = count + path["at"].searchsorted(np.arange(STREAM_UNITS), side="right") - 1
        path["at"] += level * STREAM_UNITS
        paths.append(path)
        count += len(path)
    return np.concatenate(paths), started


def _cyclic_path(arrival: Floats) -> Any:
    """Arrivals from 0 to STREAM_UNITS, and the workload just after each, of unit services that repeat for ever.

    The second lap is taken: by then the queue has forgotten that it began empty.
    """
    twice = np.concatenate([arrival, arrival + STREAM_UNITS])
    # Lindley, unrolled: work brought in, less time passed, plus the time that the server was idle.
    brought = np.arange(1.0, len(twice) + 1)
    work = brought - twice + np.maximum.accumulate(np.maximum(twice - (brought - 1.0), 0.0))
    first = len(arrival)
    left = max(float(work[first - 1] - STREAM_UNITS + arrival[-1]), 0.0) if first else 0.0
    path = np.zeros(first + 2, ARRIVAL)
    path["at"] = np.concatenate([[0.0], arrival, [np.inf]])
    path["work"] = np.concatenate([[left], work[first:], [0.0]])
    return path
